"""Windows and strides in which scores were taken, and the words and titles that tell them.

Rows of our own trainer have one window and one stride, and each stage its kind of windows
(``stages.STAGES``). A script's rows have window and stride of each score in ``footing_json``, where
its recipe says them; a score whose windows are not known is shown, and subtracted from nothing.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import pandas as pd

from analysis.number_format import capital
from analysis.rows.read import is_scored, records
from analysis.rows.stages import DELTAS, STAGES, title_of, windows_of

UNKNOWN = "windows not recorded"
_FOOTING = ["window", "stride", "footing_json"]


class Scoring(TypedDict):
    """``window`` and ``stride`` in tokens; None where nothing is scored in known windows."""

    budget: str
    window: int | None
    stride: int | None


def footing(quantity: str, row: Mapping[str, Any]) -> tuple[int, int] | None:
    """Window and stride of a score of ``row``, or of both scores of a delta; None if unknown."""
    if quantity in DELTAS:
        delta = DELTAS[quantity]
        after, before = (footing(stage, row) for stage in (delta.after, delta.before))
        return after if after == before else None
    if isinstance(row["footing_json"], str):
        told = json.loads(row["footing_json"]).get(quantity)
        return None if told is None else (int(told[0]), int(told[1]))
    windows, window, stride = windows_of(quantity), row["window"], row["stride"]
    if windows == "contiguous":
        stride = window
    if windows is None or pd.isna(window) or pd.isna(stride):
        return None
    return int(window), int(stride)


def scoring_of(frame: pd.DataFrame, quantity: str) -> Scoring:
    """Budget and windows of ``quantity`` in the rows of one setting, which share it."""
    budget = str(frame["budget"].iloc[0])
    known = _told(frame)
    found = None if known is None else footing(quantity, known)
    window, stride = found or (None, None)
    return Scoring(budget=budget, window=window, stride=stride)


def scoring_words(frame: pd.DataFrame, quantity: str) -> str:
    """Window and stride of ``quantity`` in the rows of one setting, in words."""
    found = scoring_of(frame, quantity)
    if found["window"] is None:
        return UNKNOWN
    return f"windows of {found['window']} tokens, stride {found['stride']}"


def script_windows(frame: pd.DataFrame, quantities: Sequence[str]) -> str | None:
    """A sentence with the windows of each of ``quantities`` in rows of a script; None of ours."""
    if not _is_script(frame):
        return None
    told = [
        f"{_name(quantity)}: {scoring_words(frame, quantity)}"
        for quantity in quantities
        if quantity in DELTAS or frame[quantity].notna().any()
    ]
    return capital("; ".join(told))


def stage_title(frame: pd.DataFrame, quantity: str) -> str:
    """The title of a stage or delta in ``frame``: with the windows that its rows were scored in."""
    if windows_of(quantity) is None or not _is_script(frame):
        return title_of(quantity)
    found = scoring_of(frame, quantity)
    if found["window"] is None:
        return f"{_name(quantity)}, {UNKNOWN}"
    kind = "contiguous" if found["window"] == found["stride"] else "sliding"
    return f"{(DELTAS | STAGES)[quantity].name}, {kind}"


def title_and_windows(frame: pd.DataFrame, quantity: str) -> str:
    """The same with window and stride: post-quant, sliding (windows of 128 tokens, stride 32)."""
    title, words = stage_title(frame, quantity), scoring_words(frame, quantity)
    return title if title.endswith(UNKNOWN) else f"{title} ({words})"


def windows_title(frame: pd.DataFrame, quantity: str) -> str:
    """The same as a title that stands alone: Post-quant, sliding windows."""
    title = stage_title(frame, quantity)
    return capital(title if title.endswith(UNKNOWN) else f"{title} windows")


def _name(quantity: str) -> str:
    """The name of a stage or delta of a script, told from the others without its windows."""
    stage = STAGES.get(DELTAS[quantity].after if quantity in DELTAS else quantity)
    name = (DELTAS | STAGES)[quantity].name
    slides = stage is not None and stage.windows == "sliding" and not stage.adapted
    return f"{name} sliding" if slides else name


def _told(frame: pd.DataFrame) -> dict[str, Any] | None:
    """Window, stride and footing of the first scored row that tells them."""
    for row in records(frame[_FOOTING][is_scored(frame)]):
        ours = pd.notna(row["window"]) and pd.notna(row["stride"])
        if ours or pd.notna(row["footing_json"]):
            return row
    return None


def _is_script(frame: pd.DataFrame) -> bool:
    return bool(frame["footing_json"].notna().any())
