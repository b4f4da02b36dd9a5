"""Integer codes with one float16 scale per row: what the quantizers of this package share.

Shapes: R rows, C columns.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

SMALLEST_SCALE = 2.0**-24  # the smallest positive float16; a zero scale could not be divided by
LARGEST_SCALE = 65504.0  # the largest float16; an infinite scale would decode to NaN


@dataclass(frozen=True, slots=True)
class Quantized:
    """``codes_RC`` int8, ``scale_R`` float16 (float32 for vectors), rows at the scale floor.

    ``compensated``: whether the codes make up for each other's error, as those of GPTQ do.
    """

    codes_RC: Tensor
    scale_R: Tensor
    floored_rows: int
    compensated: bool = False


def dequantize(codes: Tensor, scale: Tensor) -> Tensor:
    """codes · scale in float32; ``scale`` has one dimension less than ``codes``."""
    return codes.float() * scale.float().unsqueeze(-1)


def encode(w_RC: Tensor, clip_R: Tensor, levels: int, scale_floor: float | None) -> Quantized:
    """round(w / scale) within ± levels, with scale = clip / levels rounded to float16.

    |w − w'| ≤ scale / 2 wherever |w| ≤ (levels + 1/2)·scale, and |w| − levels·scale beyond.
    """
    scale_R = exact_scale(clip_R, levels, scale_floor).half()
    codes_RC = to_codes(w_RC, scale_R.float()[:, None], levels)
    return Quantized(codes_RC, scale_R, count_floored(clip_R, levels, scale_floor))


def exact_scale(clip_R: Tensor, levels: int, scale_floor: float | None) -> Tensor:
    """clip / levels in float32, not below the floor and within what float16 can hold."""
    floor = SMALLEST_SCALE if scale_floor is None else max(scale_floor, SMALLEST_SCALE)
    return (clip_R / levels).clamp(min=floor, max=LARGEST_SCALE)


def count_floored(clip_R: Tensor, levels: int, scale_floor: float | None) -> int:
    """How many rows would have a smaller scale without the floor."""
    return 0 if scale_floor is None else int((clip_R / levels < scale_floor).sum())


def to_codes(w: Tensor, scale: Tensor, levels: int) -> Tensor:
    """round(w / scale), ties to even, within ± levels, int8."""
    return (w / scale).round().clamp(-levels, levels).to(torch.int8)


def best_by_squared_error(w_RC: Tensor, candidates: Iterable[Quantized]) -> Quantized:
    """The candidate whose mean squared error over the matrix is least, the first of equals."""
    return min(
        candidates,
        key=lambda q: float((w_RC - dequantize(q.codes_RC, q.scale_R)).square().mean()),
    )


def sorted_magnitudes(w_RC: Tensor) -> Tensor:
    """|w| ascending in every row, so that any quantile is two look-ups."""
    return w_RC.abs().sort(dim=1).values


def row_quantile(sorted_RC: Tensor, q: float, rank: Literal["float32", "float64"]) -> Tensor:
    """The ``q`` quantile of every sorted row, linearly interpolated, (R,).

    ``rank`` is the type in which q · (C − 1) is computed. In float32 this is ``torch.quantile``,
    as published; q = 0.9999984 is then rounded, and single codes differ by one level.
    """
    last = sorted_RC.size(1) - 1
    position = q * last if rank == "float64" else float(torch.tensor(q, dtype=torch.float32) * last)
    low = int(position)
    return torch.lerp(sorted_RC[:, low], sorted_RC[:, min(low + 1, last)], position - low)
