"""Check a node before its first cell: may it be given cells? Runs every check of ``CHECKS``."""

from collections.abc import Sequence

from sweep.deadline import call_with_deadline
from sweep.messages import CheckResult, Requirements
from sweep.preflight.checks import CHECKS, Check
from sweep.preflight.code_checks import same_sweep
from sweep.preflight.facts import Facts, read_facts
from sweep.preflight.finding import Finding

__all__ = ["CHECKS", "Facts", "check_sweep", "refusal", "run_checks", "warnings"]


def run_checks(requirements: Requirements, *, facts: Facts | None = None) -> list[CheckResult]:
    """What each check finds on this machine, in the order of the table; ends within minutes.

    ``facts`` stand in for those of this machine.
    """
    facts = facts or read_facts(requirements)
    return [_run(check, facts, requirements) for check in CHECKS]


def check_sweep(here: str, drivers: str) -> CheckResult:
    """Whether a node has the driver's sweep, by their hashes; asked before all else is sent."""
    (check,) = (check for check in CHECKS if check.name == "sweep code")
    found = same_sweep(here, drivers)
    return CheckResult(check.name, found.status, found.detail, check.remedy)


def refusal(results: Sequence[CheckResult]) -> str | None:
    """Why the node gets no cells, with what to do about each; None if it gets them."""
    refused = [_sentence(result) for result in results if result.status == "refuse"]
    return ". ".join(refused) or None


def warnings(results: Sequence[CheckResult]) -> tuple[str, ...]:
    """What may disturb its cells, and in one sentence what could not be read."""
    warned = [_sentence(result) for result in results if result.status == "warn"]
    unknown = [f"{r.name} ({r.detail})" for r in results if r.status == "unknown"]
    return (*warned, *([f"not known here: {', '.join(unknown)}"] if unknown else []))


def _run(check: Check, facts: Facts, requirements: Requirements) -> CheckResult:
    try:
        found = call_with_deadline(check.deadline_s, lambda: check.look(facts, requirements))
    except Exception as error:  # a check that breaks must not take the node with it
        found = Finding("unknown", f"{type(error).__name__}: {error}")
    return CheckResult(check.name, found.status, found.detail, check.remedy)


def _sentence(result: CheckResult) -> str:
    return f"{result.name}: {result.detail}; {result.remedy}"
