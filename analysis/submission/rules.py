"""The rules that a submission is held against: the challenge's own, and what makes one false.

The challenge's are those of the README of https://github.com/openai/parameter-golf in March and
April 2026. A rule that refuses leaves no folder; any other is a warning, and stands in the README.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from scipy import special

from analysis.number_format import counted, number, p_value
from analysis.rows.completeness import cell_status
from analysis.rows.stages import is_legal
from analysis.submission.claim import Claim, Run
from trainer.config.config_errors import ConfigError

CAP_BYTES, CAP_S, FEWEST_SEEDS = 16_000_000, 600.0, 3
_GPU, _GPUS = "H100", 8
_CHALLENGE, _HERE = "the challenge's README", "this project"


class Rule(NamedTuple):
    """``broken_by`` gives the sentence that says how a claim breaks it, None where it does not."""

    name: str
    asks: str
    refuses: bool
    source: str
    broken_by: Callable[[Claim], str | None]


class Finding(NamedTuple):
    """What was found of one rule: the sentence, or None where it is kept."""

    rule: Rule
    sentence: str | None


def checked(claim: Claim) -> list[Finding]:
    """What is found of every rule; a ConfigError with all reasons where any of them refuses."""
    findings = [Finding(rule, rule.broken_by(claim)) for rule in RULES]
    reasons = [
        f"  {found.rule.name}: {found.sentence} ({found.rule.asks}; {found.rule.source})"
        for found in findings
        if found.sentence is not None and found.rule.refuses
    ]
    if reasons:
        raise ConfigError("\n".join([f"No submission of {claim.key}:", *reasons]))
    return findings


def _has_score(claim: Claim) -> str | None:
    if claim.runs or claim.faults:
        return None
    rows = claim.study.cells[claim.study.cells["key"] == claim.key]
    tainted = rows["tainted"].astype("boolean").fillna(False) & rows[claim.stage].notna()
    only = f", only {counted(int(tainted.sum()), 'tainted one')}" if tainted.any() else ""
    return f"no cell has a score of {claim.stage} that counts{only}"


def _is_whole(claim: Claim) -> str | None:
    return "; ".join(claim.faults) or None


def _of_artifact(claim: Claim) -> str | None:
    scored = claim.stage not in ("pre_quant_bpb", "pre_quant_sliding_bpb")
    return None if scored else "pre-quant weights are scored before they are compressed"


def _legal(claim: Claim) -> str | None:
    cells = claim.study.cells[claim.study.cells["key"] == claim.key]
    return None if is_legal(cells, claim.stage) else "SLOT was fitted on the targets it scores"


def _fits(claim: Claim) -> str | None:
    over = [run for run in claim.runs if (run.total_bytes or 0) > CAP_BYTES]
    return _of_seeds(over, lambda run: f"{run.total_bytes:,} bytes")


def _size_known(claim: Claim) -> str | None:
    return _of_seeds((r for r in claim.runs if r.total_bytes is None), lambda _: "not printed")


def _code_size(claim: Claim) -> str | None:
    unlike = [run for run in claim.runs if run.code_bytes != run.evidence.num_bytes]
    return _of_seeds(
        unlike,
        lambda run: f"{run.code_bytes:,} bytes counted, {run.evidence.num_bytes:,} in the folder",
    )


def _seconds(column: str) -> Callable[[Claim], str | None]:
    def within(claim: Claim) -> str | None:
        took = {run.seed: run.row[column] for run in claim.runs}
        over = [run for run in claim.runs if took[run.seed] is None or took[run.seed] > CAP_S]
        return _of_seeds(
            over,
            lambda run: "not printed" if took[run.seed] is None else f"{took[run.seed]:.1f} s",
        )

    return within


def _hardware(claim: Claim) -> str | None:
    other = [
        run
        for run in claim.runs
        if _GPU not in str(run.row["device_name"]) or run.row["world_size"] != _GPUS
    ]
    return _of_seeds(other, lambda run: f"{run.row['world_size']} × {run.row['device_name']}")


def _seeds(claim: Claim) -> str | None:
    few = len(claim.runs) < FEWEST_SEEDS
    return counted(len(claim.runs), "seed") if few else None


def _every_seed(claim: Claim) -> str | None:
    status = cell_status(claim.study.cells, claim.study.sweep)
    setting = claim.study.cells["setting"].iloc[0]
    mine = status[(status["key"] == claim.key) & (status["setting"] == setting)]
    without = mine[mine["status"] != "scored"]
    told = zip(without["seed"], without["status"], strict=True)
    return "; ".join(f"seed {seed}: {why}" for seed, why in told) or None


def _one_script(claim: Claim) -> str | None:
    ran = {tuple(sorted(run.evidence.files.items())) for run in claim.runs}
    return None if len(ran) < 2 else "each seed ran other files; all are in the folder"


def _defaults(claim: Claim) -> str | None:
    names = sorted({name for run in claim.runs for name in run.evidence.given})
    return f"without {', '.join(names)} it is another cell" if names else None


def _author(claim: Claim) -> str | None:
    missing = [name for name in ("author", "github_id") if not getattr(claim.about, name)]
    return f"{' and '.join(missing)} left empty" if missing else None


def _record(claim: Claim) -> str | None:
    """One-sided t test over seeds that the mean is better than the record by the margin."""
    about, score, factor = claim.about, claim.score, claim.nats_per_bpb
    rule = claim.record_rule
    if about.record_bpb is None:
        return "not checked: --record-bpb gives the score of the current record"
    if factor is None:
        return "not checked: the script prints no loss beside the bits per byte, so no nats"
    if score.mean is None or score.sd is None:
        return "one seed shows no p"
    error = score.sd / math.sqrt(score.n)
    better = (about.record_bpb - score.mean) * factor
    beyond = better - rule.nats
    p = float(special.stdtr(score.n - 1, -beyond / (factor * error))) if error else beyond <= 0
    if p < rule.p:
        return None
    return (
        f"{number(abs(better))} nats {'better' if better > 0 else 'worse'} than"
        f" {about.record_bpb:.4f} BPB; by {rule.nats:g} or more:"
        f" {p_value(float(p))}, asked for p < {rule.p:g} ({rule.source})"
    )


def _of_seeds(runs: Iterable[Run], says: Callable[[Run], str]) -> str | None:
    return "; ".join(f"seed {run.seed}: {says(run)}" for run in runs) or None


RULES: Sequence[Rule] = (
    Rule("score", "an untainted success of the claimed stage", True, _HERE, _has_score),
    Rule("evidence", "whole logs, and the files that ran", True, _CHALLENGE, _is_whole),
    Rule("artifact", "the compressed model is scored", True, _CHALLENGE, _of_artifact),
    Rule("legality", "targets are scored before they are fitted", True, _CHALLENGE, _legal),
    Rule("size", f"at most {CAP_BYTES:,} bytes of model and code", True, _CHALLENGE, _fits),
    Rule("size known", "model and code are weighed", False, _CHALLENGE, _size_known),
    Rule("code size", "all code is counted", False, _CHALLENGE, _code_size),
    Rule("training time", f"at most {CAP_S:g} s", False, _CHALLENGE, _seconds("train_s")),
    Rule("evaluation time", f"at most {CAP_S:g} s", False, _CHALLENGE, _seconds("eval_s")),
    Rule("hardware", f"{_GPUS} × {_GPU}", False, _CHALLENGE, _hardware),
    Rule("seeds", f"{FEWEST_SEEDS} or more", False, "the field's practice", _seeds),
    Rule("every seed", "no seed of the sweep is left out", False, _HERE, _every_seed),
    Rule("one script", "all seeds ran the same files", False, _HERE, _one_script),
    Rule("defaults", "the script alone gives the result", False, _HERE, _defaults),
    Rule("author", "name and GitHub ID", False, _CHALLENGE, _author),
    Rule("record", "the record beaten as the record rule asks", False, _CHALLENGE, _record),
)
