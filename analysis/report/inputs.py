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
from analysis.rows.read import Sweep, is_scored, settings
from analysis.rows.stages import PRIMARY
from analysis.study import Study, read_study


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The sweep, and what each setting has beside its cells.

    ``lacking``: what ``completeness_sentences`` says, nothing where every cell has every score.
    """

    study: Study
    known: Mapping[str, Given]
    lacking: tuple[str, ...]

    @property
    def cells(self) -> pd.DataFrame:
        return self.study.cells

    @property
    def sweep(self) -> Sweep:
        return self.study.sweep


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One setting and what several sections say of it; ``splits`` are rows of ``time_splits``."""

    name: str
    study: Study
    known: Given
    answer: Answer
    splits: pd.DataFrame

    @property
    def cells(self) -> pd.DataFrame:
        return self.study.cells

    @property
    def sweep(self) -> Sweep:
        return self.study.sweep

    @property
    def has_scores(self) -> bool:
        return bool(is_scored(self.cells).any())


def load_inputs(place: str | Path) -> Inputs:
    """What the sweep in ``place`` left; ConfigError where there is nothing that can be read."""
    study = read_study(place)
    wanted = [name for picture in FIGURES.values() for name in (*picture.needs, *picture.uses)]
    known = {name: given(here, wanted) for name, here in study.settings.items()}
    lacking = tuple(completeness_sentences(study.cells, study.sweep))
    return Inputs(study=study, known=known, lacking=lacking)


def cases(inputs: Inputs) -> tuple[Case, ...]:
    """Every setting, the primary one first."""
    curves = [known.curves for known in inputs.known.values() if known.curves is not None]
    splits = time_splits(inputs.study, pd.concat(curves) if curves else None, PRIMARY)
    first, studies = primary_setting(inputs.cells), inputs.study.settings
    return tuple(
        Case(
            name=name,
            study=studies[name],
            known=inputs.known[name],
            answer=answer(studies[name]),
            splits=splits[splits["setting"] == name],
        )
        for name in (first, *(name for name in studies if name != first))
    )


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
