"""Six-bit codes per row, the clip chosen from some percentiles by mean squared error.

|w − w'| ≤ scale_r / 2 where |w| ≤ 31.5·scale_r, and |w| − 31·scale_r beyond; scale_r =
max(clip_r / 31, scale_floor) in float16. One percentile serves the whole matrix, of equals the
smaller. Source: parameter-golf PR #549.
"""

from torch import Tensor

from trainer.compress.row_codes import (
    Quantized,
    best_by_squared_error,
    encode,
    row_quantile,
    sorted_magnitudes,
)
from trainer.config import Quantization

LEVELS = 31


def int6_row(w_RC: Tensor, config: Quantization) -> Quantized:
    """``w_RC`` float32 as codes in ±31."""
    return best_by_squared_error(
        w_RC,
        [encode(w_RC, clip_R, LEVELS, config.scale_floor) for clip_R in row_clips(w_RC, config)],
    )


def row_clips(w_RC: Tensor, config: Quantization) -> list[Tensor]:
    """The clip of every row at each percentile, from the smallest percentile on."""
    ordered_RC = sorted_magnitudes(w_RC)
    return [row_quantile(ordered_RC, p, config.quantile_rank) for p in sorted(config.percentiles)]
