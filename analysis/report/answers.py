"""The answer in one setting: which activation is best and how sure that is, and its words.

The decision is that of the one tested stage (``study.primary``). The same question under other
stages or with tainted attempts is asked by the same functions, and decides nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.conclusions.contrasts import contrasts
from analysis.conclusions.decision import Decision, decide, is_better
from analysis.conclusions.slope_curve import SlopeCurve, best_set
from analysis.number_format import DASH, capital, counted, listed, p_value, percent, plus_minus
from analysis.report.document import Tone
from analysis.rows.read import records
from analysis.stats.ranking import function_labels
from analysis.study import Study
from sweep.spec.sweep_file import RecordRule

Rows = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What ``decide`` and ``compare`` say of one setting; ``rows`` is sorted, best first."""

    quantity: str
    decision: Decision
    rows: tuple[Rows, ...]
    names: Mapping[str, str]
    reference: str
    record_rule: RecordRule

    @property
    def best(self) -> Rows | None:
        """The row of the activation that is lowest; None where that is the reference, or no one."""
        return next((row for row in self.rows if row["key"] == self.decision.best), None)


def answer(study: Study, quantity: str | None = None) -> Answer:
    """The answer of a study of one setting, by default at the stage that is tested."""
    quantity = quantity or study.primary
    rows = records(contrasts(study, quantity))
    return Answer(
        quantity=quantity,
        decision=decide(study, quantity)[0],
        rows=tuple(sorted(rows, key=lambda row: (row["difference"], row["key"]))),
        names=function_labels(study),
        reference=study.reference,
        record_rule=study.sweep.record_rule,
    )


def shown_words(found: Answer, curve: SlopeCurve | None) -> str:
    """What is shown, as large as the page allows: the slopes that may be best, and what differs."""
    compared = decision_words(found)
    if curve is None or curve.flat is not False:
        return compared
    return f"Of the fixed slopes, the best lies in {best_set(curve)}. {compared}"


def decision_words(found: Answer) -> str:
    """What is shown of the differences from the reference, in one sentence."""
    reference = found.names.get(found.reference, found.reference)
    best_key = found.decision.best
    if best_key is None:
        return "No activation can be ranked yet."
    if not found.rows:
        if best_key == found.reference:
            return f"Only {reference} has scores, so there is nothing to compare it with yet."
        return f"No comparison: the reference, {reference}, has no score or a diverged seed."
    if any(pd.isna(row["resolved"]) for row in found.rows):
        name = "any activation" if found.best is None else found.names[best_key]
        why = found.rows[0]["unjudged"]
        return f"{capital(why)}: whether {name} is better than {reference} is not told."
    better = [row for row in found.rows if is_better(row)]
    if not better:
        return f"No activation is shown to be better than {reference}."
    if len(better) > 1:
        names = listed([found.names[row["key"]] for row in better])
        return f"{names} are better than {reference}."
    gap = plus_minus(-better[0]["difference"], better[0]["half_width"]).replace(" ±", " ± ")
    return f"{found.names[better[0]['key']]} is better than {reference}, by {gap} bits per byte."


def support_words(found: Answer) -> str:
    """What the large sentence leaves out: who is lowest, who differs from the reference."""
    if not found.rows:
        return found.decision.sentence
    reference = found.names[found.reference]
    opening = f"{reference}, the reference, is lowest. " if found.best is None else ""
    if found.best is not None and not found.decision.resolved:
        gap, n = gap_words(found.best), counted(found.best["n"], "paired seed")
        opening = (
            f"{found.names[found.best['key']]} is lowest, at {gap} bits per byte from it ({n}). "
        )
    if any(pd.isna(row["resolved"]) for row in found.rows):
        return f"{opening}{capital(found.rows[0]['unjudged'])}, so nothing is resolved."
    resolved = [row for row in found.rows if row["resolved"]]
    better = [found.names[row["key"]] for row in resolved if row["difference"] < 0]
    worse = [found.names[row["key"]] for row in resolved if row["difference"] > 0]
    parts = [
        *([f"{listed(better)} {_are(better)} better than {reference}"] if better else []),
        *([f"{listed(worse)} {_are(worse)} worse{'' if better else ' than it'}"] if worse else []),
        _unresolved(len(found.rows) - len(resolved), len(found.rows), reference),
    ]
    level = percent(found.rows[0]["level"])
    return f"{opening}{capital('; '.join(parts))} (simultaneous {level} intervals)."


def _unresolved(count: int, of: int, reference: str) -> str:
    if count == of:
        return f"none of {counted(of, 'activation')} can be told from {reference}"
    return f"{count} of {of} cannot be told from it"


def gap_words(row: Rows) -> str:
    """The difference of one row with its interval."""
    return plus_minus(row["difference"], row["half_width"], signed=True)


def tone_of(row: Rows) -> Tone:
    """How a row is shown: resolved as better, as worse, or neither."""
    if pd.isna(row["resolved"]) or not row["resolved"]:
        return "plain"
    return "good" if row["difference"] < 0 else "bad"


def resolved_word(row: Rows) -> str:
    """Whether a row is resolved, as an entry of a table."""
    return DASH if pd.isna(row["resolved"]) else "yes" if row["resolved"] else "no"


def p_words(p: float | None) -> str:
    """
    >>> p_words(0.03141), p_words(0.00001), p_words(None)
    ('0.031', '< 0.0001', '–')
    """
    if p is None or pd.isna(p):
        return DASH
    return p_value(p).removeprefix("p ").removeprefix("= ")


def _are(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"
