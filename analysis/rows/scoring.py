"""Budget, window and stride of a setting's scores."""

from typing import TypedDict

import pandas as pd

from analysis.rows.read import is_scored
from analysis.rows.stages import windows_of


class Scoring(TypedDict):
    """``window`` and ``stride`` in tokens; None where nothing is scored in windows."""

    budget: str
    window: int | None
    stride: int | None


def scoring_of(frame: pd.DataFrame, quantity: str) -> Scoring:
    """Budget and windows of ``quantity`` in the rows of one setting, which share it."""
    budget = str(frame["budget"].iloc[0])
    scored = frame.loc[is_scored(frame), ["window", "stride"]].dropna()
    windows = windows_of(quantity)
    if windows is None or scored.empty:
        return Scoring(budget=budget, window=None, stride=None)
    window, stride = (int(value) for value in scored.iloc[0])
    return Scoring(budget=budget, window=window, stride=stride if windows == "sliding" else window)


def scoring_words(frame: pd.DataFrame, quantity: str) -> str:
    """Window and stride of ``quantity`` in the rows of one setting, in words."""
    found = scoring_of(frame, quantity)
    if found["window"] is None:
        return "windows not recorded"
    return f"windows of {found['window']} tokens, stride {found['stride']}"
