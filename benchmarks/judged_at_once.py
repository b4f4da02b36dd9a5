"""How are many sweeps of one complete design judged at once, as ``contrasts`` judges each?

The same functions of ``analysis`` (geometry, both intervals, their quantiles) on thousands of data
sets, without a frame for each: a sweep takes microseconds instead of 30 ms. That the answer is that
of ``contrasts`` is checked on a sweep of every batch, to nine digits.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special

from analysis.models import unequal_variance
from analysis.models.block_model import Blocking, Reals, fit_blocks
from analysis.models.design_geometry import DesignKey, geometry_of, variances
from analysis.models.dunnett import quantile
from analysis.rows.stages import PRIMARY
from analysis.stats.compare import contrasts
from analysis.stats.ranking import same_functions

LEVEL = 0.95


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """Of D sweeps and K compared activations: differences from the reference, and half widths."""

    keys: tuple[str, ...]  # of the K
    difference_DK: Reals
    half_width_DK: Reals
    pooled_DK: Reals


def judged(frame: pd.DataFrame, reference: str, design: Blocking) -> Judged:
    """Every setting of ``frame`` (alike, complete, in the same order of rows) as one sweep.

    RuntimeError where ``contrasts`` says anything else of the first of them.
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
    scores_DN = frame[PRIMARY].to_numpy(dtype=float).reshape(num_sweeps, -1)[:, place.index]
    found = _intervals(scores_DN, num_activations=len(keys))
    result = Judged(keys[1:], *found)
    _check(result, cells, reference, design)
    return result


def _intervals(scores_DN: Reals, *, num_activations: int) -> tuple[Reals, Reals, Reals]:
    """Differences, half widths, and those of the pooled interval; seed by seed, reference first."""
    complete = unequal_variance.complete_blocks(
        scores_DN.shape[1] // num_activations, num_activations
    )
    key, fit = DesignKey(complete), fit_blocks(complete)
    geometry = geometry_of(key)
    centred_DN = scores_DN - scores_DN.mean(axis=1, keepdims=True)
    difference_DK, variance_DK, df_DK = unequal_variance._studentised(geometry, centred_DN)
    pooled_D = variances(geometry, centred_DN)[2]
    error_DK = np.sqrt(np.outer(pooled_D, geometry.weight_KA.sum(axis=1)))
    pooled_DK = quantile(fit.correlations, fit.noise_df, LEVEL) * error_DK
    null = unequal_variance.calibration_of(key).two_sided
    least_p = null[max(0, math.floor(round((1 - LEVEL) * (null.size + 1), 6)) - 1)]
    second_DK = -special.stdtrit(df_DK, least_p / 2) * np.sqrt(variance_DK)
    return difference_DK, np.maximum(pooled_DK, second_DK), pooled_DK


def _check(found: Judged, cells: pd.DataFrame, reference: str, design: Blocking) -> None:
    said = contrasts(cells, PRIMARY, reference, level=LEVEL, design=design).set_index("key")
    ours = {
        "difference": found.difference_DK[0],
        "half_width": found.half_width_DK[0],
        "pooled_half_width": found.pooled_DK[0],
    }
    for column, values in ours.items():
        theirs = said.loc[list(found.keys), column].to_numpy(dtype=float)
        if len(said) != len(found.keys) or not np.allclose(values, theirs, rtol=1e-9, atol=1e-12):
            raise RuntimeError(f"{column}: contrasts says {theirs}, all at once {values}")
