"""What do quantization and test-time training do to each activation?

Deltas are taken within a cell at equal windows; their differences from the reference are described,
since only one stage is judged.
"""

from typing import Any

import pandas as pd

from analysis.mechanism.associations import association_sentences
from analysis.number_format import DASH, capital, counted, listed, number, percent, plus_minus
from analysis.report.document import Block, Points, Row, Table, Text
from analysis.report.inputs import Case
from analysis.rows.read import records
from analysis.rows.stages import DELTAS, is_legal, title_of
from analysis.stats.compare import compare
from analysis.stats.quantization import delta_stats, with_deltas

_HEADINGS = {
    "quant_delta": "quantization",
    "quant_delta_sliding": "quantization, sliding",
    "ttt_gain": "TTT",
}
_SLOT = "slot_gain"


def quantization_blocks(case: Case) -> tuple[Block, ...]:
    """Section 2 of the report, for one setting."""
    cells = case.cells
    stats = delta_stats(cells)
    known = stats[stats["n"] > 0]
    if known.empty:
        return (Text("No cell has scores before and after, so no delta is known."),)
    by_name = {name: known[known["quantity"] == name] for name in _HEADINGS}
    present = [name for name, rows in by_name.items() if len(rows)]
    said = [(capital(_HEADINGS[name]), _range(by_name[name], case)) for name in present]
    if case.known.layers is not None:
        told = association_sentences(cells, case.known.layers)
        said += [("Mechanism", sentence.replace(f" ({case.name})", "")) for sentence in told]
    slot = (known["quantity"] == _SLOT).any()
    return (
        *([Text(_lead(by_name, present), "lead")] if present else []),
        *([_table(known, present, case.sweep.keys)] if present else []),
        Points(tuple(said)),
        *([_slot(known, cells, case.sweep.keys)] if slot else []),
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


def delta_footing(stats: pd.DataFrame) -> str:
    """The windows of one delta, in words."""
    window, stride = stats["window"].max(), stats["stride"].max()
    return f"windows of {window} tokens, stride {stride}"


def _range(stats: pd.DataFrame, case: Case) -> str:
    """The smallest and the largest delta, and which are resolved from the reference's."""
    quantity = str(stats["quantity"].iloc[0])
    rows = sorted(records(stats[stats["ranked"]]), key=lambda row: (row["mean"], row["key"]))
    if not rows:
        return "No activation can be ranked."
    ends = " to ".join(
        f"{plus_minus(row['mean'], row['half_width'], signed=True)} ({row['label']})"
        for row in (rows[:1] if len(rows) == 1 else (rows[0], rows[-1]))
    )
    return f"{ends} bits per byte. {_resolved(quantity, case)}"


def _resolved(quantity: str, case: Case) -> str:
    rows = records(compare(case.study.derive(with_deltas), quantity))
    if not rows or any(pd.isna(row["resolved"]) for row in rows):
        return "Differences between activations: too few seeds to know their noise."
    labels = case.study.labels
    told = [
        f"{labels[row['key']]} ({plus_minus(row['difference'], row['half_width'], signed=True)})"
        for row in sorted(rows, key=lambda row: row["difference"])
        if row["resolved"]
    ]
    who = f"{'differs' if len(told) < 2 else 'differ'} from {labels[case.study.reference]} in it"
    return (
        f"{listed(told) if told else 'None'} {who} (simultaneous {percent(rows[0]['level'])}"
        f" intervals over {counted(len(rows), 'comparison')}; described, not tested)."
    )


def _table(stats: pd.DataFrame, present: list[str], keys: tuple[str, ...]) -> Table:
    return Table(
        caption="Change of the score in bits per byte: mean ± half width of the"
        f" {percent(stats['level'].iloc[0])} t interval over n seeds. Above zero is a loss.",
        headings=("activation", "n", *(_HEADINGS[name] for name in present)),
        rows=_rows(stats, present, keys),
        note=". ".join(
            f"{capital(_HEADINGS[name])}: {_stages_of(name)},"
            f" {delta_footing(stats[stats['quantity'] == name])}"
            for name in present
        )
        + ".",
    )


def _stages_of(name: str) -> str:
    """Which score less which, without their windows: the footing beside it says those."""
    after, before = (
        title_of(stage).partition(",")[0] for stage in (DELTAS[name].after, DELTAS[name].before)
    )
    return f"{after} − {before}"


def _slot(stats: pd.DataFrame, cells: pd.DataFrame, keys: tuple[str, ...]) -> Table:
    legal = is_legal(cells, _SLOT)
    mark = "" if legal else " NOT A LEGAL SCORE: fitted on the targets that it scores."
    here = stats[stats["quantity"] == _SLOT]
    return Table(
        caption=f"SLOT, apart from everything above.{mark} Change of the score in bits per byte:"
        f" mean ± half width of the {percent(stats['level'].iloc[0])} t interval over n seeds.",
        headings=("activation", "n", "SLOT" if legal else "SLOT (not legal)"),
        rows=_rows(stats, [_SLOT], keys),
        note=f"SLOT: {_stages_of(_SLOT)}, {delta_footing(here)}.",
    )


def _rows(stats: pd.DataFrame, present: list[str], keys: tuple[str, ...]) -> tuple[Row, ...]:
    found: dict[tuple[str, str], dict[str, Any]] = {
        (row["key"], row["quantity"]): row for row in records(stats)
    }
    rows = []
    for key in keys:
        mine = [found[key, name] for name in present if (key, name) in found]
        if mine:
            entries = [_entry(found.get((key, name))) for name in present]
            mark = "" if mine[0]["n_diverged"] == 0 else " †"
            n = str(max(row["n"] for row in mine))
            rows.append(Row((f"{mine[0]['label']}{mark}", n, *entries)))
    return tuple(rows)


def _entry(row: dict[str, Any] | None) -> str:
    if row is None:
        return DASH
    if pd.isna(row["half_width"]):
        return number(row["mean"], signed=True)
    return plus_minus(row["mean"], row["half_width"], signed=True)
