"""Eight-bit codes per row, clipped at the 0.9999984 quantile of the row's magnitudes.

|w − w'| ≤ scale_r / 2 in every row r that is not clipped; scale_r = clip_r / 127 in float16. Codes
use the float16 scale that is stored, where the published script codes with the float32 one.
Source: parameter-golf PR #1035.
"""

from torch import Tensor

from trainer.quantizers.rows import Quantized, encode, row_quantile, sorted_magnitudes

LEVELS = 127
CLIP_QUANTILE = 0.9999984


def int8_row(w_RC: Tensor, scale_floor: float | None) -> Quantized:
    """``w_RC`` float32 as codes in ±127."""
    clip_R = row_quantile(sorted_magnitudes(w_RC), CLIP_QUANTILE)
    return encode(w_RC, clip_R, LEVELS, scale_floor)
