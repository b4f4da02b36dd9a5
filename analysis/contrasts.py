"""How far is each activation from the reference, and how much of that may be noise?

The seed is a block: score = activation + seed + noise. The noise is what an additive model of
activations and seeds leaves over, pooled over all ranked activations (two-way analysis of variance
without interaction), so that even three seeds give it many degrees of freedom. The mean of n paired
differences then has the standard error sd · √(2 / n). With k activations compared with one
reference, each interval is a t interval of level 0.95^(1/k) (Šidák 1967), which covers all k at
once with probability 0.95 or more; Dunnett's quantile uses that the k share their reference and is
a little shorter. It assumes noise that is alike for all activations.

Two activations with the same fixed β are the same function: one activation in the ranking, in the
pooled noise and in k. Their difference is an A/A control (``analysis.aa_control``).
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.interval import t_quantile
from analysis.load import settings
from analysis.seed_stats import check_one_footing, outcome_counts, per_seed
from analysis.stages import is_legal
from trainer.strict import ConfigError

_COLUMNS = (
    *("setting", "key", "quantity", "reference", "difference", "n", "half_width", "level"),
    *("comparisons", "noise_sd", "noise_df", "resolved"),
)


@dataclass(frozen=True, slots=True)
class Noise:
    """The standard deviation that the additive model leaves over, and its degrees of freedom."""

    sd: float
    df: int


def contrasts(
    frame: pd.DataFrame, quantity: str, reference: str, *, level: float = 0.95
) -> pd.DataFrame:
    """One row per setting and ranked activation: its mean paired difference from the reference.

    ``half_width`` is simultaneous over the ``comparisons`` of the setting. It is null, and so is
    ``resolved``, where the noise cannot be estimated. A setting whose reference is not ranked has
    no row.
    """
    check_one_footing(frame)
    rows: list[dict[str, object]] = []
    for setting in settings(frame):
        matrix = ranked_scores(frame[frame["setting"] == setting], quantity, reference)
        if reference not in matrix:
            continue
        gaps = matrix.drop(columns=reference).sub(matrix[reference], axis=0)
        gaps = gaps.loc[:, gaps.notna().any()]
        noise = pooled_noise(matrix.to_numpy(dtype=float))
        for key in gaps:
            n = int(gaps[key].count())
            half_width = (
                None
                if noise is None
                else t_quantile(level ** (1 / gaps.shape[1]), noise.df)
                * noise.sd
                * math.sqrt(2 / n)
            )
            difference = float(gaps[key].mean())
            rows.append(
                {"setting": setting, "key": key, "quantity": quantity, "reference": reference}
                | {"difference": difference, "n": n, "half_width": half_width, "level": level}
                | {"comparisons": gaps.shape[1], "noise_sd": noise.sd if noise else None}
                | {"noise_df": noise.df if noise else None}
                | {"resolved": None if half_width is None else abs(difference) > half_width}
            )
    return pd.DataFrame(rows, columns=_COLUMNS).astype(
        {"difference": float, "half_width": float, "noise_sd": float, "resolved": "boolean"}
    )


def pooled_noise(scores_SA: NDArray[np.float64]) -> Noise | None:
    """What is left of ``scores_SA`` (S seeds, A activations, NaN: missing) after seed + activation.

    df = scores − rank of the model; (S − 1)(A − 1) where none is missing. None where df is 0.
    """
    seed, activation = np.nonzero(~np.isnan(scores_SA))
    if seed.size == 0:
        return None
    design = np.concatenate(
        [np.eye(scores_SA.shape[0])[seed], np.eye(scores_SA.shape[1])[activation]], axis=1
    )
    scores = scores_SA[seed, activation]
    centred = scores - scores.mean()
    effects, _, rank, _ = np.linalg.lstsq(design, centred, rcond=None)
    df = int(scores.size - rank)
    if df == 0:
        return None
    left_over = centred - design @ effects
    return Noise(float(math.sqrt(left_over @ left_over / df)), df)


def ranked_scores(frame: pd.DataFrame, quantity: str, reference: str) -> pd.DataFrame:
    """Seeds × activations of one setting: none with a diverged seed, each function once.

    ConfigError for a score that is not legal.
    """
    if not is_legal(frame, quantity):
        raise ConfigError(
            f"{quantity} was fitted on the targets that it scores: it is no legal score and is not "
            f"ranked. Rank another stage, or run the recipe with slot.mode = causal."
        )
    kept = same_functions(frame, reference)
    counts = outcome_counts(frame)
    diverged = {kept[key] for key in counts.loc[counts["n_diverged"] > 0, "key"]}
    matrix = per_seed(frame, quantity).pivot(index="seed", columns="key", values="value")
    merged: dict[str, pd.Series[float]] = {}
    for key in sorted(matrix.columns, key=lambda key: key != kept[key]):
        name = kept[key]
        if name not in diverged:
            column = matrix[key]
            merged[name] = merged[name].combine_first(column) if name in merged else column
    return pd.DataFrame(dict(sorted(merged.items())), index=matrix.index)


def same_functions(frame: pd.DataFrame, reference: str) -> dict[str, str]:
    """Each key with the key that stands for its function: the reference, else one without slope."""
    rows = frame[["key", "slope", "neg_beta"]].drop_duplicates("key")
    rows = rows.assign(other=rows["key"] != reference, sloped=rows["slope"].notna())
    rows = rows.sort_values(["other", "sloped", "key"])
    first: dict[float, str] = {}
    stands_for: dict[str, str] = {}
    for key, beta in zip(rows["key"], rows["neg_beta"], strict=True):
        stands_for[key] = key if pd.isna(beta) else first.setdefault(float(beta), key)
    return stands_for
