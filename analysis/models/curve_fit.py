"""A polynomial over the tested slopes, fitted in blocks; or the slopes themselves where none fits.

score = block + curve(slope) + noise, where every activation that is not on the curve keeps a mean
of its own. The curve is a polynomial of degree 3 (2 with three or four slopes). Where an F test
says that it is far too stiff for the tested slopes, the degree is raised, up to 5. Where that does
not fit either, each slope keeps a mean of its own, and nothing is said between them. The noise of
the tests is what blocks and one mean per activation leave over. Cells may be missing.

N scores, B blocks, A activations, O of them not on the curve, P columns of the model, G places on
the axis.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.polynomial.legendre import legvander

from analysis.models.block_model import Codes
from analysis.models.least_squares import Floats, Solution, f_test, solve

HIGHEST_DEGREE = 5

# Choosing the degree by the scores costs coverage where the cubic was right: 0.8 points when it is
# raised at p < 0.05, 0.2 at p < 0.01 (4,000 flat grids).
RAISED_BELOW = 0.01
MISFIT_BELOW = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """The scores of one setting in a row: N values, each of a block and an activation.

    ``slope_A``: NaN where an activation is not on the curve.
    """

    values_N: Floats
    block_N: Codes
    activation_N: Codes
    slope_A: Floats

    @classmethod
    def of(cls, matrix: pd.DataFrame, slopes: Mapping[str, float]) -> "Cells":
        """From blocks × activations; NaN is missing."""
        known = matrix.dropna(how="all").dropna(how="all", axis=1)
        scores = known.to_numpy(dtype=float)
        block_N, activation_N = np.nonzero(~np.isnan(scores))
        return cls(
            values_N=scores[block_N, activation_N],
            block_N=block_N,
            activation_N=activation_N,
            slope_A=np.array([slopes.get(str(key), np.nan) for key in known]),
        )

    @property
    def tested(self) -> Floats:
        """The slopes on the curve, ascending."""
        return np.unique(self.slope_A[~np.isnan(self.slope_A)])

    def design(self, degree: int | None) -> Floats:
        """Blocks, the curve, other activations; degree 0: a flat curve, None: a mean per slope."""
        return self._columns(
            np.eye(int(self.block_N.max()) + 1)[self.block_N],
            self.slope_A[self.activation_N],
            np.eye(self.slope_A.size)[self.activation_N][:, np.isnan(self.slope_A)],
            degree,
        )

    def places(self, slopes_G: Floats, degree: int | None) -> Floats:
        """Rows for the model's columns: the curve at ``slopes_G`` in the mean of the blocks.

        With degree None they must be slopes that are tested.
        """
        num_blocks, num_others = int(self.block_N.max()) + 1, int(np.isnan(self.slope_A).sum())
        return self._columns(
            np.full((slopes_G.size, num_blocks), 1 / num_blocks),
            slopes_G,
            np.zeros((slopes_G.size, num_others)),
            degree,
        )

    def _columns(
        self, blocks_MB: Floats, slopes_M: Floats, others_MO: Floats, degree: int | None
    ) -> Floats:
        tested = self.tested
        on_curve_M1 = ~np.isnan(slopes_M)[:, None]
        if degree is None:
            curve_MC = (slopes_M[:, None] == tested).astype(float)
        else:  # Legendre polynomials on the span of the tested slopes
            unit_M = (2 * np.nan_to_num(slopes_M) - tested[0] - tested[-1]) / np.ptp(tested)
            curve_MC = legvander(unit_M, degree)[:, 1:] * on_curve_M1
        return np.hstack([blocks_MB, curve_MC, others_MO])


@dataclass(frozen=True, slots=True, eq=False)
class CurveFit:
    """A fitted curve. ``degree`` None: no polynomial fits, each slope has a mean of its own.

    ``fit_p``: lack of fit of the last polynomial tried; None where nothing is left to test it.
    """

    cells: Cells
    degree: int | None
    noise: Solution
    fit_p: float | None

    def estimators(self, slopes_G: Floats) -> Floats:
        """G × N: the fit at ``slopes_G`` is this times the scores."""
        design_NP = self.cells.design(self.degree)
        return np.asarray(self.cells.places(slopes_G, self.degree) @ np.linalg.pinv(design_NP))


def fit_curve(cells: Cells) -> CurveFit | str:
    """The stiffest curve that the slopes do not contradict; or why there is none."""
    saturated = cells.design(None)
    everything = solve(saturated, cells.values_N)
    if everything.sd is None:
        return "one seed tells nothing about the noise; a second one is needed"
    if everything.sd == 0.0:
        return "the scores differ by nothing but activation and seed, so there is no noise to test"
    # Cubic from five slopes on: a quadratic minimum off centre, and one degree to test the fit.
    degree = 3 if cells.tested.size >= 5 else 2
    flat, model = (solve(cells.design(d), cells.values_N) for d in (0, degree))
    if flat.df - model.df < degree:
        return "too many cells are missing for a curve through what is left"
    fit_p = None
    while (misfit := f_test(everything, model, everything)) is not None:
        fit_p = misfit.p_value
        room = degree < min(HIGHEST_DEGREE, cells.tested.size - 2)
        if fit_p >= RAISED_BELOW or not room:
            break
        degree += 1
        model = solve(cells.design(degree), cells.values_N)
    fits = fit_p is None or fit_p >= MISFIT_BELOW
    connected = everything.rows_RP.shape[0] == saturated.shape[1] - 1
    if not fits and not connected:
        return "no curve fits the slopes, and too many cells are missing to compare them directly"
    return CurveFit(cells, degree if fits else None, everything, fit_p)
