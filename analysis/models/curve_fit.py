"""A polynomial over the tested slopes, fitted in blocks, and the confidence set for its minimum.

score = block + curve(slope) + noise, where every activation that is not on the curve keeps a mean
of its own. The curve is a polynomial of degree 3 (2 with three or four slopes). Where an F test
says that it is far too stiff for the tested slopes, the degree is raised, up to 5. The noise is
what blocks and one mean per activation leave over, so a curve that does not fit does not enter it.
Cells may be missing.

A place g may hold the minimum unless the fit at g is above the fit at some other place by more than
noise explains: max over s of (f̂(g) − f̂(s)) / se(g, s) ≤ c(g). This is the multiple comparison with
the best (Hsu 1984) carried over to a curve. c(g) is the quantile of that maximum where the curve is
flat; a true minimum is below every other place, so it is kept with the nominal probability or more,
whatever the curve, and the kept places may be several intervals. Simulated bootstraps of the
minimum itself cover less where the curve is nearly flat or misfitted: docs/statistics.md.

N scores or draws, B blocks, A activations, O of them not on the curve, P coefficients, G places on
the axis, D dimensions of the curve.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.polynomial.legendre import legvander
from scipy import special
from scipy.stats import qmc

from analysis.models.least_squares import Flags, Floats, FTest, Solution, f_test, indicators, solve

HIGHEST_DEGREE = 5

# Choosing the degree by the scores costs coverage where the cubic was right: 0.8 points when it is
# raised at p < 0.05, 0.2 at p < 0.01 (4,000 flat grids, as in benchmarks/slope_coverage.py).
RAISED_BELOW = 0.01

_SCRAMBLING = 0  # the same curve has the same answer, today and tomorrow


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
    # Cubic from five slopes on: a quadratic minimum off centre, and one degree to test the fit.
    degree = 3 if cells.num_slopes >= 5 else 2
    flat, model = cells.solve(0), cells.solve(degree)
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


@dataclass(frozen=True, slots=True, eq=False)
class Critical:
    """In standard errors: what a difference must exceed to be resolved, at a level.

    ``minimum_G``: one-sided, for "g is not the minimum"; ``pairs``: for all differences between
    places at once; ``band``: for all places of the curve itself at once.
    """

    minimum_G: Floats
    pairs: float
    band: float


def may_be_minimum(fit_G: Floats, roots_GD: Floats, *, sd: float, critical: Critical) -> Flags:
    """Which places may hold the minimum; the lowest of the fit is always one of them.

    ``roots_GD`` @ its transpose is the covariance of the fit for noise of sd 1.
    """
    above_GG = fit_G[:, None] - fit_G[None, :]
    allowed_GG = critical.minimum_G[:, None] * sd * _errors(roots_GD)
    return np.asarray((above_GG <= allowed_GG).all(axis=1))


def largest_difference(fit_G: Floats, roots_GD: Floats, *, sd: float, critical: Critical) -> float:
    """The largest difference between two places of the curve that noise leaves possible."""
    apart_GG = np.abs(fit_G[:, None] - fit_G[None, :])
    return float((apart_GG + critical.pairs * sd * _errors(roots_GD)).max())


def critical_values(roots_GD: Floats, *, df: int, level: float, draws: int) -> Critical:
    """The quantiles at ``level``, from ``draws`` flat curves with normal noise of unknown sd."""
    return _critical(roots_GD.tobytes(), roots_GD.shape, df, level, draws)


@lru_cache(maxsize=32)  # a simulation asks for the same design thousands of times
def _critical(data: bytes, shape: tuple[int, int], df: int, level: float, draws: int) -> Critical:
    roots_GD = np.frombuffer(data).reshape(shape)
    student_ND = _student((draws, shape[1]), df)
    minimum_G, widest_N = np.zeros(shape[0]), np.zeros(draws)
    for place, root_D in enumerate(roots_GD):
        away_GD = root_D - roots_GD
        norms_G = np.linalg.norm(away_GD, axis=1)
        units_GD = away_GD[norms_G > 0] / norms_G[norms_G > 0, None]
        scores_NG = student_ND @ units_GD.T
        highest_N = scores_NG.max(axis=1)
        minimum_G[place] = np.quantile(highest_N, level)
        widest_N = np.maximum(widest_N, np.maximum(highest_N, -scores_NG.min(axis=1)))
    units_GD = roots_GD / np.linalg.norm(roots_GD, axis=1, keepdims=True)
    band_N = np.abs(student_ND @ units_GD.T).max(axis=1)
    return Critical(
        minimum_G, float(np.quantile(widest_N, level)), float(np.quantile(band_N, level))
    )


def _student(shape: tuple[int, int], df: int) -> Floats:
    """Standard normal vectors over an sd that is estimated with ``df``, spread evenly (Halton).

    At 2,000 draws the probability that is kept is right to 0.2 points, with random ones to 0.5.
    """
    draws, dimensions = shape
    uniform_NE = qmc.Halton(dimensions + 1, seed=_SCRAMBLING).random(draws)
    normal_ND = special.ndtri(uniform_NE[:, :-1])
    student_ND: Floats = normal_ND / np.sqrt(special.chdtri(df, uniform_NE[:, -1:]) / df)
    return student_ND


def _errors(roots_GD: Floats) -> Floats:
    """The standard error of the difference between each two places, for noise of sd 1."""
    errors_GG: Floats = np.linalg.norm(roots_GD[:, None, :] - roots_GD[None, :, :], axis=2)
    return errors_GG
