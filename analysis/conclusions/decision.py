"""The decision of each setting: which activation is best, and is it resolved from the reference?

"Resolved" means that a simultaneous interval of ``analysis.conclusions.contrasts`` excludes zero,
also where noise is unequal. It is a statement about seeds, under one setting and on one text.
An activation with a diverged seed is not ranked. Only one stage is tested, and it is named before
any result is seen (``stages.TESTED``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.conclusions.contrasts import contrasts
from analysis.number_format import capital, counted, listed, number, percent, plus_minus
from analysis.rows.read import records
from analysis.rows.scoring import stage_title
from analysis.stats.per_seed import seed_stats
from analysis.stats.ranking import function_labels, same_functions
from analysis.study import Study

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer for one setting.

    ``best`` is a key, None where nothing is ranked. ``resolved`` says whether it is resolved from
    the reference; None where the noise is unknown, or where the best is the reference itself.
    """

    setting: str
    quantity: str
    best: str | None
    resolved: bool | None
    sentence: str


def decide(study: Study, quantity: str | None = None) -> list[Decision]:
    """One decision for each setting of ``study``, by default at the stage that is tested."""
    quantity, labels = quantity or study.primary, function_labels(study)
    compared = records(contrasts(study, quantity))
    means = _ranked_means(study, seed_stats(study.cells, [quantity]))
    found = []
    for setting, here in study.settings.items():
        best, resolved, words = _decide(
            {row["key"]: row for row in compared if row["setting"] == setting},
            {row["key"]: row for row in means if row["setting"] == setting},
            study.reference,
            labels,
        )
        sentence = f"{capital(stage_title(here.cells, quantity))} ({setting}): {words}"
        found.append(Decision(setting, quantity, best, resolved, sentence))
    return found


def _decide(
    gaps: Mapping[str, Row], means: Mapping[str, Row], reference: str, labels: Mapping[str, str]
) -> tuple[str | None, bool | None, str]:
    """The best key, whether it is resolved from ``reference``, and both in words."""
    if not means:
        return None, None, "no activation can be ranked yet."
    if reference not in means:
        best = min(means, key=lambda key: (means[key]["mean"], key))
        words = (
            f"{_mean(means[best], labels)} is lowest so far. The reference,"
            f" {labels.get(reference, reference)},"
            " has no score yet or a diverged seed, so nothing is compared with it."
        )
        return best, None, words
    if not gaps:
        words = f"{_mean(means[reference], labels)} has nothing to be compared with yet."
        return reference, None, words
    best = min(gaps, key=lambda key: (gaps[key]["mean_difference"], key))
    if gaps[best]["mean_difference"] >= 0:
        words = f"the reference, {_mean(means[reference], labels)}, is lowest."
        return reference, None, f"{words} {_worse(list(gaps.values()), labels)}"
    resolved = gaps[best]["resolved"]
    words = f"{_mean(means[best], labels)} is lowest. {gap_sentence(gaps[best], labels)}"
    others = [labels[key] for key, row in gaps.items() if key != best and is_better(row)]
    if others:
        words += f" Resolved as better than the reference too: {listed(others)}."
    return best, None if pd.isna(resolved) else bool(resolved), words


def _ranked_means(study: Study, means: pd.DataFrame) -> list[Row]:
    """One row per setting and function; of two names, the one that stands for both if it can."""
    kept = same_functions(study.cells, study.reference)
    rows = [{**row, "key": kept[row["key"]], "own": row["key"]} for row in records(means)]
    unranked = {(row["setting"], row["key"]) for row in rows if row["n_diverged"]}
    found: dict[tuple[str, str], Row] = {}
    for row in sorted(rows, key=lambda row: row["own"] != row["key"]):
        if row["n"] and (row["setting"], row["key"]) not in unranked:
            found.setdefault((row["setting"], row["key"]), row)
    return list(found.values())


def _mean(row: Row, labels: Mapping[str, str]) -> str:
    return (
        f"{labels[row['key']]} ({number(row['mean'])} bits per byte, {counted(row['n'], 'seed')})"
    )


def gap_sentence(row: Row, labels: Mapping[str, str]) -> str:
    """The difference of a row of ``compare`` from the reference, with its interval."""
    gap = plus_minus(row["difference"], row["half_width"], signed=True)
    pairs = counted(row["n"], "paired seed")
    along = " along the curve of the slopes" if row.get("along_curve") else ""
    opening = f"Its difference from the reference, {labels[row['reference']]}, is {gap}{along}"
    if pd.isna(row["resolved"]):
        return f"{opening} ({pairs}): {row['unjudged']}, so it is not resolved."
    return (
        f"{opening} ({pairs}; simultaneous {percent(row['level'])} interval over"
        f" {counted(row['comparisons'], 'comparison')}; noise sd {number(row['noise_sd'])},"
        f" {row['noise_df']:.0f} df; compared within {row['blocks']}{_widened(row)}):"
        f" {_resolution(row)}."
    )


def is_better(row: Row) -> bool:
    """Whether a row of ``contrasts`` is resolved as better than the reference."""
    return not pd.isna(row["resolved"]) and bool(row["resolved"]) and row["difference"] < 0


def _widened(row: Row) -> str:
    """What the interval of unequal variances adds to the pooled one."""
    if not row["widened"]:
        return ""
    alone = number(row["pooled_half_width"])
    return f"; widened for unequal noise, ±{alone} if it is equal"


def _resolution(row: Row) -> str:
    if row["resolved"]:
        return "resolved"
    if_alike = abs(row["difference"]) > row["pooled_half_width"]
    return "resolved only if noise is equal, so not resolved" if if_alike else ("not resolved")


def _worse(rows: Sequence[Row], labels: Mapping[str, str]) -> str:
    if any(pd.isna(row["resolved"]) for row in rows):
        return f"{capital(rows[0]['unjudged'])}, so nothing is resolved from it."
    worse = [labels[row["key"]] for row in rows if row["resolved"]]
    if_alike = [
        labels[row["key"]]
        for row in rows
        if not row["resolved"] and abs(row["difference"]) > row["pooled_half_width"]
    ]
    level, comparisons = percent(rows[0]["level"]), counted(len(rows), "comparison")
    found = f"Resolved as worse: {listed(worse)}" if worse else "No other is resolved from it"
    found += f"; only if noise is equal: {listed(if_alike)}" if if_alike else ""
    return (
        f"{found} (simultaneous {level} intervals over {comparisons}; noise sd"
        f" {number(rows[0]['noise_sd'])}, {rows[0]['noise_df']:.0f} df; compared within"
        f" {rows[0]['blocks']})."
    )
