"""What failed, what is tainted, and what has not run: every cell without a score, and why."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pandas as pd

from analysis.load import count_states, is_scored, records
from analysis.reporting.document import Block, Bullets, Row, Section, Table, Text
from analysis.reporting.inputs import Inputs
from analysis.text import DASH, counted, listed

MOST_NAMES = 24  # of cells that have not run; a large grid has thousands


def missing_section(inputs: Inputs) -> Section:
    """Section 4 of the report."""
    cells = inputs.cells
    blocks: list[Block] = [Text(coverage(inputs), "lead")]
    told = cells[~is_scored(cells)].sort_values(["setting", "cell"])
    if len(told):
        blocks.append(_table(told, single_setting=cells["setting"].nunique() == 1))
    absent = not_run(inputs)
    if absent:
        blocks.append(Text(_not_run(absent)))
    blocks.append(Bullets(tuple(_remarks(cells))))
    return Section(anchor="failed", title="What failed or is missing", blocks=tuple(blocks))


def is_complete(inputs: Inputs) -> bool:
    """Whether every cell of the sweep has an untainted success."""
    return int(is_scored(inputs.cells).sum()) == _total(inputs)


def coverage(inputs: Inputs) -> str:
    """How many cells of the sweep have a score, and what became of the others."""
    cells = inputs.cells
    scored, total = int(is_scored(cells).sum()), _total(inputs)
    if is_complete(inputs):
        return f"Nothing: each of the {counted(total, 'cell')} has an untainted success."
    absent = cells[~is_scored(cells)]
    tainted = int((absent["state"] == "succeeded").sum())
    parts = []
    if len(absent) > tainted:
        parts.append(count_states(absent[absent["state"] != "succeeded"]))
    if tainted:
        parts.append(f"{tainted} succeeded in disturbed time (tainted)")
    if total > len(cells):
        parts.append(f"{total - len(cells)} not run yet")
    return f"{scored} of {counted(total, 'cell')} have a score; without one: {listed(parts)}."


def _total(inputs: Inputs) -> int:
    return len(inputs.cells) if inputs.sweep.num_cells is None else inputs.sweep.num_cells


def not_run(inputs: Inputs) -> tuple[str, ...]:
    """Names of the grid's cells that were never attempted; empty where the grid is not known."""
    planned = inputs.sweep.planned
    if planned is None:
        return ()
    return tuple(sorted(set(planned["cell"]) - set(inputs.cells["cell"])))


def common_reasons(cells: pd.DataFrame) -> list[str]:
    """The reasons that several cells share, most frequent first."""
    absent = records(cells[~is_scored(cells)])
    counts = Counter((_state(cell), _why(cell)) for cell in absent)
    ordered = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    return [
        f"{counted(count, 'cell')} {state}: {why}."
        for (state, why), count in ordered
        if count > 1 and why != DASH
    ]


def _table(told: pd.DataFrame, *, single_setting: bool) -> Table:
    rows = []
    for cell in records(told):
        state = _state(cell)
        place = () if single_setting else (str(cell["setting"]),)
        rows.append(
            Row(
                (
                    str(cell["cell"]),
                    *place,
                    state,
                    _why(cell),
                    _known(cell["node"]),
                    _known(cell["log"]),
                    _known(cell["num_attempts"]),
                ),
                tone="muted" if state == "tainted" else "bad",
            )
        )
    place = () if single_setting else ("setting",)
    return Table(
        caption="Every cell that was attempted and has no score that counts.",
        headings=("cell", *place, "state", "reason", "node", "log", "attempts"),
        rows=tuple(rows),
        words=len(place) + 5,
        note="Logs lie in the sweep's folder; `make logs CELL=…` prints one.",
    )


def _remarks(cells: pd.DataFrame) -> list[str]:
    said = common_reasons(cells)
    said.append("A diverged run is a result and a failed one is none; neither is a number.")
    diverged = sorted(set(cells.loc[cells["state"] == "diverged", "label"]))
    if diverged:
        said.append(
            f"{listed(diverged)}: a seed diverged, so what is left are survivors. They are shown"
            " and not ranked."
        )
    repeated = int((cells["num_attempts"].fillna(1) > 1).sum())
    if repeated:
        said.append(f"{counted(repeated, 'cell')} needed more than one attempt.")
    return said


def _not_run(absent: tuple[str, ...]) -> str:
    shown = absent[:MOST_NAMES]
    more = f" and {len(absent) - len(shown)} more" if len(absent) > len(shown) else ""
    return f"Not run yet: {', '.join(shown)}{more}. `make sweep` runs what is missing."


def _state(cell: Mapping[str, Any]) -> str:
    return "tainted" if cell["state"] == "succeeded" else str(cell["state"])


def _why(cell: Mapping[str, Any]) -> str:
    reasons = [cell["reason"], cell["taint_reason"]]
    return "; ".join(reason for reason in reasons if isinstance(reason, str)) or DASH


def _known(value: object) -> str:
    return DASH if value is None or pd.isna(value) else str(value)
