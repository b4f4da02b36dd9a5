"""What does a report stand on? Everything that is read, once, before anything is computed."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.load import SWEEP_FILE, Sweep, is_scored, load_cells, load_sweep, settings
from analysis.seed_stats import check_one_footing
from sweep.files import open_files


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """``planned`` holds the names of the grid's cells, None where ``sweep.json`` is absent."""

    cells: pd.DataFrame
    sweep: Sweep
    planned: tuple[str, ...] | None

    def setting(self, name: str) -> pd.DataFrame:
        """The cells of one setting."""
        return self.cells[self.cells["setting"] == name]


def load_inputs(place: str | Path) -> Inputs:
    """What the sweep in ``place`` left; ConfigError where there is nothing that can be read."""
    cells = load_cells(place)
    check_one_footing(cells)
    return Inputs(cells=cells, sweep=load_sweep(place, cells), planned=_planned(place))


def primary_setting(frame: pd.DataFrame) -> str:
    """The setting that the first screen answers for, chosen by the grid and not by its results.

    The largest budget; where a recipe value varies too, the middle one of its values.
    """
    columns = ["budget_kind", "budget_value", "setting"]
    known = frame[columns].drop_duplicates()
    kind = "seconds" if (known["budget_kind"] == "seconds").any() else "steps"
    largest = known.loc[known["budget_kind"] == kind, "budget_value"].max()
    here = known[(known["budget_kind"] == kind) & (known["budget_value"] == largest)]
    ordered = [name for name in settings(frame) if name in set(here["setting"])]
    return ordered[(len(ordered) - 1) // 2]


def ordered_settings(frame: pd.DataFrame) -> tuple[str, ...]:
    """Every setting, the primary one first."""
    first = primary_setting(frame)
    return (first, *(name for name in settings(frame) if name != first))


def has_scores(frame: pd.DataFrame) -> bool:
    """Whether any cell carries scores to be averaged."""
    return bool(is_scored(frame).any())


def _planned(place: str | Path) -> tuple[str, ...] | None:
    try:
        facts: dict[str, Any] = json.loads(open_files(place).read(SWEEP_FILE))
    except FileNotFoundError:
        return None
    cells = facts.get("cells")
    return None if cells is None else tuple(str(cell["cell"]) for cell in cells)
