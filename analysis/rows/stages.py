"""The stages at which a cell is scored, and the differences of stages that may be taken.

A score is bits per byte of the same text, but its value depends on the windows in which the text
was scored: a sliding window gives every target more context than a contiguous one. Two scores may
be subtracted only where their windows are equal; ``DELTAS`` are the subtractions of this study.
"""

from dataclasses import dataclass
from typing import Literal

import pandas as pd

Windows = Literal["contiguous", "sliding"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One score of a cell: in which windows, adapted or not.

    ``legality`` is the column that says whether it is a legal score, where that is in question.
    """

    title: str
    windows: Windows
    adapted: bool = False
    legality: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """One subtraction: the score ``after`` less the score ``before``."""

    title: str
    after: str
    before: str


STAGES: dict[str, Stage] = {
    "pre_quant_bpb": Stage(title="pre-quant, contiguous", windows="contiguous"),
    "post_quant_bpb": Stage(title="post-quant, contiguous", windows="contiguous"),
    "pre_quant_sliding_bpb": Stage(title="pre-quant, sliding", windows="sliding"),
    "post_quant_sliding_bpb": Stage(title="post-quant, sliding", windows="sliding"),
    "ttt_bpb": Stage(title="test-time training, sliding", windows="sliding", adapted=True),
    "slot_bpb": Stage(
        title="SLOT, sliding", windows="sliding", adapted=True, legality="slot_legal"
    ),
}

DELTAS: dict[str, Delta] = {
    "quant_delta": Delta(
        title="quantization delta, contiguous", after="post_quant_bpb", before="pre_quant_bpb"
    ),
    "quant_delta_sliding": Delta(
        title="quantization delta, sliding",
        after="post_quant_sliding_bpb",
        before="pre_quant_sliding_bpb",
    ),
    "ttt_gain": Delta(
        title="gain by test-time training, sliding",
        after="ttt_bpb",
        before="post_quant_sliding_bpb",
    ),
    "slot_gain": Delta(
        title="gain by SLOT, sliding", after="slot_bpb", before="post_quant_sliding_bpb"
    ),
}

PANELS = ("pre_quant_bpb", "post_quant_bpb", "post_quant_sliding_bpb", "ttt_bpb")

# One stage is named before any result is seen, and only its ranking is tested: four tested stages
# would be four chances to find a winner. Every recipe has this score; TTT is null in some.
PRIMARY = "post_quant_sliding_bpb"


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
