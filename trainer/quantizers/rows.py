"""Integer codes with one float16 scale per row: what the quantizers of this package share.

Shapes: R rows, C columns.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

SMALLEST_SCALE = 2.0**-24  # the smallest positive float16; a zero scale could not be divided by


@dataclass(frozen=True, slots=True)
class Quantized:
    """``codes_RC`` int8, ``scale_R`` float16, and how many rows sit at the scale floor."""

    codes_RC: Tensor
    scale_R: Tensor
    floored_rows: int


def dequantize(codes: Tensor, scale: Tensor) -> Tensor:
    """codes · scale in float32; ``scale`` has one dimension less than ``codes``."""
    return codes.float() * scale.float().unsqueeze(-1)


def encode(w_RC: Tensor, clip_R: Tensor, levels: int, scale_floor: float | None) -> Quantized:
    """round(w / scale) within ± levels, with scale = clip / levels rounded to float16.

    |w − w'| ≤ scale / 2 wherever |w| ≤ (levels + 1/2)·scale, and |w| − levels·scale beyond.
    """
    wanted_R = clip_R / levels
    floor = SMALLEST_SCALE if scale_floor is None else scale_floor
    scale_R = wanted_R.clamp(min=floor).half()
    codes_RC = (w_RC / scale_R.float()[:, None]).round().clamp(-levels, levels).to(torch.int8)
    floored = 0 if scale_floor is None else int((wanted_R < scale_floor).sum())
    return Quantized(codes_RC, scale_R, floored)


def sorted_magnitudes(w_RC: Tensor) -> Tensor:
    """|w| ascending in every row, so that any quantile is two look-ups."""
    return w_RC.abs().sort(dim=1).values


def row_quantile(sorted_RC: Tensor, q: float) -> Tensor:
    """The ``q`` quantile of every sorted row, linearly interpolated, (R,)."""
    position = q * (sorted_RC.size(1) - 1)
    low = int(position)
    high = min(low + 1, sorted_RC.size(1) - 1)
    return torch.lerp(sorted_RC[:, low], sorted_RC[:, high], position - low)
