"""Differences along a fitted curve: which are resolved, and which places may be the lowest.

A difference of the fit between two slopes is a sum over all scores, so its variance is a sum over
the variances of the activations. Where noise is not alike, the ends of the axis carry most of it,
and where an end is noisier the pooled noise resolves differences on flat curves far too often. So a
difference counts only if two statistics say so, as in ``analysis.models.unequal_variance``: one
with the pooled variance, and one with each activation's own (degrees of freedom after Satterthwaite
1946).

Each statistic is a t, taken to the normal deviate of about the same probability (Wallace 1959), so
that differences of unlike degrees of freedom are comparable. Of a family of differences the largest
deviate is judged by its distribution on a flat curve in this very design, from ``NUM_DRAWS``
simulated grids of fixed seed. The own statistic is judged by the worst of four kinds of noise:
alike, three times as large at either end of the axis, and at both. Where it is judged by noise that
is alike, 7 to 9 % of flat grids of three seeds with noisy ends show a difference.

The families: a place is not the lowest if it is above any tested slope or any middle between two
(one-sided; the multiple comparison with the best, Hsu 1984, carried over to a curve: a true minimum
is below every place, so it is kept with the nominal probability or more, whatever the curve); all
pairs of tested slopes; and all tested slopes against a reference slope.

Letters: D data sets, N scores, A activations, G places on the axis, T tested slopes, M tested
slopes and the middles between them, F places from which a difference to the M is taken.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from analysis.models.block_model import Reals
from analysis.models.curve_fit import CurveFit
from analysis.models.least_squares import Flags
from analysis.models.own_variances import NoiseGeometry, noise_geometry, variances
from analysis.models.unequal_variance import t_statistics

NUM_DRAWS = 4_999  # so that draws + 1 is a multiple of what the usual levels divide
NOISIER = 3.0  # times the sd of the others, at an end of the axis
_CHUNK = 500
_ROUNDING = 1e-12
_SEED = 19_590_901


@dataclass(frozen=True, slots=True, eq=False)
class FromReference:
    """Differences of the fit from the reference slope, simultaneous over the T tested slopes.

    ``p_value_T`` is adjusted; ``half_width_G``: of the same intervals at G places.
    """

    difference_T: Reals
    half_width_T: Reals
    p_value_T: Reals
    half_width_G: Reals


@dataclass(frozen=True, slots=True, eq=False)
class CurveContrasts:
    """What a fit says of differences between slopes.

    ``kept_G``: which places may be the lowest; the lowest of the fit always is. ``pairs_p``: of the
    two tested slopes that differ most, adjusted over all pairs. ``largest``: the largest difference
    between two that the scores leave possible.
    """

    kept_G: Flags
    pairs_p: float
    largest: float
    from_reference: FromReference | None


def curve_contrasts(
    fit: CurveFit,
    places_G: Reals,
    *,
    level: float,
    reference: float | None = None,
    reference_level: float | None = None,
) -> CurveContrasts:
    """All three families at ``level``, or that of the reference at a level of its own.

    ``reference``: a tested slope, or None.
    ``places_G`` lie between tested slopes; where the fit has no degree they are the tested ones.
    """
    design = Design(fit, reference)
    centred_DN = (fit.cells.values_N - fit.cells.values_N.mean())[None]  # digits for differences
    places = differences(design, fit.estimators(places_G), centred_DN)
    middles = differences(design, design.place_MN, centred_DN)
    slopes_TT = np.ix_(design.is_tested_M, design.is_tested_M)
    apart_TT = np.abs(middles.value_DFM[0][slopes_TT])
    kept_G, pairs_p, width_TT = np.zeros(places_G.size, dtype=bool), 0.0, np.zeros(apart_TT.shape)
    for statistic, null in enumerate(null_distributions(design)):
        allowed_M = null.critical(null.above_KDM, level)
        above_G = places.deviates(statistic)[0].max(axis=1)
        kept_G |= above_G <= np.interp(places_G, design.place_M, allowed_M)
        largest = middles.deviates(statistic)[0][slopes_TT].max()
        pairs_p = max(pairs_p, float(null.adjusted_p(null.pairs_KD, largest)))
        width_MM = middles.half_widths(statistic, null.critical(null.pairs_KD, level))[0]
        width_TT = np.maximum(width_TT, width_MM[slopes_TT])
    return CurveContrasts(
        kept_G=kept_G,
        pairs_p=pairs_p,
        largest=float((apart_TT + width_TT).max()),
        from_reference=_from_reference(design, places, middles, reference_level or level),
    )


def _from_reference(
    design: "Design", places: "Differences", middles: "Differences", level: float
) -> FromReference | None:
    if design.reference is None:
        return None
    at, of_slopes_T = (0, slice(None), design.reference), design.is_tested_M
    difference_T = middles.value_DFM[at][of_slopes_T]
    p_T, width_T = np.zeros(difference_T.size), np.zeros(difference_T.size)
    width_G = np.zeros(places.value_DFM.shape[1])
    for statistic, null in enumerate(null_distributions(design)):
        critical = null.critical(null.reference_KD, level)
        deviates_T = np.abs(middles.deviates(statistic)[at][of_slopes_T])
        p_T = np.maximum(p_T, null.adjusted_p(null.reference_KD, deviates_T))
        width_T = np.maximum(width_T, middles.half_widths(statistic, critical)[at][of_slopes_T])
        width_G = np.maximum(width_G, places.half_widths(statistic, critical)[at])
    return FromReference(difference_T, width_T, p_T, width_G)


class Design:
    """The linear maps of a fit; equal where the distributions of its statistics are."""

    def __init__(self, fit: CurveFit, reference: float | None) -> None:
        cells, tested_T = fit.cells, fit.cells.tested
        middles = (tested_T[1:] + tested_T[:-1]) / 2
        self.place_M = tested_T if fit.degree is None else np.union1d(tested_T, middles)
        self.is_tested_M = np.isin(self.place_M, tested_T)
        self.place_MN = fit.estimators(self.place_M)
        self.reference = None if reference is None else self.place_M.tolist().index(reference)
        self.ends = [int(np.flatnonzero(cells.slope_A == end)[0]) for end in tested_T[[0, -1]]]
        self.model_NP, self.activation_N = cells.design(None), cells.activation_N
        arrays = (self.place_MN, self.is_tested_M, self.model_NP, self.activation_N)
        facts = [self.reference, self.ends, [array.shape for array in arrays]]
        self._bytes = repr(facts).encode() + b"".join(array.tobytes() for array in arrays)

    def __hash__(self) -> int:
        return hash(self._bytes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Design) and self._bytes == other._bytes


@lru_cache(maxsize=32)  # a simulation asks for the same design thousands of times
def geometry_of(design: Design) -> NoiseGeometry:
    """How scores of ``design`` become variances."""
    return noise_geometry(design.model_NP, design.activation_N)


@dataclass(frozen=True, slots=True, eq=False)
class Differences:
    """Of D data sets: the fit at F places less that at the M; and of both statistics, the
    pooled one first, its standard error and its degrees of freedom.
    """

    value_DFM: Reals
    error_DFM: tuple[Reals, Reals]
    df_DFM: tuple[Reals, Reals]

    def deviates(self, statistic: int) -> Reals:
        """The normal deviates of the t statistics; 0 of a slope from itself."""
        df_DFM = self.df_DFM[statistic]
        t_DFM = np.clip(t_statistics(self.value_DFM, self.error_DFM[statistic]), -1e9, 1e9)
        size_DFM = np.sqrt(df_DFM * np.log1p(t_DFM**2 / df_DFM))
        return np.asarray(np.sign(t_DFM) * size_DFM * _wallace(df_DFM))

    def half_widths(self, statistic: int, critical: Reals) -> Reals:
        """How far apart two places must be for a deviate of ``critical``."""
        df_DFM = self.df_DFM[statistic]
        size_DFM = np.expm1((critical / _wallace(df_DFM)) ** 2 / df_DFM)
        return np.asarray(np.sqrt(df_DFM * size_DFM) * self.error_DFM[statistic])


def differences(design: Design, places_FN: Reals, scores_DN: Reals) -> Differences:
    """Between ``places_FN`` and the M places of ``design``, for each row of scores."""
    rows_FMN = places_FN[:, None, :] - design.place_MN[None, :, :]
    rows_FMN[np.abs(rows_FMN) < _ROUNDING] = 0.0  # a place from itself
    noise, num_activations = geometry_of(design), int(design.activation_N.max()) + 1
    weight_FMA = rows_FMN**2 @ np.eye(num_activations)[design.activation_N]
    found = variances(noise, scores_DN)
    pooled_DFM = found.pooled_D[:, None, None] * weight_FMA.sum(axis=2)
    own_DA = found.unbiased
    df_A = np.where(noise.added_df_A > 0, noise.added_df_A, noise.residual_df)
    own_DFM = np.tensordot(own_DA, weight_FMA, (1, 2))
    spread_DFM = np.tensordot(own_DA**2 / df_A, weight_FMA**2, (1, 2))
    own_df_DFM = np.where(spread_DFM > 0, own_DFM**2, 1) / np.where(spread_DFM > 0, spread_DFM, 1)
    return Differences(
        value_DFM=np.tensordot(scores_DN, rows_FMN, (1, 2)),
        error_DFM=(np.sqrt(pooled_DFM), np.sqrt(own_DFM)),
        df_DFM=(np.full(pooled_DFM.shape, float(noise.residual_df)), own_df_DFM),
    )


@dataclass(frozen=True, slots=True, eq=False)
class NullDistribution:
    """Of one statistic: the largest deviates on D flat curves under K kinds of noise, ascending.

    From each of M places down to the others, between tested slopes, and from the reference.
    """

    above_KDM: Reals
    pairs_KD: Reals
    reference_KD: Reals

    @staticmethod
    def critical(largest_KD: Reals, level: float) -> Reals:
        """What no deviate exceeds with probability ``level``, in the worst of the noises."""
        rank = math.ceil(level * (largest_KD.shape[1] + 1) - 1e-9)
        return np.asarray(largest_KD[:, rank - 1].max(axis=0))

    @staticmethod
    def adjusted_p(largest_KD: Reals, deviates: Reals) -> Reals:
        """How often the largest of a null grid is as large, counting the grid at hand."""
        num_draws = largest_KD.shape[1]
        below_K = [np.searchsorted(largest_D, deviates) for largest_D in largest_KD]
        return np.asarray((1 + num_draws - np.min(below_K, axis=0)) / (num_draws + 1))


@lru_cache(maxsize=32)
def null_distributions(design: Design) -> tuple[NullDistribution, NullDistribution]:
    """Of the pooled statistic (noise that is alike), and of the own one (the four kinds)."""
    low, high = design.ends
    kinds: list[list[int]] = [[], [low], [high], [low, high]]
    return (_simulated(design, 0, kinds[:1]), _simulated(design, 1, kinds))


def _simulated(design: Design, statistic: int, kinds: Sequence[list[int]]) -> NullDistribution:
    above_KDM, pairs_KD, reference_KD = [], [], []
    for noisier in kinds:
        rng = np.random.default_rng(_SEED)
        sd_A = np.ones(int(design.activation_N.max()) + 1)
        sd_A[noisier] = NOISIER
        above_DM, pairs_D, reference_D = [], [], []
        for start in range(0, NUM_DRAWS, _CHUNK):
            shape = (min(_CHUNK, NUM_DRAWS - start), design.activation_N.size)
            scores_DN = rng.standard_normal(shape) * sd_A[design.activation_N]
            deviates_DMM = differences(design, design.place_MN, scores_DN).deviates(statistic)
            above_DM.append(deviates_DMM.max(axis=2))
            slopes_DTM = deviates_DMM[:, design.is_tested_M]
            pairs_D.append(slopes_DTM[:, :, design.is_tested_M].max(axis=(1, 2)))
            reference_D.append(np.abs(slopes_DTM[:, :, design.reference or 0]).max(axis=1))
        above_KDM.append(np.sort(np.concatenate(above_DM), axis=0))
        pairs_KD.append(np.sort(np.concatenate(pairs_D)))
        reference_KD.append(np.sort(np.concatenate(reference_D)))
    return NullDistribution(*map(np.array, (above_KDM, pairs_KD, reference_KD)))


def _wallace(df: Reals) -> Reals:
    return np.asarray((8 * df + 1) / (8 * df + 3))
