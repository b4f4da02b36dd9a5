"""The README of a submission: its seeds, the comparison with the reference, and the rules."""

from collections.abc import Sequence

from analysis.conclusions.contrasts import contrasts
from analysis.conclusions.decision import gap_sentence
from analysis.models.interval import TInterval
from analysis.number_format import capital, counted, listed, number
from analysis.rows.read import records
from analysis.rows.scoring import script_windows, title_and_windows
from analysis.stats.ranking import function_labels, same_functions
from analysis.submission.claim import Claim, Run
from analysis.submission.rules import Finding

_SCORES = {
    "pre_quant_bpb": "pre-quant",
    "post_quant_bpb": "post-quant",
    "post_quant_sliding_bpb": "sliding",
    "ttt_bpb": "TTT",
}
_OPEN = {"{data_dir}": "the folder of the data set", "{tokenizer}": "the tokenizer's file"}
_COSTS = [("steps", "steps", 0), ("step_ms_p50", "step ms", 1), ("bytes", "bytes", 0)]


def readme(claim: Claim, findings: Sequence[Finding]) -> str:
    """Markdown; the same claim gives the same text."""
    about, score, cells = claim.about, claim.score, claim.study.cells
    shown = [*_SCORES] if claim.stage in _SCORES else [*_SCORES, claim.stage]
    sd = "" if score.sd is None else f" (sd {number(score.sd)})"
    return "\n".join(
        [
            f"# {claim.name}",
            *([f"\n{about.blurb}"] if about.blurb else []),
            f"\n{claim.label}: **{number(score.mean)}** bits per byte{sd} over"
            f" {counted(score.n, 'seed')}, {title_and_windows(cells, claim.stage)}."
            f" {cells['setting'].iloc[0]}; {hardware_words(claim)}.",
            "\n## Seeds\n",
            *_table(claim, shown),
            f"\nBits per byte. {script_windows(cells, shown) or ''}.",
            "\n## Against the reference\n",
            _comparison(claim),
            "\n## How it was run\n",
            "```",
            *dict.fromkeys(run.evidence.command for run in claim.runs),
            "```",
            *_where_data_lies(claim),
            "\n## Rules\n",
            "| rule | asks | found |",
            "|---|---|---|",
            *(
                f"| {rule.name} | {rule.asks} | {'kept' if said is None else said} |"
                for rule, said in findings
            ),
            "",
        ]
    )


def hardware_words(claim: Claim) -> str:
    """The machines of the runs."""
    rows = [run.row for run in claim.runs]
    names = {f"{row['world_size']}x {row['device_name'] or row['device']}" for row in rows}
    return "; ".join(sorted(names))


def _table(claim: Claim, stages: Sequence[str]) -> list[str]:
    """A line per seed, then mean and sample standard deviation; without what nothing printed."""
    columns = [(stage, _SCORES.get(stage, "SLOT"), 4) for stage in stages] + _COSTS
    values = {name: [_value(run, name) for run in claim.runs] for name, _, _ in columns}
    known = [column for column in columns if any(v is not None for v in values[column[0]])]
    seeds = [str(run.seed) for run in claim.runs]
    shown = [["seed", *seeds, "mean", "sd"]]
    for name, heading, places in known:
        estimate = TInterval()(value for value in values[name] if value is not None)
        column = [*values[name], estimate.mean, estimate.sd]
        shown.append([heading, *(number(value, decimals=places) for value in column)])
    lines = [f"| {' | '.join(line)} |" for line in zip(*shown, strict=True)]
    return [lines[0], "|" + "---:|" * len(shown), *lines[1:]]


def _value(run: Run, name: str) -> float | None:
    value = run.total_bytes if name == "bytes" else run.row[name]
    return None if value is None else float(value)


def _where_data_lies(claim: Claim) -> list[str]:
    """What the commands leave open: paths differ from machine to machine."""
    commands = " ".join(run.evidence.command for run in claim.runs)
    words = [f"`{name}` is {meaning}" for name, meaning in _OPEN.items() if name in commands]
    return [f"\n{listed(words)}."] if words else []


def _comparison(claim: Claim) -> str:
    """What the report says of this activation, with the interval that holds for all at once."""
    study = claim.study
    labels, kept = function_labels(study), same_functions(study.cells, study.reference)
    own, reference = kept[claim.key], kept.get(study.reference, study.reference)
    if own == reference:
        return f"{claim.label} is the reference of the sweep."
    rows = records(contrasts(study, claim.stage))
    mine = next((row for row in rows if row["key"] == own), None)
    if mine is None:
        return "It is not compared: it or the reference has a diverged seed, or no seed in common."
    return f"{capital(claim.label)}. {gap_sentence(mine, labels)}"
