"""Six-bit codes whose later columns make up for the rounding of earlier ones, on calibration text.

Columns are taken one by one, those of the largest diagonal of the Hessian H = XᵀX first. What the
code of a column misses is taken off the columns that are still to come, in the proportion that
changes X·wᵀ least. Scales and percentiles are those of int6_row, from the weights as they were.

With H⁻¹ = UᵀU (U upper triangular, columns in that order) the miss of row r is w − w' = e·U for
e_j = (compensated w_j − w'_j) / U_jj. So (w − w')·H·(w − w')ᵀ = Σ_j e_j², which is at most
scale_r² / 4 · Σ_j U_jj⁻² where no compensated weight exceeds 31.5·scale_r. No single |w − w'| is
bounded by scale_r. H is the damped Hessian.

Source: Frantar et al. (2022), in the form of parameter-golf PR #1135: the percentile is chosen by
the plain error of the weights and not by that of X·wᵀ. Shapes: R rows, C columns, P percentiles,
N = P·R.
"""

import torch
from torch import Tensor

from trainer.compress.int6_row import LEVELS, int6_row, row_clips
from trainer.compress.row_codes import (
    Quantized,
    best_by_squared_error,
    count_floored,
    exact_scale,
    to_codes,
)
from trainer.config import Quantization


def gptq(w_RC: Tensor, config: Quantization, hessian_CC: Tensor) -> Quantized:
    """``w_RC`` float32 as codes in ±31; those of int6_row where the Hessian has no inverse."""
    order_C = torch.argsort(hessian_CC.diagonal(), descending=True, stable=True)
    factor_CC = _inverse_factor(hessian_CC[order_C][:, order_C], config.gptq.damping)
    if factor_CC is None:
        return int6_row(w_RC, config)
    ordered_RC = w_RC[:, order_C]
    clips = row_clips(w_RC, config)
    scales = [exact_scale(clip_R, LEVELS, config.scale_floor).half() for clip_R in clips]
    codes_NC = _compensated_codes(
        ordered_RC.repeat(len(scales), 1), torch.cat(scales).float(), factor_CC, config.gptq.block
    )
    codes_PRC = codes_NC.view(len(scales), *w_RC.shape)
    candidates = [
        Quantized(codes_RC, scale_R, count_floored(clip_R, LEVELS, config.scale_floor))
        for codes_RC, scale_R, clip_R in zip(codes_PRC, scales, clips, strict=True)
    ]
    best = best_by_squared_error(ordered_RC, candidates)
    codes_RC = best.codes_RC[:, torch.argsort(order_C)].contiguous()
    return Quantized(codes_RC, best.scale_R, best.floored_rows, compensated=True)


def _inverse_factor(hessian_CC: Tensor, damping: float) -> Tensor | None:
    """U upper triangular with UᵀU = (H + damping · mean diagonal · I)⁻¹; None if there is none."""
    added_C = (damping * hessian_CC.diagonal().mean()).expand(len(hessian_CC))
    lower_CC, failed = torch.linalg.cholesky_ex(hessian_CC + torch.diag(added_C))
    if failed:
        return None
    factor_CC, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower_CC), upper=True)
    return None if failed else factor_CC


def _compensated_codes(w_NC: Tensor, scale_N: Tensor, factor_CC: Tensor, block: int) -> Tensor:
    """Codes (N, C): every row of every percentile at once, column by column.

    The columns beyond a block hear of its errors once, by one product of matrices.
    """
    rest_CN = w_NC.T.contiguous()  # a column lies in one piece
    codes_CN = torch.empty_like(rest_CN, dtype=torch.int8)
    for start in range(0, len(rest_CN), block):
        stop = min(start + block, len(rest_CN))
        errors = torch.empty_like(rest_CN[start:stop])
        for j in range(start, stop):
            codes_CN[j] = to_codes(rest_CN[j], scale_N, LEVELS)
            error_N = (rest_CN[j] - codes_CN[j] * scale_N) / factor_CC[j, j]
            rest_CN[j + 1 : stop].addr_(factor_CC[j, j + 1 : stop], error_N, alpha=-1)
            errors[j - start] = error_N
        rest_CN[stop:].addmm_(factor_CC[start:stop, stop:].T, errors, alpha=-1)
    return codes_CN.T
