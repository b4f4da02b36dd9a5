"""How many standard errors must one of k differences from one reference exceed to be resolved?

Dunnett's (1955) two-sided quantile for equally many scores of every treatment: the k statistics
share the reference, so that any two correlate by 1/2.
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from analysis.interval import t_quantile

NODES = 120  # Gauss–Legendre; 60 agree with 240 to ten digits
WITHIN_SD = 9.0  # the normal distribution beyond weighs 2e-19


@lru_cache(maxsize=4096)
def critical_value(k: int, df: int, level: float) -> float:
    """The c with P(max |t_i| ≤ c) = ``level`` over ``k`` comparisons, ``df`` degrees of freedom."""
    if k == 1:
        return t_quantile(level, df)
    least, most = t_quantile(level, df), t_quantile(level ** (1 / k), df)  # none shared, all apart
    return float(optimize.brentq(lambda c: _within(c, k, df) - level, least, most, xtol=1e-10))


@lru_cache(maxsize=4096)
def sd_nodes(df: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes s and weights of an expectation over s = √(χ²(df) / df), an estimated sd of truth 1."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    low, high = stats.chi2.ppf(1e-16, df), stats.chi2.isf(1e-16, df)
    half, middle = (np.sqrt(high) - np.sqrt(low)) / 2, (np.sqrt(high) + np.sqrt(low)) / 2
    chi = middle + half * nodes
    return chi / np.sqrt(df), half * weights * stats.chi.pdf(chi, df)


def _within(c: float, k: int, df: int) -> float:
    """P(|Z_i − Z_0| ≤ √2 · c · s for all i), integrated over Z_0 and s."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    z = WITHIN_SD * nodes
    s, of_s = sd_nodes(df)
    reach = math.sqrt(2) * c * s[:, None]
    inside = (special.ndtr(z + reach) - special.ndtr(z - reach)) ** k
    over_z = inside @ (WITHIN_SD * weights * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi))
    return float(over_z @ of_s)
