"""Does quantization act on all activations alike, and do quantization and TTT keep the winner?

The second question of a sweep, beside its ranking, with an error rate of 5 % of its own: for which
activations does the effect of quantization differ from that on the reference? A quantization delta
is a score of its cell, so deltas are compared as scores are (``analysis.stats.compare``): within
seeds, all with the reference's at once, by the wider of both intervals.

Which activation is lowest before and which after is seen first, so the interval of the shift
between the two must hold for whatever two they are. It is the sum of both half widths against the
reference: wherever these intervals hold together, so does that of every pair.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pandas as pd
from scipy import stats

from analysis.number_format import capital, counted, listed, number, percent, plus_minus
from analysis.rows.scoring import stage_title
from analysis.rows.stages import DELTAS, STAGES
from analysis.stats.compare import compared_rows
from analysis.stats.quantization import CHANGES, primary_delta, with_deltas
from analysis.stats.ranking import function_labels
from analysis.study import Study, answered_once

Row = Mapping[str, Any]
Gaps = Mapping[str, tuple[float, float]]  # difference from the reference, half width; by key
Compared = Mapping[str, Sequence[Row]]  # rows of ``compare``, by quantity

_LEGAL = tuple(name for name, stage in STAGES.items() if stage.legality is None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """What one entry of ``CHANGES`` does to the ranking of one setting.

    ``before`` and ``after`` are the keys that are lowest. ``change``: by how much the difference
    after − before moves; ``half_width``: simultaneous over all pairs of activations, None where the
    noise is not known. ``tau``: Kendall's (1938) of the two rankings, None where one has only ties.
    """

    delta: str
    before: str
    after: str
    change: float
    half_width: float | None
    tau: float | None

    @property
    def resolved(self) -> bool | None:
        """Whether the shift is told from zero; None where the noise is not known."""
        return None if self.half_width is None else abs(self.change) > self.half_width


def stage_sentences(study: Study) -> list[str]:
    """Of each setting: does quantization act on all alike, and does the winner stay the same?"""
    tested, labels = primary_delta(study.cells), function_labels(study)
    sentences = []
    for setting, here in study.settings.items():
        compared, told = _compared(here), []
        if tested is not None and compared[tested]:
            told.append(_interaction(here, compared[tested], labels))
        if found := _shifts(compared, here.reference):
            moved = [_moved(one, tested, labels) for one in found if one.before != one.after]
            told.append("; ".join([_winners(here, compared, labels), *moved, *_rankings(found)]))
        opening = f"{setting}: " if len(study.settings) > 1 else ""
        sentences += [f"{opening}{sentence}." for sentence in told]
    return sentences


def shifts(study: Study) -> list[Shift]:
    """Of one setting: one for each entry of ``CHANGES`` that two or more activations have."""
    return _shifts(_compared(study), study.reference)


@answered_once
def _compared(study: Study) -> Compared:
    """The comparisons of every stage and change of one setting."""
    changed = study.derive(with_deltas)
    found = {name: compared_rows(study, name) for name in _LEGAL}
    return found | {name: compared_rows(changed, name) for name in CHANGES}


def _shifts(compared: Compared, reference: str) -> list[Shift]:
    found = []
    for name in CHANGES:
        stages = DELTAS[name].before, DELTAS[name].after
        moves, *ranked = (_gaps(compared[each], reference) for each in (name, *stages))
        before, after = map(_lowest, ranked)
        if len(moves) < 2 or not {before, after} <= set(moves):
            continue
        half_width = moves[before][1] + moves[after][1]
        found.append(
            Shift(
                delta=name,
                before=before,
                after=after,
                change=moves[after][0] - moves[before][0],
                half_width=None if pd.isna(half_width) else half_width,
                tau=_tau(*ranked),
            )
        )
    return found


def _gaps(rows: Sequence[Row], reference: str) -> Gaps:
    gaps = {row["key"]: (row["difference"], row["half_width"]) for row in rows}
    return {reference: (0.0, 0.0), **gaps}


def _lowest(gaps: Gaps) -> str:
    return min(gaps, key=lambda key: (gaps[key][0], key))


def _tau(before: Gaps, after: Gaps) -> float | None:
    common = [key for key in before if key in after]
    tau = stats.kendalltau(*([gaps[key][0] for key in common] for gaps in (before, after)))
    return None if pd.isna(tau.statistic) else float(tau.statistic)


def _interaction(here: Study, rows: Sequence[Row], labels: Mapping[str, str]) -> str:
    reference, title = labels[here.reference], stage_title(here.cells, rows[0]["quantity"])
    if any(pd.isna(row["resolved"]) for row in rows):
        why = capital(rows[0]["unjudged"])
        return f"{why}: whether quantization costs all alike is not told ({title})"
    rows = sorted(rows, key=lambda row: (row["difference"], row["key"]))
    less = [_gap(row, labels) for row in rows if row["resolved"] and row["difference"] < 0]
    more = [_gap(row, labels) for row in rows if row["resolved"] and row["difference"] > 0]
    told = [f"{listed(names)} {way}" for names, way in ((less, "less"), (more, "more")) if names]
    if told:
        words = f"Quantization costs {' and '.join(told)} than it costs {reference}"
    else:
        farthest = _gap(max(rows, key=lambda row: abs(row["difference"])), labels)
        words = (
            f"Quantization is not shown to cost any activation more or less than {reference}; the"
            f" farthest is {farthest}"
        )
    level = rows[0]["level"]
    return (
        f"{words}: {title}, bits per byte, simultaneous {percent(level)} intervals over"
        f" {counted(len(rows), 'comparison')}. This is a second question, with an error rate of"
        f" {percent(1 - level)} of its own"
    )


def _gap(row: Row, labels: Mapping[str, str]) -> str:
    gap = plus_minus(row["difference"], row["half_width"], signed=True)
    return f"{labels[row['key']]} ({gap})"


def _winners(here: Study, compared: Compared, labels: Mapping[str, str]) -> str:
    """Which activation is lowest at which stage; once, where it is the same at all of them."""
    lowest = {
        stage: _lowest(_gaps(compared[stage], here.reference))
        for stage in _LEGAL
        if compared[stage]
    }
    winners = [
        (labels[key], "; ".join(stage_title(here.cells, stage) for stage in stages))
        for key, stages in groupby(lowest, key=lowest.__getitem__)
    ]
    if len(winners) == 1:
        return f"{winners[0][0]} is lowest at every stage ({winners[0][1]})"
    return f"The lowest changes: {', then '.join(f'{name} ({at})' for name, at in winners)}"


def _moved(shift: Shift, tested: str | None, labels: Mapping[str, str]) -> str:
    """How far the two winners moved against each other, and whether that is told from zero."""
    change = plus_minus(shift.change, shift.half_width, signed=True)
    moves = f"{labels[shift.after]} against {labels[shift.before]} by {change}"
    if shift.resolved is None:
        return f"{CHANGES[shift.delta]} moves {moves}, and no interval tells whether by chance"
    standing = "" if shift.delta == tested else ", described and not tested"
    return (
        f"{CHANGES[shift.delta]} moves {moves}, simultaneous over all pairs{standing}:"
        f" {'resolved' if shift.resolved else 'not resolved'}"
    )


def _rankings(found: Sequence[Shift]) -> list[str]:
    told = [
        f"{number(shift.tau, decimals=2)} ({CHANGES[shift.delta]})"
        for shift in found
        if shift.tau is not None
    ]
    return [f"Kendall's τ of the rankings before and after is {listed(told)}"] if told else []
