"""The confidence set for the minimum of a fitted curve, and bounds on how much it varies.

A curve that is linear in its coefficients is fitted with normal noise whose sd is estimated with
df degrees of freedom. A place g may hold the minimum unless the fit at g is above the fit at some
other place by more than noise explains: max over s of (f̂(g) − f̂(s)) / se(g, s) ≤ c(g). This is the
multiple comparison with the best (Hsu 1984) carried over to a curve. c(g) is the quantile of that
maximum where the curve is flat; a true minimum is below every other place, so it is kept with the
nominal probability or more, whatever the curve, and the kept places may be several intervals.
Simulated bootstraps of the minimum itself cover less where the curve is nearly flat or misfitted:
docs/statistics.md. G places on the axis, D dimensions of the curve, N draws.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special
from scipy.stats import qmc

from analysis.models.least_squares import Flags, Floats

_SCRAMBLING = 0  # the same curve has the same answer, today and tomorrow


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
