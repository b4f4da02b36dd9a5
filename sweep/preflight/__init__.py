"""May this node be given cells? Every check of ``table.CHECKS``, run here and now."""

from collections.abc import Sequence

from sweep.messages import Requirements, Result
from sweep.preflight.checks import CHECKS
from sweep.preflight.deadline import within
from sweep.preflight.facts import Surroundings, look_around
from sweep.preflight.finding import Check, Finding
from sweep.provenance import Software

__all__ = ["CHECKS", "Result", "Surroundings", "refusal", "run_checks", "warnings"]


def run_checks(
    requirements: Requirements,
    *,
    surroundings: Surroundings | None = None,
    driver_software: Software | None = None,
    asked_at: float | None = None,
) -> list[Result]:
    """What each check finds on this machine, in the order of the table; ends within minutes.

    ``driver_software`` and ``asked_at`` (of time.time) are what the driver says of itself.
    ``surroundings`` stand in for this machine.
    """
    here = surroundings or look_around(
        requirements, driver_software=driver_software, asked_at=asked_at
    )
    return [_result(check, here, requirements) for check in CHECKS]


def refusal(results: Sequence[Result]) -> str | None:
    """Why the node gets no cells, with what to do about each; None if it gets them."""
    refused = [_sentence(result) for result in results if result.status == "refuse"]
    return ". ".join(refused) or None


def warnings(results: Sequence[Result]) -> tuple[str, ...]:
    """What may disturb its cells, and in one sentence what could not be read."""
    warned = [_sentence(result) for result in results if result.status == "warn"]
    unknown = [f"{r.name} ({r.detail})" for r in results if r.status == "unknown"]
    return (*warned, *([f"not known here: {', '.join(unknown)}"] if unknown else []))


def _result(check: Check, here: Surroundings, requirements: Requirements) -> Result:
    try:
        found = within(check.deadline_s, lambda: check.look(here, requirements))
    except Exception as error:  # a check that breaks must not take the node with it
        found = Finding("unknown", f"{type(error).__name__}: {error}")
    return Result(check.name, found.status, found.detail, check.remedy)


def _sentence(result: Result) -> str:
    return f"{result.name}: {result.detail}; {result.remedy}"
