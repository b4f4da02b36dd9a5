"""Eight-bit codes per row, clipped at a quantile of the row's magnitudes.

scale_r = max(clip_r / 127, int8_scale_floor), stored in float16. The error depends on which of the
two values of scale_r the codes are computed with:

- ``stored_scale``, the float16 one: |w − w'| ≤ scale_r / 2 where |w| ≤ 127.5·scale_r, and
  |w| − 127·scale_r beyond.
- ``exact_scale``, the float32 one, after clipping w, as published: the step of a decoded code is
  not the one that it was counted in. |w − w'| ≤ max(|w| − clip_r, 0) + scale_r / 2 + 127·δ_r, where
  δ_r ≤ max(2⁻¹¹·scale_r, 2⁻²⁵) is the rounding of scale_r: an eighth more, down to scales of 2⁻¹⁴.

Source: parameter-golf PR #1035.
"""

import torch
from torch import Tensor

from trainer.compress.row_codes import (
    Quantized,
    count_floored,
    encode,
    exact_scale,
    row_quantile,
    sorted_magnitudes,
    to_codes,
)
from trainer.config import Quantization

LEVELS = 127


def int8_row(w_RC: Tensor, config: Quantization) -> Quantized:
    """``w_RC`` float32 as codes in ±127."""
    clip_R = _clip(w_RC, config)
    floor = config.int8_scale_floor
    if config.int8_codes_by == "stored_scale":
        return encode(w_RC, clip_R, LEVELS, floor)
    scale_R = exact_scale(clip_R, LEVELS, floor)
    clipped_RC = w_RC.clamp(-clip_R[:, None], clip_R[:, None])
    return Quantized(
        codes_RC=to_codes(clipped_RC, scale_R[:, None], LEVELS),
        scale_R=scale_R.half(),
        floored_rows=count_floored(clip_R, LEVELS, floor),
    )


def int8_vectors(w_RC: Tensor, config: Quantization) -> Quantized:
    """Vectors as rows of codes in ±127, each with a float32 scale and no floor, as published.

    |w − w'| ≤ max(|w| − clip_r, 0) + scale_r / 2; a vector of zeros has the scale 1.
    """
    clip_R = _clip(w_RC, config)
    scale_R = torch.where(clip_R > 0, clip_R / LEVELS, 1.0)
    clipped_RC = w_RC.clamp(-clip_R[:, None], clip_R[:, None])
    return Quantized(to_codes(clipped_RC, scale_R[:, None], LEVELS), scale_R, floored_rows=0)


def _clip(w_RC: Tensor, config: Quantization) -> Tensor:
    return row_quantile(sorted_magnitudes(w_RC), config.int8_clip, config.quantile_rank)
