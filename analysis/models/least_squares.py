"""Least squares for designs of indicators: coefficients, estimable contrasts, F tests.

Ordinary least squares by singular values, so that a design of indicators may be redundant and cells
may be missing. N values, P columns, Q contrasts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

# A residual of 1e-10 of the values is rounding: doubles that are subtracted keep about ten digits
# of a BPB, and what is left over is squared here.
_ROUNDING = 1e-20


@dataclass(frozen=True, slots=True)
class Solution:
    """Coefficients of least norm, (XᵀX)⁺, an orthonormal basis of X's rows, and what is left over.

    ``rss`` is the residual sum of squares, ``df`` values less rank; the noise has sd √(rss / df).
    """

    coefficients_P: Floats
    inverse_PP: Floats
    rows_RP: Floats
    rss: float
    df: int

    @property
    def sd(self) -> float | None:
        """The standard deviation of the noise; None without a degree of freedom."""
        return math.sqrt(self.rss / self.df) if self.df else None

    def estimate(self, contrasts_QP: Floats) -> tuple[Floats, Floats]:
        """The Q contrasts and their standard errors for noise of sd 1; NaN what X cannot tell."""
        outside_QP = contrasts_QP - contrasts_QP @ self.rows_RP.T @ self.rows_RP
        told_Q = np.linalg.norm(outside_QP, axis=1) <= 1e-8 * (
            1.0 + np.linalg.norm(contrasts_QP, axis=1)
        )
        variances_Q = np.einsum("qp,pr,qr->q", contrasts_QP, self.inverse_PP, contrasts_QP)
        values_Q = np.where(told_Q, contrasts_QP @ self.coefficients_P, np.nan)
        return values_Q, np.where(told_Q, np.sqrt(np.maximum(variances_Q, 0.0)), np.nan)


@dataclass(frozen=True, slots=True)
class FTest:
    """Whether a larger model explains more than a smaller one: F, its degrees of freedom and p."""

    statistic: float
    df: int
    noise_df: int
    p_value: float


def solve(design_NP: Floats, values_N: Floats) -> Solution:
    """The least squares solution of values = design · coefficients + noise."""
    left, sizes, right = np.linalg.svd(design_NP, full_matrices=False)
    tolerance = max(design_NP.shape) * np.finfo(float).eps
    kept = sizes > (sizes.max() * tolerance if sizes.size else 0.0)
    left, sizes, rows_RP = left[:, kept], sizes[kept], right[kept]
    coefficients_P = rows_RP.T @ (left.T @ values_N / sizes)
    left_over = values_N - design_NP @ coefficients_P
    rss = float(left_over @ left_over)
    if rss <= _ROUNDING * float(values_N @ values_N):
        rss = 0.0
    return Solution(
        coefficients_P, (rows_RP.T / sizes**2) @ rows_RP, rows_RP, rss, values_N.size - sizes.size
    )


def f_test(larger: Solution, smaller: Solution, noise: Solution) -> FTest | None:
    """The F test of ``larger`` against ``smaller``, nested in it, with the noise of ``noise``.

    None where nothing distinguishes the two, or where the noise is unknown or exactly zero.
    """
    df = smaller.df - larger.df
    if df == 0 or noise.df == 0 or noise.rss == 0.0:
        return None
    statistic = max(0.0, smaller.rss - larger.rss) / df / (noise.rss / noise.df)
    return FTest(statistic, df, noise.df, float(special.fdtrc(df, noise.df, statistic)))


def indicators(labels: Sequence[object]) -> tuple[Floats, list[object]]:
    """One column per different label, 1 where it is; and the labels of the columns, in order."""
    known = list(dict.fromkeys(labels))
    place = {label: i for i, label in enumerate(known)}
    return np.eye(len(known))[[place[label] for label in labels]].reshape(-1, len(known)), known
