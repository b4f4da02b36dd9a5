"""What does a report stand on? What is read, once, and what is found in each setting, once."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.costs.budgets import time_splits
from analysis.figures.catalog import FIGURES
from analysis.figures.inputs import Given, given
from analysis.report.answers import Answer, answer
from analysis.rows.completeness import completeness_sentences
from analysis.rows.read import Sweep, is_scored, load_cells, load_replicates, load_sweep, settings
from analysis.rows.scoring import check_equal_scoring
from analysis.rows.stages import PRIMARY
from analysis.stats.ranking import design_of, with_companions


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The cells of every setting, what the sweep asked for, and what each setting has beside.

    ``compared``: the cells, and companions of the reference where nodes were blocks. ``lacking``:
    what ``completeness_sentences`` says, nothing where every cell has every score.
    """

    cells: pd.DataFrame
    compared: pd.DataFrame
    sweep: Sweep
    known: Mapping[str, Given]
    lacking: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One setting and what several sections say of it; ``splits`` are rows of ``time_splits``."""

    name: str
    cells: pd.DataFrame
    compared: pd.DataFrame
    sweep: Sweep
    known: Given
    answer: Answer
    splits: pd.DataFrame

    @property
    def has_scores(self) -> bool:
        return bool(is_scored(self.cells).any())


def load_inputs(place: str | Path) -> Inputs:
    """What the sweep in ``place`` left; ConfigError where there is nothing that can be read."""
    cells = load_cells(place)
    check_equal_scoring(cells)
    sweep = load_sweep(place, cells)
    wanted = [name for picture in FIGURES.values() for name in (*picture.needs, *picture.uses)]
    known = {
        name: given(cells[cells["setting"] == name], sweep, wanted, place=place)
        for name in settings(cells)
    }
    compared = with_companions(cells, load_replicates(place), sweep)
    lacking = tuple(completeness_sentences(cells, sweep))
    return Inputs(cells=cells, compared=compared, sweep=sweep, known=known, lacking=lacking)


def cases(inputs: Inputs) -> tuple[Case, ...]:
    """Every setting, the primary one first."""
    cells, sweep = inputs.cells, inputs.sweep
    curves = [known.curves for known in inputs.known.values() if known.curves is not None]
    together = pd.concat(curves) if curves else None
    splits = time_splits(
        inputs.compared, together, PRIMARY, sweep.reference, design=design_of(sweep)
    )
    first = primary_setting(cells)
    found = []
    for name in (first, *(name for name in settings(cells) if name != first)):
        compared = inputs.compared[inputs.compared["setting"] == name]
        found.append(
            Case(
                name=name,
                cells=cells[cells["setting"] == name],
                compared=compared,
                sweep=sweep,
                known=inputs.known[name],
                answer=answer(compared, sweep),
                splits=splits[splits["setting"] == name],
            )
        )
    return tuple(found)


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
