"""Average training loss over windows of steps and over seeds; differences from the reference.

The loss of single steps is noise many times larger than what is looked for, so it is averaged over
windows of steps that do not overlap; then over replicates, then over seeds. Absolute curves lie on
one another, because a seed's data move all activations alike: differences are taken within seeds,
step by step, before they are averaged.

A curve frame has the columns of ``trainer.contract.CURVE_COLUMNS`` and cell_id, key, label,
setting, seed, replicate. Units: steps, nats per token, bits per byte.
"""

import numpy as np
import pandas as pd
from scipy import special

from analysis.models.interval import LEVEL, no_narrower
from analysis.rows.attempt_files import OF_CELL

NUM_POINTS = 20  # of a curve: so many windows show its course, and average most of the noise

_SEED = ["setting", "key", "label", "seed", "step"]


def window_steps(curves: pd.DataFrame, *, points: int = NUM_POINTS) -> int:
    """The window, in steps, that gives the longest curve in ``curves`` about ``points`` points."""
    longest = curves["step"].max()
    return 1 if pd.isna(longest) else max(1, int(longest) // points)


def windowed_loss(curves: pd.DataFrame, *, window: int) -> pd.DataFrame:
    """Mean training loss over each full ``window`` of steps, per setting, activation and seed.

    Columns setting, key, label, seed, step (the middle of the window), value (nats per token).
    A window with fewer steps than ``window`` at the end of a curve is left out.
    """
    known = curves[curves["train_loss"].notna() & (curves["step"] > 0)]
    bins = ((known["step"].astype(int) - 1) // window).rename("bin")
    grouped = known.groupby([*[known[name] for name in OF_CELL], bins])["train_loss"]
    means = grouped.agg(["mean", "count"]).reset_index()
    full = means[means["count"] == window]
    middle = full["bin"] * window + (window + 1) / 2
    return _per_seed(full.assign(step=middle, value=full["mean"].astype(float)))


def validated(curves: pd.DataFrame, quantity: str = "val_bpb") -> pd.DataFrame:
    """The steps at which a cell was validated, with columns as ``windowed_loss`` has them."""
    known = curves[curves[quantity].notna()]
    return _per_seed(known.assign(value=known[quantity].astype(float)))


def over_seeds(points: pd.DataFrame) -> pd.DataFrame:
    """Mean ``value`` per setting, activation and step, as far as all seeds of the activation go.

    Columns setting, key, label, step, n (seeds), value, half_width (of the 95 % t interval over
    seeds, at each step no narrower than that of the spread pooled over activations: few seeds agree
    by luck). A step that one seed lacks has no mean: it would jump to where the others are.
    """
    seeds = points.groupby(["setting", "key"])["seed"].nunique().rename("seeds")
    groups = points.groupby(["setting", "key", "label", "step"])["value"]
    means = groups.agg(value="mean", n="count", sd="std").reset_index()
    means = means.join(seeds, on=["setting", "key"]).query("n == seeds")
    df = means["n"] - 1
    spread = means.assign(df=df, squares=df * means["sd"] ** 2).groupby(["setting", "step"])
    pooled = spread[["df", "squares"]].transform("sum")
    own = special.stdtrit(df, (1 + LEVEL) / 2) * means["sd"] / np.sqrt(means["n"])
    numbers = (own, means["n"], pooled["df"], pooled["squares"])
    half_width = no_narrower(*(each.to_numpy(dtype=float) for each in numbers))
    return means.assign(half_width=half_width)[
        ["setting", "key", "label", "step", "n", "value", "half_width"]
    ]


def from_reference(points: pd.DataFrame, reference: str) -> pd.DataFrame:
    """``points`` less those of ``reference`` (a key) of the same seed and step; its own are out."""
    on = ["setting", "seed", "step"]
    theirs = points.loc[points["key"] == reference, [*on, "value"]]
    both = points[points["key"] != reference].merge(theirs, on=on, suffixes=("", "_reference"))
    return both.assign(value=both["value"] - both["value_reference"])[[*_SEED, "value"]]


def _per_seed(points: pd.DataFrame) -> pd.DataFrame:
    means = points.groupby(_SEED)["value"].mean().reset_index()
    return means.astype({"value": float, "step": float})
