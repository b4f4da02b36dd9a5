"""What stands beside the verdict: the field's rule, unequal noise, sign flips, taint, data order.

None of it decides what is resolved; each is a sentence that a reader of the verdict needs in order
not to be misled by it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.models.block_model import Blocking
from analysis.number_format import counted, listed, number, p_value, percent
from analysis.rows.read import Sweep, including_tainted, is_scored, labels_of, records, settings
from analysis.rows.stages import PRIMARY
from analysis.stats.compare import FIELD_NATS, FIELD_P, contrasts
from analysis.stats.decision import Verdict, joint_labels, verdicts
from analysis.stats.pairs import FEWEST_FLIPPED, paired_stats, smallest_p
from analysis.stats.ranking import design_of, same_functions
from analysis.stats.variances import variance_checks

Row = Mapping[str, Any]

DATA_ORDER = "Every interval is conditional on the order of the training data: seeds share it."


def beside_sentences(
    frame: pd.DataFrame, sweep: Sweep, quantity: str = PRIMARY, *, level: float = 0.95
) -> list[str]:
    """One sentence each, per setting where there is something to say; nothing to compare, none."""
    design = design_of(sweep)
    labels = joint_labels(same_functions(frame, sweep.reference), labels_of(frame))
    compared = records(contrasts(frame, quantity, sweep.reference, level=level, design=design))
    checks = records(variance_checks(frame, quantity, sweep.reference, design=design))
    known = settings(frame)
    sentences: list[str] = []
    for setting in known:
        rows = [row for row in compared if row["setting"] == setting]
        if not rows:
            continue
        found = [_field_rule(rows, labels)]
        found += [_variances(row, labels) for row in checks if row["setting"] == setting]
        found += [_sign_flips(frame[frame["setting"] == setting], rows, labels, design)]
        of = f" ({setting})" if len(known) > 1 else ""
        sentences += [sentence.format(of=of) for sentence in found if sentence]
    sentences += _tainted(frame, sweep, quantity, level)
    return [*sentences, DATA_ORDER] if compared else sentences


def _field_rule(rows: Sequence[Row], labels: Mapping[str, str]) -> str:
    told = [row for row in rows if isinstance(row["field_rule"], str)]
    if not told:
        return ""
    met = [labels[row["key"]] for row in told if row["field_rule"] == "met"]
    nearest = min(told, key=lambda row: (row["field_p"], row["key"]))
    loose = [labels[row["key"]] for row in told if row["field_rule_loose"] == "met"]
    words = f"met by {listed(met)}" if met else "met by none"
    words += (
        f"; nearest is {labels[nearest['key']]}, {_better_by(nearest['nats'])} nats per token"
        f" ({p_value(nearest['field_p'])})"
    )
    if loose != met:
        words += f"; read as seen {FIELD_NATS} and p < {FIELD_P} against none, by {listed(loose)}"
    return (
        f"The field's rule{{of}}, better than the reference by more than {FIELD_NATS} nats per"
        f" token at p < {FIELD_P}, one-sided over {counted(len(told), 'comparison')}: {words}."
    )


def _better_by(nats: float) -> str:
    return f"{'better' if nats < 0 else 'worse'} by {number(abs(nats))}"


def _variances(row: Row, labels: Mapping[str, str]) -> str:
    if pd.isna(row["equal"]):
        return ""
    verdict = "not rejected" if row["equal"] else "rejected"
    return (
        f"Equal noise{{of}} is {verdict} ({p_value(row['p_value'])}, {counted(row['n'], 'seed')}):"
        f" the most unlike the rest is {labels[row['largest_key']]}, sd"
        f" {number(row['largest_sd'])}; the least is {number(row['smallest_sd'])}. The guard does"
        " not depend on this check."
    )


def _sign_flips(
    frame: pd.DataFrame, compared: Sequence[Row], labels: Mapping[str, str], design: Blocking
) -> str:
    quantity, reference, level = (compared[0][name] for name in ("quantity", "reference", "level"))
    stats = records(paired_stats(frame, quantity, reference, design=design))
    ranked = {row["key"] for row in compared}
    rows = [row for row in stats if row["key"] in ranked and row["n"]]
    most = max((int(row["n"]) for row in rows), default=0)
    if most < 2:
        return ""
    if most < FEWEST_FLIPPED:
        reach = _reach(most, len(compared), level)
        return (
            f"Sign flips{{of}}: {most} pairs give no p below {smallest_p(most):.2g}, which {reach};"
            f" the test is made from {FEWEST_FLIPPED} pairs on."
        )
    tested = [row for row in rows if not pd.isna(row["sign_flip_p"])]
    small = sorted(tested, key=lambda row: (row["sign_flip_p"], row["key"]))[:3]
    entries = [f"{labels[row['key']]} {p_value(row['sign_flip_p'])}" for row in small]
    return (
        f"Sign flips of up to {counted(most, 'pair')}{{of}}, uncorrected, smallest p:"
        f" {listed(entries)}; the smallest that there can be is {smallest_p(most):.2g}, which"
        f" {_reach(most, len(compared), level)}."
    )


def _reach(pairs: int, comparisons: int, level: float) -> str:
    """Whether the smallest p that so many pairs can give survives Bonferroni's correction."""
    least = smallest_p(pairs)
    can = least is not None and comparisons * least < 1 - level
    return (
        f"after correction for {counted(comparisons, 'comparison')}"
        f" {'can' if can else 'cannot'} reach {percent(1 - level)}"
    )


def _tainted(frame: pd.DataFrame, sweep: Sweep, quantity: str, level: float) -> list[str]:
    """What the verdict would be if tainted successes counted; nothing where there are none."""
    counted_in = including_tainted(frame)
    num_tainted = int((is_scored(counted_in) & ~is_scored(frame)).sum())
    if not num_tainted:
        return []
    without = verdicts(frame, sweep, quantity, level=level)
    counting = verdicts(counted_in, sweep, quantity, level=level)
    changed = [
        _instead(after, sweep, labels_of(frame))
        for before, after in zip(without, counting, strict=True)
        if (before.best, before.resolved) != (after.best, after.resolved)
    ]
    opening = f"With {counted(num_tainted, 'tainted success', 'tainted successes')} counted in,"
    return [f"{opening} {'; '.join(changed) if changed else 'the verdict is the same'}."]


def _instead(verdict: Verdict, sweep: Sweep, labels: Mapping[str, str]) -> str:
    if verdict.best is None or verdict.best == sweep.reference:
        return f"{'the reference' if verdict.best else 'none'} would be lowest ({verdict.setting})"
    found = {True: "resolved", False: "not resolved", None: "not resolved for want of seeds"}
    return (
        f"{labels[verdict.best]} would be lowest, {found[verdict.resolved]} from the reference"
        f" ({verdict.setting})"
    )
