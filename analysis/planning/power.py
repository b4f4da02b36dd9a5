"""Power of a design: the smallest effect that it resolves, and the seeds that an effect needs.

Power here is *per comparison, at the family-wise level*: the probability that one activation that
truly differs from the reference by ``effect`` is resolved by an interval that is simultaneous over
all k comparisons of the grid. S seeds, A activations, k = A − 1. Three designs:

*block*     The primary analysis (``analysis.stats.compare``): a seed gives every activation the
            same weights and data, and the wider of two intervals counts: Dunnett's, of the noise
            pooled with (S − 1)(A − 1) degrees of freedom, and one that does not take the noise as
            alike.
*pooled*    Dunnett's interval alone: the statistic follows a noncentral t with noncentrality
            effect / (sd · √(2 / S)) (Dunnett 1955; Cohen 1988, chapter 2). What the second interval
            costs is the difference to this.
*unpaired*  Dunnett's interval too, but every activation has seeds of its own: the spread between
            seeds stays in, pooled with A (S − 1) degrees of freedom. What pairing buys is the
            difference to *pooled*.

Expectations over the estimate of the noise are sums over nodes: how many *true* standard errors the
bound is away that a difference must exceed, and how probable each distance is. For Dunnett's
interval the bound is its quantile times the estimated noise; for the wider of the two intervals the
nodes are simulated.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
from scipy import optimize, special, stats

from analysis.models.block_model import Reals
from analysis.models.dunnett import quantile
from analysis.models.interval import LEVEL
from analysis.models.own_variances import Variances
from analysis.models.unequal_variance import variances_of_differences

Kind = Literal["block", "pooled", "unpaired"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Nodes = tuple[Reals, Reals]

MOST_SEEDS = 100_000
NODES = 120  # Gauss–Legendre; 60 agree with 240 to ten digits
_LEGENDRE = np.polynomial.legendre.leggauss(NODES)
DRAWS = 20_000
SIMULATED = 0.02  # of power: more than five standard deviations of a mean over so many draws
SEED = 1955


@dataclass(frozen=True, slots=True)
class Design:
    """A full grid: ``n`` seeds of ``num_activations``, of which one is the reference.

    ``num_activations`` counts a function once. ``noise_df``: degrees of freedom that the noise is
    estimated with.

    >>> design = Design("block", 3, 11)
    >>> design.comparisons, design.noise_df
    (10, 20)
    """

    kind: Kind
    n: int
    num_activations: int
    level: float = LEVEL

    @property
    def comparisons(self) -> int:
        return self.num_activations - 1

    @property
    def noise_df(self) -> int:
        unpaired = self.kind == "unpaired"
        return (self.n - 1) * (self.num_activations if unpaired else self.comparisons)

    @property
    def bound(self) -> Nodes:
        """How many true standard errors the bound is away, and how probable each distance is."""
        if self.kind != "block" or self.comparisons == 1:  # two activations need no second one
            dunnett = critical_value(self.comparisons, self.noise_df, self.level)
            return _pooled_bound(dunnett, self.noise_df)
        return _wider_bound(self.n, self.comparisons, self.level)


def power_of(effect: float, design: Design, noise_sd: float) -> float:
    """The probability that a true difference of ``effect`` is resolved; both in the same unit.

    At effect 0 it is what one comparison spends of 1 − level.
    """
    centre = effect / (noise_sd * math.sqrt(2 / design.n))
    bound, weights = design.bound
    resolved = special.ndtr(centre - bound) + special.ndtr(-centre - bound)
    return float(resolved @ weights)


def smallest_effect(design: Design, noise_sd: float, *, power: float = 0.8) -> float:
    """The difference that is resolved with probability ``power``, in the unit of ``noise_sd``."""
    unit = math.sqrt(2 / design.n)  # one standard error, at noise of 1
    most = unit
    while power_of(most, design, 1.0) < power:
        most *= 2
    root = optimize.brentq(lambda effect: power_of(effect, design, 1.0) - power, 0.0, most)
    return float(root) * noise_sd


def seeds_needed(
    effect: float, design: Design, noise_sd: float, *, power: float = 0.8
) -> int | None:
    """The fewest seeds, at least 2, with which ``design`` resolves ``effect`` with ``power``.

    None where even 100,000 do not.
    """

    def suffices(n: int) -> bool:
        here = replace(design, n=n)
        # The wider of two intervals resolves no more than Dunnett's alone, which is not simulated.
        if here.kind == "block" and power_of(effect, replace(here, kind="pooled"), noise_sd) < (
            power - SIMULATED
        ):
            return False
        return power_of(effect, here, noise_sd) >= power

    most = 2
    while not suffices(most):
        most *= 2
        if most > MOST_SEEDS:
            return None
    fewest = most // 2
    while most - fewest > 1:  # fewest does not suffice, most does
        middle = (fewest + most) // 2
        fewest, most = (fewest, middle) if suffices(middle) else (middle, most)
    return most


def critical_value(k: int, df: int, level: float) -> float:
    """Dunnett's (1955) c with P(max |t_i| ≤ c) = ``level`` over ``k`` comparisons.

    Equally many scores of every activation: any two comparisons correlate by 1/2.
    """
    return quantile(np.full((k, k), 0.5) + np.eye(k) / 2, df, level)


@lru_cache(maxsize=1024)
def _pooled_bound(critical: float, df: int) -> Nodes:
    """The bound ``critical`` estimated standard errors: critical · s, s = √(χ²(df) / df)."""
    nodes, weights = _LEGENDRE
    low, high = np.sqrt(stats.chi2.ppf(1e-16, df)), np.sqrt(stats.chi2.isf(1e-16, df))
    half, middle = (high - low) / 2, (high + low) / 2
    chi = middle + half * nodes
    return critical * chi / np.sqrt(df), half * weights * stats.chi.pdf(chi, df)


@lru_cache(maxsize=128)
def _wider_bound(num_seeds: int, comparisons: int, level: float) -> Nodes:
    """The wider interval of the primary analysis: complete blocks, equal variances, k ≥ 2.

    Simulated with a fixed seed: ``DRAWS`` data sets give the null distribution of the second
    interval, as ``unequal_variance.null_distribution`` does for any design, and the widths of both.
    Given the bound, power is exact, since means are independent of the residuals that a bound is
    made of.
    """
    num_activations, df = comparisons + 1, (num_seeds - 1) * comparisons
    rng = np.random.default_rng(SEED)
    of_activations = _variances(num_seeds, num_activations, rng)
    weight_KA = np.concatenate([np.ones((comparisons, 1)), np.eye(comparisons)], axis=1) / num_seeds
    variance_DK, df_DK = variances_of_differences(weight_KA, of_activations, (num_seeds - 1, df))
    error_DK = np.sqrt(variance_DK)
    means_DA = rng.standard_normal((DRAWS, num_activations)) / math.sqrt(num_seeds)
    t_DK = np.abs(means_DA[:, 1:] - means_DA[:, :1]) / error_DK
    least_p = np.quantile(_least_p(t_DK, df_DK, 1 - level), 1 - level)
    second_D = -special.stdtrit(df_DK[:, 0], least_p / 2) * error_DK[:, 0]
    dunnett_D = critical_value(comparisons, df, level) * np.sqrt(of_activations.pooled_D)
    bound_D = np.maximum(second_D / math.sqrt(2 / num_seeds), dunnett_D)
    return bound_D, np.full(DRAWS, 1 / DRAWS)


def _least_p(t_DK: Reals, df_DK: Reals, share: float) -> Reals:
    """The least two-sided p of each draw: exact in the lowest ``share`` of draws, which is asked.

    A p lies between that of a normal variable and that of t with the fewest degrees of freedom; so
    most need not be computed, which took a third of the time.
    """
    last = math.ceil(share * (len(t_DK) - 1))
    most_D = 2 * special.stdtr(df_DK.min(), -t_DK.max(axis=1))
    near = t_DK >= -special.ndtri(np.partition(most_D, last)[last] / 2) - 1e-9
    p_DK = np.ones_like(t_DK)
    p_DK[near] = 2 * special.stdtr(df_DK[near], -t_DK[near])
    return np.asarray(p_DK.min(axis=1))


def _variances(num_seeds: int, num_activations: int, rng: np.random.Generator) -> Variances:
    """What ``variances`` gives of ``DRAWS`` complete data sets of noise 1, without their scores.

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
    root_DAR -= root_DAR.mean(axis=1, keepdims=True)
    sum_DA = np.square(root_DAR, out=root_DAR).sum(axis=2)
    added_DA, total_D = sum_DA * size / (size - 1), sum_DA.sum(axis=1)
    rest_df = df * (size - 2)
    rest_DA = (total_D[:, None] - added_DA) / rest_df
    return Variances(added_DA / df, rest_DA, total_D / (df * (size - 1)))
