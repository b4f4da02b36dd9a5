"""A polynomial over the tested slopes, fitted in blocks, its degree raised where it does not fit.

score = block + curve(slope) + noise, where every activation that is not on the curve keeps a mean
of its own. The curve is a polynomial of degree 3 (2 with three or four slopes). Where an F test
says that it is far too stiff for the tested slopes, the degree is raised, up to 5. The noise is
what blocks and one mean per activation leave over, so a curve that does not fit does not enter it.
Cells may be missing. N scores, B blocks, A activations, O of them not on the curve, P coefficients.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.polynomial.legendre import legvander

from analysis.models.least_squares import Flags, Floats, FTest, Solution, f_test, indicators, solve

HIGHEST_DEGREE = 5

# Choosing the degree by the scores costs coverage where the cubic was right: 0.8 points when it is
# raised at p < 0.05, 0.2 at p < 0.01 (4,000 flat grids, as in benchmarks/slope_coverage.py).
RAISED_BELOW = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """The scores of one setting in a row: N values, each of a block and an activation."""

    values_N: Floats
    blocks_NB: Floats
    keys_NA: Floats
    others_NO: Floats  # the activations that are not on the curve
    on_curve_N: Floats
    slopes_N: Floats  # 0 where not on the curve
    span: tuple[float, float]

    @classmethod
    def of(cls, matrix: pd.DataFrame, slopes: Mapping[str, float]) -> "Cells":
        """From blocks × activations; NaN is missing."""
        scores = matrix.to_numpy(dtype=float)
        block, activation = np.nonzero(~np.isnan(scores))
        keys = [str(matrix.columns[a]) for a in activation]
        on_curve_N = np.array([key in slopes for key in keys])
        slopes_N = np.array([slopes.get(key, 0.0) for key in keys])
        keys_NA, names = indicators(keys)
        return cls(
            values_N=scores[block, activation],
            blocks_NB=indicators(block.tolist())[0],
            keys_NA=keys_NA,
            others_NO=keys_NA[:, [name not in slopes for name in names]],
            on_curve_N=on_curve_N.astype(float),
            slopes_N=slopes_N,
            span=(float(slopes_N[on_curve_N].min()), float(slopes_N[on_curve_N].max())),
        )

    @property
    def num_slopes(self) -> int:
        return len(set(self.slopes_N[self.on_curve_N > 0].tolist()))

    def basis(self, slopes_M: Floats, degree: int) -> Floats:
        """Legendre polynomials of degree 1 to ``degree`` on the span of the tested slopes."""
        low, high = self.span
        return np.asarray(
            legvander((2 * slopes_M - low - high) / (high - low), degree)[:, 1:], float
        )

    def solve(self, degree: int) -> Solution:
        """Blocks, other activations, and the polynomial; degree 0 is a flat curve."""
        curve_ND = self.basis(self.slopes_N, degree) * self.on_curve_N[:, None]
        return solve(np.hstack([self.blocks_NB, curve_ND, self.others_NO]), self.values_N)


@dataclass(frozen=True, slots=True, eq=False)
class CurveFit:
    """A fitted curve: its model, the noise, the test of any trend, and those of lack of fit."""

    cells: Cells
    degree: int
    model: Solution
    noise: Solution
    noise_sd: float
    trend: FTest
    misfits: tuple[FTest, ...]

    def at(self, slopes_G: Floats) -> tuple[Floats, Floats]:
        """The fit, and roots whose product with their transpose is its covariance at sd 1."""
        blocks, others = self.cells.blocks_NB.shape[1], self.cells.others_NO.shape[1]
        rows_GP = np.hstack(
            [
                np.full((slopes_G.size, blocks), 1 / blocks),
                self.cells.basis(slopes_G, self.degree),
                np.zeros((slopes_G.size, others)),
            ]
        )
        sizes, axes_PP = np.linalg.eigh(self.model.inverse_PP)
        roots_GP = rows_GP @ axes_PP * np.sqrt(np.maximum(sizes, 0.0))
        left, spread, _ = np.linalg.svd(roots_GP, full_matrices=False)
        kept = spread > 1e-9 * spread.max()
        return rows_GP @ self.model.coefficients_P, left[:, kept] * spread[kept]


def fit_curve(cells: Cells) -> CurveFit | str:
    """The stiffest curve that the slopes do not contradict; or why there is none."""
    everything = solve(np.hstack([cells.blocks_NB, cells.keys_NA]), cells.values_N)
    flat, degree = cells.solve(0), first_degree(cells.num_slopes)
    model = cells.solve(degree)
    if everything.sd is None:
        return "one seed tells nothing about the noise; a second one is needed"
    if everything.sd == 0.0:
        return "the scores differ by nothing but activation and seed, so there is no noise to test"
    trend = f_test(model, flat, everything)
    if trend is None or flat.df - model.df < degree:
        return "too many cells are missing for a curve through what is left"
    misfits = []
    while (misfit := f_test(everything, model, everything)) is not None:
        misfits.append(misfit)
        room = degree < min(HIGHEST_DEGREE, cells.num_slopes - 2)
        if misfit.p_value >= RAISED_BELOW or not room:
            break
        degree += 1
        model = cells.solve(degree)
    return CurveFit(cells, degree, model, everything, everything.sd, trend, tuple(misfits))


def first_degree(num_slopes: int) -> int:
    """Cubic from five slopes on: a quadratic minimum off centre, and one degree to test the fit."""
    return 3 if num_slopes >= 5 else 2


def intervals(places_G: Floats, kept_G: Sequence[bool] | Flags) -> tuple[tuple[float, float], ...]:
    """The runs of kept places, each up to the next place that is not kept: never too short.

    >>> intervals(np.array([0.0, 0.1, 0.2, 0.3, 0.4]), [True, False, False, True, False])
    ((0.0, 0.1), (0.2, 0.4))
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(kept_G, int), [0]])))
    last = len(places_G) - 1
    return tuple(
        (float(places_G[max(start - 1, 0)]), float(places_G[min(stop, last)]))
        for start, stop in zip(edges[::2], edges[1::2], strict=True)
    )
