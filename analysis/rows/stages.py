"""The stages at which a cell is scored, and the differences of stages that may be taken.

A score is bits per byte of the same text, but its value depends on the windows in which the text
was scored: a sliding window gives every target more context than a contiguous one. Two scores may
be subtracted only where their windows are equal; ``DELTAS`` are the subtractions of this study.
Titles and windows here are those of our own trainer. What a script printed may have other ones, or
none that are known: ``analysis.rows.scoring`` says those of given rows.
"""

from dataclasses import dataclass
from typing import Literal

import pandas as pd

from sweep.store.schema import TESTED

Windows = Literal["contiguous", "sliding"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One score of a cell: in which windows, adapted or not.

    ``legality`` is the column that says whether it is a legal score, where that is in question.
    """

    name: str
    windows: Windows
    adapted: bool = False
    legality: str | None = None

    @property
    def title(self) -> str:
        """What people read."""
        return f"{self.name}, {self.windows}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """One subtraction: the score ``after`` less the score ``before``."""

    name: str
    after: str
    before: str

    @property
    def title(self) -> str:
        """What people read."""
        return f"{self.name}, {STAGES[self.after].windows}"


STAGES: dict[str, Stage] = {
    "pre_quant_bpb": Stage(name="pre-quant", windows="contiguous"),
    "post_quant_bpb": Stage(name="post-quant", windows="contiguous"),
    "pre_quant_sliding_bpb": Stage(name="pre-quant", windows="sliding"),
    "post_quant_sliding_bpb": Stage(name="post-quant", windows="sliding"),
    "ttt_bpb": Stage(name="test-time training", windows="sliding", adapted=True),
    "slot_bpb": Stage(name="SLOT", windows="sliding", adapted=True, legality="slot_legal"),
}

DELTAS: dict[str, Delta] = {
    "quant_delta": Delta(name="quantization delta", after="post_quant_bpb", before="pre_quant_bpb"),
    "quant_delta_sliding": Delta(
        name="quantization delta",
        after="post_quant_sliding_bpb",
        before="pre_quant_sliding_bpb",
    ),
    "ttt_gain": Delta(
        name="gain by test-time training",
        after="ttt_bpb",
        before="post_quant_sliding_bpb",
    ),
    "slot_gain": Delta(name="gain by SLOT", after="slot_bpb", before="post_quant_sliding_bpb"),
}

PANELS = ("pre_quant_bpb", "post_quant_bpb", "post_quant_sliding_bpb", "ttt_bpb")

PRIMARY = TESTED[0]


def tested_stage(frame: pd.DataFrame) -> str:
    """The one stage of a sweep with the rows ``frame`` that is tested."""
    scored = frame[list(TESTED)][frame["state"] == "succeeded"]
    return next((stage for stage in TESTED if scored[stage].notna().any()), PRIMARY)


def is_legal(frame: pd.DataFrame, quantity: str) -> bool:
    """False for a score that was fitted on the targets that it scores: shown, never ranked.

    A score of which nobody said that it is legal is none.
    """
    name = DELTAS[quantity].after if quantity in DELTAS else quantity
    stage = STAGES.get(name)
    if stage is None or stage.legality is None:
        return True
    said = frame.loc[frame[name].notna(), stage.legality]
    return bool(said.astype("boolean").fillna(False).all())


def windows_of(quantity: str) -> Windows | None:
    """The windows that a stage or a delta is scored in; None for what is no score."""
    if quantity in DELTAS:
        return STAGES[DELTAS[quantity].after].windows
    return STAGES[quantity].windows if quantity in STAGES else None


def title_of(quantity: str) -> str:
    """What people read: the title of a stage or delta, else the column's own name in words."""
    if quantity in DELTAS:
        return DELTAS[quantity].title
    return STAGES[quantity].title if quantity in STAGES else quantity.replace("_", " ")
