"""What a report is made of: the study, and what is found in each of its settings, each once."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from analysis.conclusions.choice import Choice, choices
from analysis.conclusions.contrasts import contrasts
from analysis.conclusions.stage_interaction import stage_sentences
from analysis.costs.time_split import time_splits
from analysis.figures.figure_data import FigureData, optional
from analysis.number_format import DASH, plus_minus
from analysis.report.answers import Answer, answer
from analysis.report.document import Row
from analysis.rows.completeness import completeness_sentences
from analysis.rows.read import is_scored, records
from analysis.rows.stages import STAGES
from analysis.stats.compare import compare
from analysis.stats.ranking import same_functions
from analysis.study import Study


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingData:
    """One setting and what several sections say of it.

    ``stages`` are its ``stage_sentences``, ``splits`` its rows of ``time_splits``.
    """

    name: str
    figures: FigureData
    answer: Answer
    choice: Choice
    stages: tuple[str, ...]
    splits: pd.DataFrame

    @property
    def study(self) -> Study:
        return self.figures.study

    @property
    def cells(self) -> pd.DataFrame:
        return self.study.cells

    @property
    def has_scores(self) -> bool:
        return bool(is_scored(self.cells).any())


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportData:
    """A study and its settings, the primary one first.

    ``missing``: what ``completeness_sentences`` says, nothing where every cell has every score.
    """

    study: Study
    settings: tuple[SettingData, ...]
    missing: tuple[str, ...]


def report_data(study: Study) -> ReportData:
    """What is found in each setting of ``study``."""
    figures = {name: FigureData(one) for name, one in study.settings.items()}
    curves = [optional(partial(getattr, data, "curves")) for data in figures.values()]
    known = [found for found in curves if found is not None]
    together = pd.concat(known) if known else None
    splits = time_splits(study, together, study.primary)
    first, chosen = primary_setting(study), choices(study)
    settings = tuple(
        SettingData(
            name=name,
            figures=figures[name],
            answer=answer(figures[name].study),
            choice=chosen[name],
            stages=tuple(stage_sentences(figures[name].study)),
            splits=splits[splits["setting"] == name],
        )
        for name in sorted(figures, key=lambda name: name != first)
    )
    missing = tuple(completeness_sentences(study.cells, study.sweep))
    return ReportData(study=study, settings=settings, missing=missing)


def primary_setting(study: Study) -> str:
    """The setting that the first screen answers for, chosen by the grid and not by its results.

    The largest budget; where a recipe value varies too, the middle one of its values.
    """
    columns = ["budget_kind", "budget_value", "setting"]
    known = study.cells[columns].drop_duplicates()
    kind = "seconds" if (known["budget_kind"] == "seconds").any() else "steps"
    largest = known.loc[known["budget_kind"] == kind, "budget_value"].max()
    here = known[(known["budget_kind"] == kind) & (known["budget_value"] == largest)]
    ordered = [name for name in study.settings if name in set(here["setting"])]
    return ordered[(len(ordered) - 1) // 2]


def gap_entries(study: Study, quantity: str) -> dict[str, str]:
    """Of one setting: what a table's column of differences from the reference says, by key.

    Both names of one function say the same; the reference has no entry, nor what is not compared.
    """
    judge = contrasts if quantity in STAGES else compare  # only of scores a curve is fitted
    words = {
        row["key"]: plus_minus(row["difference"], row["half_width"], signed=True)
        for row in records(judge(study, quantity))
    }
    kept = same_functions(study.cells, study.reference)
    return {key: words[name] for key, name in kept.items() if name in words}


def seed_rows(
    stats: pd.DataFrame,
    keys: Sequence[str],
    decimals: Mapping[str, int],
    *,
    signed: bool = False,
    marked: bool = True,
    beside: Mapping[str, Mapping[str, str]] | None = None,
) -> tuple[Row, ...]:
    """A row per activation: label, n, and mean ± half width of each quantity of ``decimals``.

    ``marked``: † behind an activation with a diverged seed. ``beside``: by quantity and key, what
    stands behind the entry of that quantity.
    """
    rows = []
    for found in by_activation(stats, keys):
        mine = [found[name] for name in decimals if name in found]
        if not mine:
            continue
        entries = []
        for name, places in decimals.items():
            row = found.get(name, {"mean": None, "half_width": None})
            entries.append(
                plus_minus(row["mean"], row["half_width"], signed=signed, decimals=places)
            )
            if beside is not None:
                entries.append(beside[name].get(mine[0]["key"], DASH))
        mark = " †" if marked and mine[0]["n_diverged"] else ""
        n = str(max(row["n"] for row in mine))
        rows.append(Row((f"{mine[0]['label']}{mark}", n, *entries)))
    return tuple(rows)


def by_activation(stats: pd.DataFrame, keys: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of ``seed_stats`` by quantity, for each of the activations ``keys`` that has one."""
    by_key: dict[str, dict[str, Any]] = {}
    for row in records(stats):
        by_key.setdefault(row["key"], {})[row["quantity"]] = row
    return (by_key[key] for key in keys if key in by_key)
