"""Six-bit codes per row, the clip chosen from five percentiles by mean squared error.

|w − w'| ≤ scale_r / 2 in every row r that is not clipped; scale_r = clip_r / 31 in float16. One
percentile serves the whole matrix, ties keep the smaller. Source: parameter-golf PR #549.
"""

from torch import Tensor

from trainer.quantizers.rows import Quantized, dequantize, encode, row_quantile, sorted_magnitudes

LEVELS = 31
PERCENTILES = (0.999, 0.9995, 0.9999, 0.99999, 1.0)


def int6_row(w_RC: Tensor, scale_floor: float | None) -> Quantized:
    """``w_RC`` float32 as codes in ±31."""
    ordered = sorted_magnitudes(w_RC)
    candidates = [encode(w_RC, row_quantile(ordered, p), LEVELS, scale_floor) for p in PERCENTILES]
    return min(
        candidates,
        key=lambda q: float((w_RC - dequantize(q.codes_RC, q.scale_R)).square().mean()),
    )
