"""The comparisons of thousands of complete sweeps at once, as ``compare`` makes those of each.

The same functions of ``analysis`` (geometry, both intervals, their quantiles) on thousands of data
sets, without a frame for each: a sweep takes microseconds instead of 30 ms. That the answer is that
of ``compare`` is checked on a sweep of every batch, to nine digits.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.models.block_model import Blocked, Pairing, Reals, fit_blocks
from analysis.models.dunnett import quantile
from analysis.models.own_variances import variances
from analysis.models.unequal_variance import (
    DesignKey,
    difference_variances,
    geometry_of,
    half_widths,
    null_distribution,
)
from analysis.rows.stages import PRIMARY
from analysis.stats.compare import compare
from analysis.stats.ranking import same_functions
from analysis.study import Study

LEVEL = 0.95


@dataclass(frozen=True, slots=True, eq=False)
class Comparisons:
    """Of D sweeps and K compared activations: differences from the reference, and half widths."""

    keys: tuple[str, ...]  # of the K
    difference_DK: Reals
    half_width_DK: Reals
    pooled_DK: Reals


def compare_many(
    frame: pd.DataFrame, reference: str, pairing: Pairing = "seed", quantity: str = PRIMARY
) -> Comparisons:
    """Every setting of ``frame`` (alike, complete, in the same order of rows) as one sweep.

    RuntimeError where ``compare`` says anything else of the first of them.
    """
    num_sweeps = frame["setting"].nunique()
    cells = frame.iloc[: len(frame) // num_sweeps]
    functions = set(same_functions(cells, reference).values())
    keys = (reference, *sorted(functions - {reference}))
    rows = cells.reset_index(drop=True)
    rows = rows[rows["key"].isin(keys)]
    place = rows.assign(
        seed_code=pd.factorize(rows["seed"])[0],
        activation=[keys.index(key) for key in rows["key"]],
    ).sort_values(["seed_code", "activation"])
    scores_DN = frame[quantity].to_numpy(dtype=float).reshape(num_sweeps, -1)[:, place.index]
    num_seeds = scores_DN.shape[1] // len(keys)
    found = intervals(complete_blocks(num_seeds, len(keys)), scores_DN)
    result = Comparisons(keys[1:], *found)
    _check(result, Study.of(cells, reference, pairing=pairing), quantity)
    return result


def complete_blocks(num_seeds: int, num_activations: int) -> Blocked:
    """The design in which every seed has every activation; its scores are zeros."""
    seed_N, activation_N = (
        part.ravel() for part in np.mgrid[0:num_seeds, 0:num_activations].astype(np.int64)
    )
    keys = tuple(f"{i:03d}" for i in range(num_activations))
    return Blocked(keys, activation_N, seed_N, seed_N, np.zeros(seed_N.size))


def intervals(rows: Blocked, scores_DN: Reals) -> tuple[Reals, Reals, Reals]:
    """For D data sets of the design of ``rows``: differences, half widths, and the pooled ones.

    Each D × K; infinite where an interval cannot be had.
    """
    key, fit = DesignKey(rows), fit_blocks(rows)
    geometry = geometry_of(key)
    centred_DN = scores_DN - scores_DN.mean(axis=1, keepdims=True)
    difference_DK = centred_DN @ geometry.estimate_KN.T
    unknown_DK = np.full(difference_DK.shape, np.inf)
    if fit.noise_df == 0:
        return difference_DK, unknown_DK, unknown_DK
    pooled_D = variances(geometry.noise, centred_DN).pooled_D
    error_DK = np.sqrt(np.outer(pooled_D, geometry.weight_KA.sum(axis=1)))
    pooled_DK = quantile(fit.correlations, fit.noise_df, LEVEL) * error_DK
    if len(rows.keys) == 2:
        return difference_DK, pooled_DK, pooled_DK
    if not geometry.has_interval:
        return difference_DK, unknown_DK, pooled_DK
    _, variance_DK, df_DK = difference_variances(geometry, centred_DN)
    null = null_distribution(key).two_sided
    second_DK = half_widths(variance_DK, df_DK, null, LEVEL)
    return difference_DK, np.maximum(pooled_DK, second_DK), pooled_DK


def _check(found: Comparisons, study: Study, quantity: str) -> None:
    one_by_one = compare(study, quantity, level=LEVEL).set_index("key")
    ours = {
        "difference": found.difference_DK[0],
        "half_width": found.half_width_DK[0],
        "pooled_half_width": found.pooled_DK[0],
    }
    for column, values in ours.items():
        theirs = one_by_one.loc[list(found.keys), column].to_numpy(dtype=float)
        alike = np.allclose(values, theirs, rtol=1e-9, atol=1e-12)
        if len(one_by_one) != len(found.keys) or not alike:
            raise RuntimeError(f"{column}: compare says {theirs}, all at once {values}")
