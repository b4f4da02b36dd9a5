"""Section 4 of the report: every cell without a score, and why."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pandas as pd

from analysis.number_format import DASH, counted, listed
from analysis.report.document import Block, Bullets, Row, Section, Table, Text
from analysis.report.report_data import ReportData
from analysis.rows.completeness import cell_status
from analysis.rows.read import is_scored, records
from analysis.study import Study
from trainer.system.printable import printable


def missing_cells(data: ReportData) -> Section:
    """The section, over all settings."""
    cells = data.study.cells
    blocks: list[Block] = [Text(completeness_words(data), "lead"), Bullets(data.missing[1:])]
    unscored = cells[~is_scored(cells)].sort_values(["setting", "cell"])
    if len(unscored):
        blocks.append(_table(unscored, single_setting=cells["setting"].nunique() == 1))
    blocks.append(Bullets((*_remarks(cells), *unlike_sentences(cells))))
    return Section(anchor="failed", title="What failed or is missing", blocks=tuple(blocks))


def grid_size(study: Study) -> int:
    """How many cells the sweep asks for, as far as that is known."""
    return max(len(cell_status(study.cells, study.sweep)), study.sweep.num_cells or 0)


def completeness_words(data: ReportData) -> str:
    """How many cells of the sweep have no score, and what became of them."""
    if data.missing:
        return data.missing[0]
    return f"Nothing is missing: each of {counted(len(data.study.cells), 'cell')} has every score."


def common_reasons(cells: pd.DataFrame) -> list[str]:
    """The reasons that several cells share, most frequent first."""
    absent = records(cells[~is_scored(cells)])
    counts = Counter((state_word(cell), reason_words(cell) or "") for cell in absent)
    ordered = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    return [
        f"{counted(count, 'cell')} {state}: {why}."
        for (state, why), count in ordered
        if count > 1 and why
    ]


def unlike_sentences(frame: pd.DataFrame) -> list[str]:
    """A sentence for everything that should be the same in all compared rows and is not."""
    kinds = {
        "trainer_hash": "versions of the trainer's code",
        "torch": "versions of torch",
        "device_name": "models of processor or GPU",
    }
    scored = frame[list(kinds)][is_scored(frame)]
    return [
        f"Not alike: the scored cells come from {count} {what} ({name})."
        for name, what in kinds.items()
        if (count := scored[name].nunique()) > 1
    ]


def state_word(cell: Mapping[str, Any]) -> str:
    """How a cell without a score ended."""
    return "tainted" if cell["state"] == "succeeded" else str(cell["state"])


def reason_words(cell: Mapping[str, Any]) -> str | None:
    """Why, as far as it is known."""
    reasons = [cell["reason"], cell["taint_reason"]]
    return "; ".join(printable(reason) for reason in reasons if isinstance(reason, str)) or None


def _table(unscored: pd.DataFrame, *, single_setting: bool) -> Table:
    rows = []
    for cell in records(unscored):
        state = state_word(cell)
        place = () if single_setting else (str(cell["setting"]),)
        facts = (cell[name] for name in ("node", "log", "num_attempts"))
        rest = (DASH if fact is None or pd.isna(fact) else str(fact) for fact in facts)
        entries = (str(cell["cell"]), *place, state, reason_words(cell) or DASH, *rest)
        rows.append(Row(entries, tone="muted" if state == "tainted" else "bad"))
    place = () if single_setting else ("setting",)
    return Table(
        caption="Every cell that was attempted and has no score that counts.",
        headings=("cell", *place, "state", "reason", "node", "log", "attempts"),
        rows=tuple(rows),
        words=len(place) + 5,
        note="Logs lie in the sweep's folder; `make logs CELL=…` prints one.",
    )


def _remarks(cells: pd.DataFrame) -> list[str]:
    remarks = common_reasons(cells)
    if not is_scored(cells).all():
        remarks.append("A diverged run is a result and a failed one is none; neither is a number.")
    diverged = sorted(set(cells.loc[cells["state"] == "diverged", "label"]))
    if diverged:
        remarks.append(
            f"{listed(diverged)}: a seed diverged, so what is left are survivors. They are shown"
            " and not ranked."
        )
    repeated = int((cells["num_attempts"].fillna(1) > 1).sum())
    if repeated:
        remarks.append(f"{counted(repeated, 'cell')} needed more than one attempt.")
    return remarks
