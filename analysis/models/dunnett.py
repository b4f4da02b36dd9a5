"""Dunnett's quantile and adjusted p for several comparisons with one reference.

Dunnett (1955, 1964): the comparisons share the reference and the estimate of the noise, so their t
statistics are jointly Student with a correlation R and df degrees of freedom. The quantile of the
largest of them is smaller than Šidák's, which does not use R.

Where R is a product, R_ij = λ_i λ_j (every complete design: λ² = ½), the probability is a double
integral over what the statistics share and over the estimate of the noise, taken here by quadrature
(error below 1e-5). Where it is not (scores are missing), the product nearest to R is integrated
(Hsu 1992) and corrected by the difference between R and that product over a fixed set of 2¹⁴
scrambled Sobol points that both share; the error is then below 1e-3, checked in the tests.
"""

from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy.optimize import brentq
from scipy.stats import qmc

Sided = Literal["two", "one"]
Vector = NDArray[np.float64]

_DECIMALS = 6  # correlations alike to here are one entry of the caches
_NUM_POINTS = 2**14
_FARTHEST = 8.5  # standard deviations: what lies beyond has a probability of 2e-17


def quantile(correlation_KK: Vector, df: int, level: float, *, sided: Sided = "two") -> float:
    """The c that all K statistics stay below with probability ``level``; their sizes if two-sided.

    >>> round(quantile(np.full((3, 3), 0.5) + np.eye(3) / 2, 10, 0.95), 2)  # Dunnett 1964
    2.76
    """
    rounded = np.round(correlation_KK, _DECIMALS)
    return _quantile(rounded.tobytes(), len(rounded), df, level, sided)


def adjusted_p(t_K: Vector, correlation_KK: Vector, df: int, *, sided: Sided = "two") -> Vector:
    """For each statistic, the probability that the largest of K null ones is as large or larger.

    Two-sided of its size, one-sided of its value. At most ``1 - level`` exactly where the
    statistic is beyond ``quantile``.
    """
    rounded = np.round(correlation_KK, _DECIMALS)
    reached = np.abs(t_K) if sided == "two" else np.asarray(t_K, dtype=float)
    below = np.array([_below(float(t), rounded, df, sided) for t in reached])
    return np.asarray(np.clip(1 - below, 0.0, 1.0))


@lru_cache(maxsize=4096)
def _quantile(data: bytes, size: int, df: int, level: float, sided: Sided) -> float:
    correlation_KK = np.frombuffer(data).reshape(size, size)
    # One comparison gives the least quantile, Bonferroni's inequality the largest.
    tail = (1 - level) / (2 if sided == "two" else 1)
    low, high = (float(-special.stdtrit(df, p)) for p in (tail, tail / size))
    if size == 1:
        return low
    return float(
        brentq(
            lambda c: _below(c, correlation_KK, df, sided) - level,
            low - 1e-3,
            high + 1e-2,
            xtol=1e-9,
        )
    )


def _below(c: float, correlation_KK: Vector, df: int, sided: Sided) -> float:
    """The probability that every statistic is below ``c``."""
    if sided == "two" and c <= 0:
        return 0.0
    if np.isinf(c):
        return float(c > 0)
    if len(correlation_KK) == 1:
        beyond = float(special.stdtr(df, -c))
        return 1 - (2 * beyond if sided == "two" else beyond)
    loadings_K = _loadings(correlation_KK.tobytes(), len(correlation_KK))
    product = _below_product(c, loadings_K, df, sided)
    nearest_KK = _product(loadings_K)
    if np.abs(nearest_KK - correlation_KK).max() < 10.0**-_DECIMALS * 10:
        return product
    largest = _largest(correlation_KK.tobytes(), nearest_KK.tobytes(), df, sided)
    exact, near = (float((values <= c).mean()) for values in largest)
    return product + exact - near


def _below_product(c: float, loadings_K: Vector, df: int, sided: Sided) -> float:
    """∫∫ φ(z) f(s) Π_i P(|λ_i z + √(1 − λ_i²) e| ≤ c s) dz ds; without the bars if one-sided."""
    scale_S, weight_S = _noise_nodes(df)
    kinds, counts = np.unique(np.round(loadings_K, 9), return_counts=True)
    own = np.sqrt(1 - kinds**2)
    step = min(0.25, 0.5 * float(own.min()))  # trapezoids are exact to rounding when so narrow
    z = np.arange(-_FARTHEST, _FARTHEST + step, step)
    inside_ZS = np.ones((z.size, scale_S.size))
    for loading, spread, count in zip(kinds, own, counts, strict=True):
        centre = loading * z[:, None]
        inside = special.ndtr((c * scale_S - centre) / spread)
        if sided == "two":
            inside = inside - special.ndtr((-c * scale_S - centre) / spread)
        inside_ZS *= inside**count
    density_Z = np.exp(-(z**2) / 2) * step / np.sqrt(2 * np.pi)
    return float(density_Z @ inside_ZS @ weight_S)


@lru_cache(maxsize=256)
def _noise_nodes(df: int) -> tuple[Vector, Vector]:
    """Gauss–Legendre nodes of s = √(χ²/df) and the probabilities that they stand for."""
    low, high = np.sqrt(np.array([special.chdtri(df, p) for p in (1 - 1e-12, 1e-12)]) / df)
    x, w = np.polynomial.legendre.leggauss(40)
    s = low + (high - low) * (x + 1) / 2
    log_density = (
        np.log(2)
        + df / 2 * np.log(df / 2)
        - special.gammaln(df / 2)
        + (df - 1) * np.log(s)
        - df * s**2 / 2
    )
    weights = w * (high - low) / 2 * np.exp(log_density)
    return s, weights / weights.sum()


@lru_cache(maxsize=256)
def _loadings(data: bytes, size: int) -> Vector:
    """The λ whose products come nearest to the correlations: one factor, by principal axes."""
    correlation_KK = np.frombuffer(data).reshape(size, size)
    if size == 2:
        r = float(correlation_KK[0, 1])
        return np.array([np.sqrt(abs(r)), np.copysign(np.sqrt(abs(r)), r)])
    off = correlation_KK - np.eye(size)
    shared = np.abs(off).max(axis=1)
    loadings = np.sqrt(shared)
    for _ in range(2000):
        values, vectors = np.linalg.eigh(off + np.diag(shared))
        loadings = np.sqrt(max(values[-1], 0.0)) * vectors[:, -1]
        renewed = np.minimum(loadings**2, 0.999)
        if np.abs(renewed - shared).max() < 1e-12:
            break
        shared = renewed
    bounded = np.clip(loadings, -np.sqrt(0.999), np.sqrt(0.999))
    return np.asarray(bounded * (1 if bounded.sum() >= 0 else -1))


def _product(loadings_K: Vector) -> Vector:
    nearest_KK = np.outer(loadings_K, loadings_K)
    np.fill_diagonal(nearest_KK, 1.0)
    return nearest_KK


@lru_cache(maxsize=64)
def _largest(exact: bytes, near: bytes, df: int, sided: Sided) -> tuple[Vector, Vector]:
    """The largest statistic at each point, for two correlations driven by the same points."""
    size = round(np.sqrt(len(exact) / 8))
    points = qmc.Sobol(size + 1, rng=np.random.default_rng(0)).random(_NUM_POINTS)
    uniform = np.clip(points, 1e-12, 1 - 1e-12)
    normal = special.ndtri(uniform[:, :size])
    scale = np.sqrt(special.chdtri(df, uniform[:, size]) / df)
    found = []
    for data in (exact, near):
        correlation_KK = np.frombuffer(data).reshape(size, size)
        root = np.linalg.cholesky(correlation_KK + 1e-9 * np.eye(size))
        values = normal @ root.T
        values = np.abs(values) if sided == "two" else values
        found.append(values.max(axis=1) / scale)
    return found[0], found[1]
