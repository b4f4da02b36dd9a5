"""Quantization deltas and gains by test-time training, per cell and per activation.

A delta is taken within a cell, between scores of equal windows, before anything is averaged. The
sign is after − before: a quantization delta above zero is a loss, a TTT gain below zero is a gain.
Where a script's recipe does not say the windows of both scores there is no delta.
"""

import pandas as pd

from analysis.rows.read import is_scored
from analysis.rows.scoring import footing
from analysis.rows.stages import DELTAS, STAGES, Delta
from analysis.stats.seed_intervals import seed_intervals

# What is done between two stages that are ranked, by the delta that it makes.
CHANGES = {
    "quant_delta": "quantization",
    "quant_delta_sliding": "quantization, sliding",
    "ttt_gain": "TTT",
}
# Of the two quantization deltas one is tested: the first that the recipe scores, so no result
# decides it.
_TESTED = ("quant_delta", "quant_delta_sliding")


def delta_stats(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of ``seed_intervals`` for every delta that the cells of ``frame`` have."""
    return seed_intervals(with_deltas(frame), tuple(DELTAS))


def with_deltas(frame: pd.DataFrame) -> pd.DataFrame:
    """``frame`` and one column per entry of ``DELTAS``; null where either score is."""
    return frame.assign(**{name: _delta(frame, name, delta) for name, delta in DELTAS.items()})


def primary_delta(frame: pd.DataFrame) -> str | None:
    """The one quantization delta of a sweep that is tested; None where its cells have none."""
    scored = with_deltas(frame[["footing_json", *STAGES]][is_scored(frame)])
    return next((name for name in _TESTED if scored[name].notna().any()), None)


def _delta(frame: pd.DataFrame, name: str, delta: Delta) -> "pd.Series[float]":
    """Our own trainer scores both in equal windows; of a script both footings must be known."""
    difference = frame[delta.after].astype(float) - frame[delta.before].astype(float)
    told = frame["footing_json"]
    unlike = {text for text in told.dropna() if footing(name, {"footing_json": text}) is None}
    return difference.mask(told.isin(unlike))
