"""The interval of unequal variances: a second one for each difference, where noise is not alike.

The pooled interval takes the noise as alike for all activations. Where it is not, it errs by much:
with a reference three times as noisy, 12 activations and 3 seeds, 26 % of null sweeps call some
difference real instead of 5 %. A test of equal variances first does not help: three seeds give it
too little power (20 % remain with Bartlett's at the 10 % level). So an activation counts as
resolved only if a second interval excludes zero too, whatever the test says. Its variance is

    w_0 v_0 + Σ_a w_a max(v_a, s²)

s² is the pooled variance, w are the weights that the design gives (1/n for the reference and 1/n
for the activation where it is complete), v_a is activation a's own variance against all others.
Every comparison has the reference in it, so its variance is its own, with the few degrees of
freedom that it has; an activation's may exceed the pooled one and not fall below it. Degrees of
freedom are Satterthwaite's (1946). The quantile over all comparisons is the one that this statistic
has in this design under equal variances, from ``NUM_DRAWS`` simulated data sets of fixed seed
(standard error 0.0016 at a level of 0.05).

Letters: D data sets, N scores, P columns of the model, A activations (0 is the reference), K
compared activations.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

from analysis.models.block_model import Blocked, Reals, contrast_matrix
from analysis.models.own_variances import (
    NoiseGeometry,
    Variances,
    noise_geometry,
    noisier,
    variances,
)

NUM_DRAWS = 19_999  # so that draws + 1 is a multiple of what the usual levels divide
_CHUNK = 4_000
_SEED = 20_240_601
_FAR = 1e300  # a t statistic without noise


@dataclass(frozen=True, slots=True, eq=False)
class Geometry:
    """The linear maps of one design."""

    estimate_KN: Reals  # a difference is estimate · scores
    weight_KA: Reals  # its variance is weight · variances
    noise: NoiseGeometry

    @property
    def has_interval(self) -> bool:
        """Whether the reference has a variance of its own, and others to be compared with."""
        own = bool(self.noise.added_df_A[0] > 0)
        return self.noise.has_rest and own and len(self.estimate_KN) > 0


class DesignKey:
    """A design as a key of a cache: equal where its numbers are."""

    def __init__(self, rows: Blocked) -> None:
        self.matrix_NP, self.activation_N = rows.matrix(), rows.activation_N
        self.contrast_KP = contrast_matrix(rows)
        parts = (self.matrix_NP, self.contrast_KP, self.activation_N)
        self._bytes = b"|".join(str(part.shape).encode() + part.tobytes() for part in parts)

    def __hash__(self) -> int:
        return hash(self._bytes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DesignKey) and self._bytes == other._bytes


@lru_cache(maxsize=64)
def geometry_of(key: DesignKey) -> Geometry:
    """The geometry of a design; its differences are those that can be estimated."""
    estimate_KN = key.contrast_KP @ np.linalg.pinv(key.matrix_NP)
    membership_NA = np.eye(key.activation_N.max() + 1)[key.activation_N]
    return Geometry(
        estimate_KN=estimate_KN,
        weight_KA=estimate_KN**2 @ membership_NA,
        noise=noise_geometry(key.matrix_NP, key.activation_N),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Interval:
    """Of K comparisons: half widths, and p values adjusted over all of them."""

    half_width_K: Reals
    p_value_K: Reals


@dataclass(frozen=True, slots=True, eq=False)
class NullDistribution:
    """Under equal variances: per simulated data set, the least p over comparisons; ascending."""

    two_sided: Reals
    one_sided: Reals
    noisiest: Reals  # the least p, over activations, of being noisier than the others


def unequal_variance_interval(rows: Blocked, *, level: float) -> Interval | None:
    """The second interval for the differences of ``rows`` that can be estimated, two-sided.

    None where the reference has no variance of its own (a single pair), and for two activations:
    there the pooled interval is the paired one already.
    """
    key = DesignKey(rows)
    if not geometry_of(key).has_interval:
        return None
    estimate_K, variance_K, df_K = _of_scores(key, rows)
    null = null_distribution(key).two_sided
    return Interval(
        half_width_K=half_widths(variance_K, df_K, null, level),
        p_value_K=adjusted(
            2 * special.stdtr(df_K, -np.abs(t_statistics(estimate_K, np.sqrt(variance_K)))), null
        ),
    )


def unequal_variance_p_below(rows: Blocked, bound: float) -> Reals | None:
    """p that each difference is below ``bound``, one-sided, adjusted over the K; None as above."""
    key = DesignKey(rows)
    if not geometry_of(key).has_interval:
        return None
    estimate_K, variance_K, df_K = _of_scores(key, rows)
    t_K = t_statistics(estimate_K - bound, np.sqrt(variance_K))
    return adjusted(special.stdtr(df_K, t_K), null_distribution(key).one_sided)


@lru_cache(maxsize=64)
def null_distribution(key: DesignKey) -> NullDistribution:
    """The null distributions of a design."""
    geometry = geometry_of(key)
    rng = np.random.default_rng(_SEED)
    two, one, noisiest = [], [], []
    for size in _chunks(NUM_DRAWS):
        scores_DN = rng.standard_normal((size, key.activation_N.size))
        if geometry.has_interval:
            estimate_DK, variance_DK, df_DK = difference_variances(geometry, scores_DN)
            p_DK = special.stdtr(df_DK, t_statistics(estimate_DK, np.sqrt(variance_DK)))
            one.append(p_DK.min(axis=1))
            two.append(2 * np.minimum(p_DK, 1 - p_DK).min(axis=1))
        if geometry.noise.has_rest:
            found = variances(geometry.noise, scores_DN)
            noisiest.append(np.nanmin(noisier(geometry.noise, found), axis=1))
    return NullDistribution(
        *(np.sort(np.concatenate(p or [np.ones(1)])) for p in (two, one, noisiest))
    )


def half_widths(variance_K: Reals, df_K: Reals, null: Reals, level: float) -> Reals:
    """Half widths of any number of differences; ``null``: two-sided, of their design."""
    at = max(0, math.floor(round((1 - level) * (null.size + 1), 6)) - 1)
    return np.asarray(-special.stdtrit(df_K, null[at] / 2) * np.sqrt(variance_K))


def adjusted(p: Reals, null: Reals) -> Reals:
    """How often the least p of a null data set is as small, counting the data set at hand."""
    below: NDArray[np.int64] = np.searchsorted(null, p, side="right")
    return np.asarray((1 + below) / (null.size + 1))


def t_statistics(estimate: Reals, error: Reals) -> Reals:
    """estimate / error; without any noise, a difference is as far out as can be.

    >>> t_statistics(np.array([1.0, 2.0, 0.0]), np.array([0.5, 0.0, 0.0]))
    array([2.e+000, 1.e+300, 0.e+000])
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(estimate / error, nan=0.0, posinf=_FAR, neginf=-_FAR)


def difference_variances(geometry: Geometry, scores_DN: Reals) -> tuple[Reals, Reals, Reals]:
    """Of each data set: the differences, their variances, and the degrees of freedom of those."""
    total_DK, df_DK = variances_of_differences(
        geometry.weight_KA,
        variances(geometry.noise, scores_DN),
        (int(geometry.noise.added_df_A[0]), geometry.noise.residual_df),
    )
    return scores_DN @ geometry.estimate_KN.T, total_DK, df_DK


def variances_of_differences(
    weight_KA: Reals, found: Variances, df: tuple[int, int]
) -> tuple[Reals, Reals]:
    """Variance and degrees of freedom of each difference, from those of the activations.

    ``df``: of the reference's own variance, and of the pooled one.
    """
    variance_DA = found.unbiased
    floored_DA = np.maximum(variance_DA, found.pooled_D[:, None])
    reference_DK = variance_DA[:, :1] * weight_KA[:, 0]
    others_DK = floored_DA[:, 1:] @ weight_KA[:, 1:].T
    total_DK = reference_DK + others_DK
    share_DK = reference_DK / np.where(total_DK > 0, total_DK, 1.0)
    return total_DK, 1 / (share_DK**2 / df[0] + (1 - share_DK) ** 2 / df[1])


def _of_scores(key: DesignKey, rows: Blocked) -> tuple[Reals, Reals, Reals]:
    """Of the scores at hand: the K differences, their variances, and the degrees of freedom."""
    centred_DN = (rows.score_N - rows.score_N.mean())[None, :]
    estimate_DK, variance_DK, df_DK = difference_variances(geometry_of(key), centred_DN)
    return estimate_DK[0], variance_DK[0], df_DK[0]


def _chunks(total: int) -> list[int]:
    return [min(_CHUNK, total - start) for start in range(0, total, _CHUNK)]
