"""Quantization deltas and gains by test-time training, per cell and per activation.

A delta is taken within a cell, between scores of equal windows, before anything is averaged. The
sign is after − before: a quantization delta above zero is a loss, a TTT gain below zero is a gain.
"""

import pandas as pd

from analysis.rows.stages import DELTAS, check_equal_windows
from analysis.stats.per_seed import seed_stats
from trainer.config.config_errors import ConfigError


def delta_stats(frame: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
    """The rows of ``seed_stats`` for every delta that the cells of ``frame`` have."""
    return seed_stats(with_deltas(frame), tuple(DELTAS), level=level)


def with_deltas(frame: pd.DataFrame) -> pd.DataFrame:
    """``frame`` and one column per entry of ``DELTAS``; null where either score is."""
    return frame.assign(
        **{name: subtract(frame, delta.after, delta.before) for name, delta in DELTAS.items()}
    )


def subtract(frame: pd.DataFrame, after: str, before: str) -> "pd.Series[float]":
    """Per cell, the score at stage ``after`` less the one at ``before``, if windows are equal."""
    check_equal_windows(after, before)
    absent = [name for name in (after, before) if name not in frame]
    if absent:
        raise ConfigError(
            f"the cells have no column {', '.join(absent)}; read them with load_cells."
        )
    return frame[after].astype(float) - frame[before].astype(float)
