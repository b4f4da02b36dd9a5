"""Quantization deltas and gains by test-time training, per cell and per activation.

A delta is taken within a cell, between scores of equal windows, before anything is averaged. The
sign is after − before: a quantization delta above zero is a loss, a TTT gain below zero is a gain.
Where a script's recipe does not say the windows of both scores there is no delta.
"""

import pandas as pd

from analysis.rows.scoring import footing
from analysis.rows.stages import DELTAS, Delta
from analysis.stats.per_seed import seed_stats


def delta_stats(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of ``seed_stats`` for every delta that the cells of ``frame`` have."""
    return seed_stats(with_deltas(frame), tuple(DELTAS))


def with_deltas(frame: pd.DataFrame) -> pd.DataFrame:
    """``frame`` and one column per entry of ``DELTAS``; null where either score is."""
    return frame.assign(**{name: _delta(frame, name, delta) for name, delta in DELTAS.items()})


def _delta(frame: pd.DataFrame, name: str, delta: Delta) -> "pd.Series[float]":
    """Our own trainer scores both in equal windows; of a script both footings must be known."""
    difference = frame[delta.after].astype(float) - frame[delta.before].astype(float)
    told = frame["footing_json"]
    unlike = {text for text in told.dropna() if footing(name, {"footing_json": text}) is None}
    return difference.mask(told.isin(unlike))
