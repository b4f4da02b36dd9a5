"""What does a report stand on? What is read, once, and what is found in each setting, once."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.load import Sweep, is_scored, load_cells, load_sweep, settings
from analysis.power import achieved, power_table
from analysis.reporting.answers import Answer, answer
from analysis.seed_stats import check_one_footing
from analysis.slope_curve import SlopeCurve, slope_curves
from analysis.stages import PRIMARY


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The cells of every setting, and what the sweep asked for."""

    cells: pd.DataFrame
    sweep: Sweep


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One setting and what several sections say of it.

    ``curve``: None where there are too few slopes for one. ``power``: rows of ``power_table``, none
    where the noise is not known.
    """

    name: str
    cells: pd.DataFrame
    sweep: Sweep
    answer: Answer
    curve: SlopeCurve | None
    power: pd.DataFrame

    @property
    def has_scores(self) -> bool:
        return bool(is_scored(self.cells).any())


def load_inputs(place: str | Path) -> Inputs:
    """What the sweep in ``place`` left; ConfigError where there is nothing that can be read."""
    cells = load_cells(place)
    check_one_footing(cells)
    return Inputs(cells=cells, sweep=load_sweep(place, cells))


def cases(inputs: Inputs) -> tuple[Case, ...]:
    """Every setting, the primary one first."""
    first = primary_setting(inputs.cells)
    names = (first, *(name for name in settings(inputs.cells) if name != first))
    return tuple(_case(inputs, name) for name in names)


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


def _case(inputs: Inputs, name: str) -> Case:
    cells = inputs.cells[inputs.cells["setting"] == name]
    curves = slope_curves(cells, PRIMARY)
    return Case(
        name=name,
        cells=cells,
        sweep=inputs.sweep,
        answer=answer(cells, inputs.sweep),
        curve=curves[0] if curves else None,
        power=power_table(achieved(cells, inputs.sweep.reference)),
    )
