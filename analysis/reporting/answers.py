"""Which activation is best in one setting, and how sure is that? The answer, and its words.

The verdict is that of the one judged stage (``stages.PRIMARY``). The same question under other
stages or with tainted attempts is asked by the same functions, and decides nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.contrasts import contrasts, same_functions
from analysis.load import Sweep, labels_of, records
from analysis.reporting.document import Tone
from analysis.stages import PRIMARY
from analysis.text import counted, listed, number, plus_minus
from analysis.verdict import Verdict, verdicts

Rows = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What ``verdicts`` and ``contrasts`` say of one setting; ``rows`` is sorted, best first."""

    quantity: str
    verdict: Verdict
    rows: tuple[Rows, ...]
    names: Mapping[str, str]
    reference: str

    @property
    def best(self) -> Rows | None:
        """The row of the activation that is lowest; None where that is the reference, or no one."""
        return next((row for row in self.rows if row["key"] == self.verdict.best), None)


def answer(cells: pd.DataFrame, sweep: Sweep, quantity: str = PRIMARY) -> Answer:
    """The answer of ``cells``, which are those of one setting."""
    rows = records(contrasts(cells, quantity, sweep.reference))
    return Answer(
        quantity=quantity,
        verdict=verdicts(cells, sweep, quantity)[0],
        rows=tuple(sorted(rows, key=lambda row: (row["difference"], row["key"]))),
        names=names_of(cells, sweep.reference),
        reference=sweep.reference,
    )


def names_of(cells: pd.DataFrame, reference: str) -> dict[str, str]:
    """The label of each key; of two names for one function, both: ReLU² (= LeakyReLU² 0.0)."""
    labels = labels_of(cells)
    joint = dict(labels)
    for key, kept in same_functions(cells, reference).items():
        if key != kept:
            joint[kept] = f"{labels[kept]} (= {labels[key]})"
    return joint


def verdict_words(found: Answer) -> str:
    """The answer in one sentence, as large as the page allows."""
    reference = found.names.get(found.reference, found.reference)
    best_key = found.verdict.best
    if best_key is None:
        return "No activation can be ranked yet."
    if not found.rows:
        if best_key == found.reference:
            return f"Only {reference} has scores, so there is nothing to compare it with yet."
        return f"No comparison: the reference, {reference}, has no score or a diverged seed."
    if found.best is None:
        return f"No activation is better than {reference}, the reference."
    best = found.names[best_key]
    if found.verdict.resolved is None:
        return f"Too few seeds to tell whether {best} is better than {reference}."
    if found.verdict.resolved:
        gap = plus_minus(-found.best["difference"], found.best["half_width"])
        return f"{best} is better than {reference}, by {gap.replace(' ±', ' ± ')} bits per byte."
    return f"No activation is shown to be better than {reference}."


def resolved_words(found: Answer) -> str:
    """Which activations are resolved from the reference, on either side."""
    if not found.rows or any(pd.isna(row["resolved"]) for row in found.rows):
        return ""
    better = [found.names[row["key"]] for row in found.rows if row["resolved"] and _lower(row)]
    worse = [found.names[row["key"]] for row in found.rows if row["resolved"] and not _lower(row)]
    open_rows = len(found.rows) - len(better) - len(worse)
    return (
        f"Better than the reference: {listed(better) if better else 'none'}. Worse:"
        f" {listed(worse) if worse else 'none'}. Not told apart from it:"
        f" {counted(open_rows, 'activation')} of {len(found.rows)}."
    )


def gap_words(row: Rows) -> str:
    """The difference of one row with its interval."""
    return plus_minus(row["difference"], row["half_width"], signed=True)


def tone_of(row: Rows) -> Tone:
    """How a row is shown: resolved as better, as worse, or neither."""
    if pd.isna(row["resolved"]) or not row["resolved"]:
        return "plain"
    return "good" if _lower(row) else "bad"


def p_words(p_value: float | None) -> str:
    """
    >>> p_words(0.03141), p_words(0.00001), p_words(None)
    ('0.031', '< 0.001', '–')
    """
    if p_value is not None and not pd.isna(p_value) and p_value < 0.001:
        return "< 0.001"
    return number(p_value, decimals=3)


def _lower(row: Rows) -> bool:
    return bool(row["difference"] < 0)
