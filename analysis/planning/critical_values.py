"""How many standard errors must one of k differences exceed to be resolved, in a complete design?

Expectations over the estimate of the noise are sums over nodes: ``reach``, how many *true* standard
errors the bound is away, and how probable each is. Where activations are compared with a pooled
noise alone, the bound is Dunnett's quantile times the estimated noise; the primary analysis takes
the wider of that and of a second interval (``analysis.models.unequal_variance``), whose nodes are
simulated.
"""

import math
from functools import lru_cache

import numpy as np
from scipy import special, stats

from analysis.models.block_model import Reals
from analysis.models.dunnett import quantile
from analysis.models.unequal_variance import of_differences

NODES = 120  # Gauss–Legendre; 60 agree with 240 to ten digits
DRAWS = 20_000
SEED = 1955

Nodes = tuple[Reals, Reals]


def critical_value(k: int, df: int, level: float) -> float:
    """Dunnett's (1955) c with P(max |t_i| ≤ c) = ``level`` over ``k`` comparisons.

    Equally many scores of every activation: any two comparisons correlate by 1/2.
    """
    return quantile(np.full((k, k), 0.5) + np.eye(k) / 2, df, level)


@lru_cache(maxsize=1024)
def pooled_reach(critical: float, df: int) -> Nodes:
    """Of a bound of ``critical`` estimated standard errors: critical · s, s = √(χ²(df) / df)."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    low, high = np.sqrt(stats.chi2.ppf(1e-16, df)), np.sqrt(stats.chi2.isf(1e-16, df))
    half, middle = (high - low) / 2, (high + low) / 2
    chi = middle + half * nodes
    return critical * chi / np.sqrt(df), half * weights * stats.chi.pdf(chi, df)


@lru_cache(maxsize=128)
def guarded_reach(num_seeds: int, comparisons: int, level: float) -> Nodes:
    """Of the wider interval of the primary analysis: complete blocks, equal variances, k ≥ 2.

    Simulated with a fixed seed: ``DRAWS`` data sets give the null distribution of the second
    interval, as ``guard.calibration_of`` does for any design, and the widths of both. Given the
    bound, power is exact, since means are independent of the residuals that a bound is made of.
    """
    num_activations, df = comparisons + 1, (num_seeds - 1) * comparisons
    rng = np.random.default_rng(SEED)
    of_activations = _variances(num_seeds, num_activations, rng)
    weight_KA = np.concatenate([np.ones((comparisons, 1)), np.eye(comparisons)], axis=1) / num_seeds
    variance_DK, df_DK = of_differences(weight_KA, of_activations, (num_seeds - 1, df))
    error_DK = np.sqrt(variance_DK)
    means_DA = rng.standard_normal((DRAWS, num_activations)) / math.sqrt(num_seeds)
    t_DK = np.abs(means_DA[:, 1:] - means_DA[:, :1]) / error_DK
    least_p = np.quantile(2 * special.stdtr(df_DK, -t_DK).min(axis=1), 1 - level)
    second_D = -special.stdtrit(df_DK[:, 0], least_p / 2) * error_DK[:, 0]
    dunnett_D = critical_value(comparisons, df, level) * np.sqrt(of_activations[2])
    reach = np.maximum(second_D / math.sqrt(2 / num_seeds), dunnett_D)
    return reach, np.full(DRAWS, 1 / DRAWS)


def _variances(
    num_seeds: int, num_activations: int, rng: np.random.Generator
) -> tuple[Reals, Reals, Reals]:
    """``geometry.variances`` of ``DRAWS`` complete data sets of noise 1, without their scores.

    Residuals enter by their products between activations only, which are Wishart distributed with
    S − 1 degrees of freedom: a root of them has at most A columns (Bartlett 1933), for any S.
    """
    size, df = num_activations, num_seeds - 1
    if df < size:
        root_DAR = rng.standard_normal((DRAWS, size, df))
    else:
        root_DAR = np.tril(rng.standard_normal((DRAWS, size, size)), -1)
        on = np.arange(size)
        root_DAR[:, on, on] = np.sqrt(rng.chisquare(df - on, (DRAWS, size)))
    left_DAR = root_DAR - root_DAR.mean(axis=1, keepdims=True)
    sum_DA = (left_DAR**2).sum(axis=2)
    added_DA, total_D = sum_DA * size / (size - 1), sum_DA.sum(axis=1)
    rest_df = df * (size - 2)
    return added_DA / df, (total_D[:, None] - added_DA) / rest_df, total_D / (df * (size - 1))
