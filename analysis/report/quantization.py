"""Section 2 of the report: what quantization and test-time training do to each activation.

Deltas are taken within a cell at equal windows; their differences from the reference are described,
since only one stage is judged.
"""

import pandas as pd

from analysis.figures.figure_data import optional
from analysis.mechanism.associations import association_sentences
from analysis.number_format import capital, counted, listed, number, percent, plus_minus
from analysis.report.document import Block, Findings, Table, Text
from analysis.report.report_data import SettingData, seed_rows
from analysis.rows.read import records
from analysis.rows.scoring import scoring_words
from analysis.rows.stages import DELTAS, STAGES, is_legal
from analysis.stats.compare import compare
from analysis.stats.quantization import delta_stats, with_deltas
from analysis.study import Study

_HEADINGS = {
    "quant_delta": "quantization",
    "quant_delta_sliding": "quantization, sliding",
    "ttt_gain": "TTT",
}
_SLOT = "slot_gain"


def quantization(setting: SettingData) -> tuple[Block, ...]:
    """The section for one setting."""
    cells = setting.cells
    stats = delta_stats(cells)
    known = stats[stats["n"] > 0]
    if known.empty:
        return (Text("No cell has two scores in windows known to be alike, so no delta is known."),)
    by_name = {name: known[known["quantity"] == name] for name in _HEADINGS}
    present = [name for name, rows in by_name.items() if len(rows)]
    findings = [(capital(_HEADINGS[name]), _range(by_name[name], setting)) for name in present]
    layers = optional(lambda: setting.figures.layers)
    if layers is not None:
        told = association_sentences(setting.study, layers)
        findings += [("Mechanism", words.replace(f" ({setting.name})", "")) for words in told]
    slot = (known["quantity"] == _SLOT).any()
    return (
        *([Text(_lead(by_name, present), "lead")] if present else []),
        *([_table(known, present, setting.study)] if present else []),
        Findings(tuple(findings)),
        *([_slot(known, setting.study)] if slot else []),
    )


def _lead(by_name: dict[str, pd.DataFrame], present: list[str]) -> str:
    """How far each delta goes from activation to activation."""
    parts = []
    for name in present:
        means = by_name[name]["mean"]
        ends = " to ".join(number(end, signed=True) for end in (means.min(), means.max()))
        parts.append(f"{_HEADINGS[name]} changes the score by {ends}")
    n = by_name[present[0]]["n"].max()
    return f"{capital('; '.join(parts))} bits per byte (means over up to {counted(n, 'seed')})."


def _range(stats: pd.DataFrame, setting: SettingData) -> str:
    """The smallest and the largest delta, and which are resolved from the reference's."""
    quantity = str(stats["quantity"].iloc[0])
    rows = sorted(records(stats[stats["ranked"]]), key=lambda row: (row["mean"], row["key"]))
    if not rows:
        return "No activation can be ranked."
    ends = " to ".join(
        f"{plus_minus(row['mean'], row['half_width'], signed=True)} ({row['label']})"
        for row in (rows[:1] if len(rows) == 1 else (rows[0], rows[-1]))
    )
    return f"{ends} bits per byte. {_resolved(quantity, setting.study)}"


def _resolved(quantity: str, study: Study) -> str:
    rows = records(compare(study.derive(with_deltas), quantity))
    if not rows or any(pd.isna(row["resolved"]) for row in rows):
        return "Differences between activations: too few seeds to know their noise."
    labels = study.labels
    told = [
        f"{labels[row['key']]} ({plus_minus(row['difference'], row['half_width'], signed=True)})"
        for row in sorted(rows, key=lambda row: row["difference"])
        if row["resolved"]
    ]
    who = f"{'differs' if len(told) < 2 else 'differ'} from {labels[study.reference]} in it"
    return (
        f"{listed(told) if told else 'None'} {who} (simultaneous {percent(rows[0]['level'])}"
        f" intervals over {counted(len(rows), 'comparison')}; described, not tested)."
    )


def _table(stats: pd.DataFrame, present: list[str], study: Study) -> Table:
    return Table(
        caption="Change of the score in bits per byte: mean ± half width of the"
        f" {percent(stats['level'].iloc[0])} t interval over n seeds. Above zero is a loss.",
        headings=("activation", "n", *(_HEADINGS[name] for name in present)),
        rows=seed_rows(stats, study.sweep.keys, dict.fromkeys(present, 4), signed=True),
        note=". ".join(
            f"{capital(_HEADINGS[name])}: {_stages_of(name)}, {scoring_words(study.cells, name)}"
            for name in present
        )
        + ".",
    )


def _stages_of(name: str) -> str:
    """Which score less which, without their windows, which the note names."""
    after, before = (STAGES[stage].name for stage in (DELTAS[name].after, DELTAS[name].before))
    return f"{after} − {before}"


def _slot(stats: pd.DataFrame, study: Study) -> Table:
    legal = is_legal(study.cells, _SLOT)
    mark = "" if legal else " NOT A LEGAL SCORE: fitted on the targets that it scores."
    return Table(
        caption=f"SLOT, apart from everything above.{mark} Change of the score in bits per byte:"
        f" mean ± half width of the {percent(stats['level'].iloc[0])} t interval over n seeds.",
        headings=("activation", "n", "SLOT" if legal else "SLOT (not legal)"),
        rows=seed_rows(stats, study.sweep.keys, {_SLOT: 4}, signed=True),
        note=f"SLOT: {_stages_of(_SLOT)}, {scoring_words(study.cells, _SLOT)}.",
    )
