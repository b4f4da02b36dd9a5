"""Sensitivity of the decision: the record rule, unequal noise, sign flips, taint, data order.

None of it decides what is resolved; each is a sentence that a reader of the decision needs in order
not to be misled by it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.conclusions.decision import Decision, decide
from analysis.number_format import counted, listed, number, p_value, percent
from analysis.rows.read import including_tainted, is_scored, records
from analysis.stats.compare import compare
from analysis.stats.pairs import FEWEST_FLIPPED, paired_stats, smallest_p
from analysis.stats.ranking import function_labels
from analysis.stats.variances import variance_checks
from analysis.study import Study
from sweep.spec.sweep_file import RecordRule

Row = Mapping[str, Any]

DATA_ORDER = "Every interval is conditional on the order of the training data: seeds share it."


def sensitivity_sentences(study: Study, quantity: str | None = None) -> list[str]:
    """One sentence each, per setting where there is something to say; nothing to compare, none."""
    quantity, labels = quantity or study.primary, function_labels(study)
    compared = records(compare(study, quantity))
    checks = records(variance_checks(study, quantity))
    sentences: list[str] = []
    for setting, here in study.settings.items():
        rows = [row for row in compared if row["setting"] == setting]
        if not rows:
            continue
        found = [_record_rule(rows, labels, study.sweep.record_rule)]
        found += [_variances(row, labels) for row in checks if row["setting"] == setting]
        found += [_sign_flips(here, rows, labels)]
        of = f" ({setting})" if len(study.settings) > 1 else ""
        sentences += [sentence.format(of=of) for sentence in found if sentence]
    sentences += _tainted(study, quantity)
    return [*sentences, DATA_ORDER] if compared else sentences


def _record_rule(rows: Sequence[Row], labels: Mapping[str, str], rule: RecordRule) -> str:
    tested = [row for row in rows if isinstance(row["record_rule"], str)]
    if not tested:
        return ""
    met = [labels[row["key"]] for row in tested if row["record_rule"] == "met"]
    nearest = min(tested, key=lambda row: (row["record_p"], row["key"]))
    words = f"met by {listed(met)}" if met else "met by none"
    words += (
        f"; nearest is {labels[nearest['key']]}, {_better_by(nearest['nats'])} nats per token"
        f" ({p_value(nearest['record_p'])})"
    )
    return (
        f"The record rule{{of}}, better than the reference by more than {rule.nats:g} nats per"
        f" token at p < {rule.p:g} ({rule.source}), tested one-sided over"
        f" {counted(len(tested), 'comparison')}: {words}."
    )


def _better_by(nats: float) -> str:
    return f"{'better' if nats < 0 else 'worse'} by {number(abs(nats))}"


def _variances(row: Row, labels: Mapping[str, str]) -> str:
    if pd.isna(row["equal"]):
        return ""
    answer = "not rejected" if row["equal"] else "rejected"
    return (
        f"Equal noise{{of}} is {answer} ({p_value(row['p_value'])}, {counted(row['n'], 'seed')}):"
        f" the most unlike the rest is {labels[row['largest_key']]}, sd"
        f" {number(row['largest_sd'])}; the least is {number(row['smallest_sd'])}. The"
        " interval does not depend on this check."
    )


def _sign_flips(study: Study, compared: Sequence[Row], labels: Mapping[str, str]) -> str:
    quantity, level = compared[0]["quantity"], compared[0]["level"]
    if study.sweep.standing is not None:
        return ""
    stats = records(paired_stats(study, quantity))
    ranked = {row["key"] for row in compared}
    rows = [row for row in stats if row["key"] in ranked and row["n"]]
    most = max((int(row["n"]) for row in rows), default=0)
    if most < 2:
        return ""
    if most < FEWEST_FLIPPED:
        attainable = _attainable(most, len(compared), level)
        return (
            f"Sign flips{{of}}: {most} pairs give no p below {smallest_p(most):.2g}, which"
            f" {attainable}; the test is made from {FEWEST_FLIPPED} pairs on."
        )
    tested = [row for row in rows if not pd.isna(row["sign_flip_p"])]
    small = sorted(tested, key=lambda row: (row["sign_flip_p"], row["key"]))[:3]
    entries = [f"{labels[row['key']]} {p_value(row['sign_flip_p'])}" for row in small]
    return (
        f"Sign flips of up to {counted(most, 'pair')}{{of}}, uncorrected, smallest p:"
        f" {listed(entries)}; the smallest that there can be is {smallest_p(most):.2g}, which"
        f" {_attainable(most, len(compared), level)}."
    )


def _attainable(pairs: int, comparisons: int, level: float) -> str:
    """Whether the smallest p that so many pairs can give survives Bonferroni's correction."""
    least = smallest_p(pairs)
    can = least is not None and comparisons * least < 1 - level
    return (
        f"after correction for {counted(comparisons, 'comparison')}"
        f" {'can' if can else 'cannot'} reach {percent(1 - level)}"
    )


def _tainted(study: Study, quantity: str) -> list[str]:
    """What the decision would be if tainted successes counted; nothing where there are none."""
    counted_in = study.derive(including_tainted)
    num_tainted = int((is_scored(counted_in.cells) & ~is_scored(study.cells)).sum())
    if not num_tainted:
        return []
    without, counting = decide(study, quantity), decide(counted_in, quantity)
    changed = [
        _instead(after, study)
        for before, after in zip(without, counting, strict=True)
        if (before.best, before.resolved) != (after.best, after.resolved)
    ]
    opening = f"With {counted(num_tainted, 'tainted success', 'tainted successes')} counted in,"
    return [f"{opening} {'; '.join(changed) if changed else 'the decision is the same'}."]


def _instead(decision: Decision, study: Study) -> str:
    best, setting = decision.best, decision.setting
    if best is None or best == study.reference:
        return f"{'the reference' if best else 'none'} would be lowest ({setting})"
    found = {True: "resolved", False: "not resolved", None: "not resolved for want of seeds"}
    return (
        f"{study.labels[best]} would be lowest, {found[decision.resolved]} from the reference"
        f" ({setting})"
    )
