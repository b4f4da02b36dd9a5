"""Differences from the reference, their noise, and intervals that hold for all of them at once.

The primary comparison: a block model of one setting (``analysis.models.block_model``) with the
noise pooled over all ranked activations, so that even three seeds give it many degrees of freedom;
intervals that hold for all comparisons with the reference at once (``analysis.models.dunnett``);
and a second interval that does not take the noise as alike (``analysis.models.unequal_variance``).
What is reported is the wider of the two.

The record rule of the sweep, by default "better by 0.005 nats per token at p < 0.01", is read as a
test: the hypothesis that the improvement is at most so much is rejected at that p, one-sided,
adjusted over the comparisons.
"""

import math
from typing import Any

import numpy as np
import pandas as pd

from analysis.models.block_model import Blocked, BlockFit, Reals, blocked, fit_blocks
from analysis.models.dunnett import adjusted_p, quantile
from analysis.models.interval import LEVEL
from analysis.models.unequal_variance import (
    Interval,
    t_statistics,
    unequal_variance_interval,
    unequal_variance_p_below,
)
from analysis.rows.read import is_scored
from analysis.rows.scoring import scoring_of
from analysis.rows.stages import STAGES, windows_of
from analysis.stats.ranking import blocking_of, ranked_rows
from analysis.study import Study, answered_once
from sweep.spec.sweep_file import RecordRule

# Why there is no interval. One for a fixed number of seeds misses too often after stopping
# (docs/statistics.md, A sweep that stops).
UNJUDGED = {
    "few": "too few seeds to know the noise",
    "stopped": "seeds were run until the best was known, after which no interval holds",
}
_NO_INTERVAL: dict[str, object] = {
    **dict.fromkeys(("low", "high", "half_width", "p_value", "pooled_half_width"), math.nan),
    **dict.fromkeys(("pooled_p", "nats_low", "nats_high", "record_p"), math.nan),
    **dict.fromkeys(("record_rule", "resolved")),
    "widened": False,
}
_WITH_LOSS = ("pre_quant", "post_quant")
_PRINTED = 1e-3  # four digits are printed, so ratios of one text differ by less

_NUMBERS = (
    *("difference", "low", "high", "half_width", "p_value", "noise_sd"),
    *("pooled_half_width", "pooled_p", "nats", "nats_low", "nats_high", "record_p"),
)
_COLUMNS = (
    *("setting", "key", "label", "quantity", "reference", "n", "difference", "low", "high"),
    *("half_width", "p_value", "level", "comparisons", "noise_sd", "noise_df", "blocks"),
    *("resolved", "widened", "pooled_half_width", "pooled_p", "nats", "nats_low", "nats_high"),
    *("record_p", "record_rule", "unjudged", "window", "stride", "budget"),
)


@answered_once
def compare(
    study: Study, quantity: str, *, reference: str | None = None, level: float = LEVEL
) -> pd.DataFrame:
    """One row per setting and ranked activation that shares a block with the reference.

    ``reference``: that of the study where it is not given. ``n`` counts the seeds in which both are
    scored. ``difference`` ± ``half_width`` (``low``, ``high``) is simultaneous over the
    ``comparisons`` of the setting and ``p_value`` adjusted over them, two-sided; below zero is
    better. ``pooled_half_width`` and ``pooled_p`` are Dunnett's alone; ``widened`` says that the
    interval of unequal variances is the wider one. Null, as is ``resolved``, where the noise is not
    known, and where seeds were run until the best was known; ``unjudged`` says which. ``nats`` are
    nats per token, null for what is no score; ``record_rule`` is "met" or "not
    met", for stages only. A setting whose reference is not ranked has no row.
    """
    return _typed(compared_rows(study, quantity, reference=reference, level=level))


def compared_rows(
    study: Study, quantity: str, *, reference: str | None = None, level: float = LEVEL
) -> list[dict[str, Any]]:
    """The rows of ``compare`` as dictionaries."""
    reference, labels = reference or study.reference, study.labels
    rows: list[dict[str, Any]] = []
    for setting, here in study.settings.items():
        scores = ranked_rows(here, quantity, reference)
        if not (scores["key"] == reference).any():
            continue
        factor = nats_per_bpb(here.cells) if windows_of(quantity) else None
        shared = {"setting": setting, "quantity": quantity, "reference": reference, "level": level}
        shared |= {"blocks": study.blocking.blocks, **scoring_of(here.cells, quantity)}
        design = blocked(scores, reference, blocking_of(here, reference))
        rule = study.sweep.record_rule if quantity in STAGES else None
        for row in _compare(design, level, factor, rule):
            why = "stopped" if study.sweep.standing else "few" if row["resolved"] is None else None
            told = {"label": labels[str(row["key"])], "unjudged": why and UNJUDGED[why]}
            rows.append(shared | (row if why is None else row | _NO_INTERVAL) | told)
    return rows


def nats_per_bpb(frame: pd.DataFrame) -> float | None:
    """Nats per token for each bit per byte: ln 2 · bytes / tokens of the validation text.

    A script does not print the bytes, but the loss beside the bits per byte, whose ratio it is.
    None where no scored row says either. The rows share one text.
    """
    scored = is_scored(frame)
    told = frame[["val_bytes", "val_tokens"]][scored].dropna()
    if len(told):
        return math.log(2) * float(told["val_bytes"].iloc[0]) / float(told["val_tokens"].iloc[0])
    of_script = frame[scored & frame["script_sha256"].notna()]
    ratios = pd.concat(
        [of_script[f"{stage}_loss"] / of_script[f"{stage}_bpb"] for stage in _WITH_LOSS]
    ).dropna()
    if ratios.empty or ratios.max() > (1 + _PRINTED) * ratios.min():
        return None
    return float(ratios.median())


def bounds(rows: Blocked, fit: BlockFit, *, level: float) -> tuple[Interval, Interval]:
    """Of every difference of ``fit``, the fit of ``rows``: Dunnett's interval from the pooled
    noise, and the wider one of it and that of unequal variances. NaN where it is not known.

    Two activations have no others to pool with: Dunnett's interval is the paired t interval then,
    and needs no second one. Elsewhere a second one that cannot be had leaves the interval unknown.
    """
    nan_K = np.full(len(fit.estimate_K), np.nan)
    unknown = Interval(nan_K, nan_K)
    if fit.noise_sd is None:
        return unknown, unknown
    t_K = t_statistics(fit.estimate_K, fit.errors)
    pooled = Interval(
        quantile(fit.correlations, fit.noise_df, level) * fit.errors,
        adjusted_p(t_K, fit.correlations, fit.noise_df),
    )
    if len(rows.keys) == 2:
        return pooled, pooled
    second = unequal_variance_interval(rows, level=level)
    if second is None:
        return pooled, unknown
    return pooled, Interval(
        np.maximum(pooled.half_width_K, second.half_width_K),
        np.maximum(pooled.p_value_K, second.p_value_K),
    )


def p_below(rows: Blocked, fit: BlockFit, bound: float) -> Reals:
    """The larger p of both tests that each difference is below ``bound``: one-sided, adjusted.

    NaN where the noise is not known.
    """
    unknown = np.full(len(fit.estimate_K), np.nan)
    if fit.noise_sd is None:
        return unknown
    t_K = t_statistics(bound - fit.estimate_K, fit.errors)
    pooled_K = adjusted_p(t_K, fit.correlations, fit.noise_df, sided="one")
    if len(rows.keys) == 2:
        return pooled_K
    second_K = unequal_variance_p_below(rows, bound)
    return unknown if second_K is None else np.maximum(pooled_K, second_K)


def _compare(
    rows: Blocked, level: float, factor: float | None, rule: RecordRule | None
) -> list[dict[str, object]]:
    """One dictionary per compared activation; ``factor``: nats for each bit per byte, if known."""
    fit = fit_blocks(rows)
    if not len(fit.activation_K):
        return []
    pooled, wider = bounds(rows, fit, level=level)
    p_K = p_below(rows, fit, -rule.nats / factor) if factor and rule else None
    found = []
    for k, activation in enumerate(map(int, fit.activation_K)):
        difference, half = float(fit.estimate_K[k]), float(wider.half_width_K[k])
        low, high = difference - half, difference + half
        row = {
            "key": rows.keys[activation],
            "n": rows.num_pairs(activation),
            "comparisons": len(fit.estimate_K),
            "noise_sd": fit.noise_sd,
            "noise_df": fit.noise_df if fit.noise_sd is not None else None,
            "difference": difference,
            "low": low,
            "high": high,
            "half_width": half,
            "p_value": wider.p_value_K[k],
            "resolved": None if math.isnan(half) else abs(difference) > half,
            "widened": half > pooled.half_width_K[k],
            "pooled_half_width": pooled.half_width_K[k],
            "pooled_p": pooled.p_value_K[k],
            "record_rule": None,
        }
        if factor is not None:
            row |= {"nats": factor * difference, "nats_low": factor * low}
            row |= {"nats_high": factor * high}
        if rule and p_K is not None and not math.isnan(p_K[k]):
            row |= {"record_p": p_K[k], "record_rule": "met" if p_K[k] < rule.p else "not met"}
        found.append(row)
    return found


def _typed(rows: list[dict[str, object]]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=_COLUMNS)
    return table.astype(
        {**dict.fromkeys(_NUMBERS, float), "resolved": "boolean", "widened": bool}
        | {"noise_df": pd.Int64Dtype()}
    )
