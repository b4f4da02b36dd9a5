"""What does a number of one setting stand on: which budget, which windows, which stride?"""

from typing import TypedDict

import pandas as pd

from analysis.rows.read import is_scored
from analysis.rows.stages import windows_of


class Footing(TypedDict):
    """``window`` and ``stride`` in tokens; None where nothing is scored in windows."""

    budget: str
    window: int | None
    stride: int | None


def footing_of(frame: pd.DataFrame, quantity: str) -> Footing:
    """The footing of ``quantity`` in the rows of one setting, which share it."""
    budget = str(frame["budget"].iloc[0])
    scored = frame.loc[is_scored(frame), ["window", "stride"]].dropna()
    windows = windows_of(quantity)
    if windows is None or scored.empty:
        return Footing(budget=budget, window=None, stride=None)
    window, stride = (int(value) for value in scored.iloc[0])
    return Footing(budget=budget, window=window, stride=stride if windows == "sliding" else window)
