"""The place of each activation on the axis of the negative slope.

Every activation of the family is x² for x > 0 and β·x² else. A fixed β ≥ 0 is a slope s = √β, so
LeakyReLU² and ReLU² have a place on the axis. A β that is learned, or given for each layer, has
none: it is drawn past the axis, and its mean can be read on the axis as sign(β)·√|β|.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.rows.read import is_scored
from analysis.stats.ranking import same_functions
from trainer.activations import ACTIVATIONS

CURVE, POINT, OFF_AXIS = "curve", "point", "off axis"
# What places depend on. Figures filter rows some hundred times, at 5 ms for all 112 columns.
PLACED_BY = (
    *("setting", "key", "label", "activation", "slope", "neg_beta", "beta_mean", "beta_std"),
    *("seed", "replicate", "state", "tainted"),
)


def placed(frame: pd.DataFrame) -> pd.DataFrame:
    """``frame`` with ``x``, the place of each row on the axis, and ``role``, how it is drawn.

    ``curve``: it has a slope, and neighbours to be joined with. ``point``: it has a fixed β and no
    slope (ReLU², at 0). ``off axis``: neither; x is past every slope, mean slopes among them, one
    place per activation.
    """
    has_slope = frame["slope"].notna()
    has_beta = frame["neg_beta"].notna()
    role = np.select([has_slope, has_beta], [CURVE, POINT], default=OFF_AXIS)
    x = frame["slope"].astype(float).where(has_slope, frame["neg_beta"].astype(float) ** 0.5)
    others = sorted(set(frame.loc[role == OFF_AXIS, "key"]))
    past = pd.concat([x, mean_slopes(frame)["high"], pd.Series([0.0])]).max()
    off_axis = frame["key"].map({key: past + 0.15 * (i + 1) for i, key in enumerate(others)})
    return frame.assign(role=role, x=x.where(role != OFF_AXIS, off_axis.astype(float)))


def fixed_slopes(frame: pd.DataFrame, reference: str | None = None) -> dict[str, float]:
    """The slope √β of each function whose β is fixed, by the key that stands for the function."""
    kept = same_functions(frame, reference)
    rows = frame[["key", "neg_beta"]].dropna().drop_duplicates("key")
    return {
        kept[key]: float(beta) ** 0.5
        for key, beta in zip(rows["key"], rows["neg_beta"].astype(float), strict=True)
    }


def mean_slopes(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per scored cell whose β is learned, or given for each layer: its mean, as a slope.

    ``mean`` is the signed root of the mean β; ``low`` and ``high`` are those of mean ± sd over
    layers and channels. The root of a mean is not the mean of roots: these are places on an axis.
    """
    several = [name for name, e in ACTIVATIONS.items() if e.learns_beta or e.is_by_layer]
    known = is_scored(frame) & frame["activation"].isin(several) & frame["beta_mean"].notna()
    named = ["setting", "key", "label", "seed", "replicate"]
    rows = frame.loc[known, [*named, "beta_mean", "beta_std"]].sort_values(
        ["setting", "key", "seed", "replicate"]
    )
    mean = rows["beta_mean"].to_numpy(dtype=np.float64)
    sd = rows["beta_std"].fillna(0.0).to_numpy(dtype=np.float64)
    return rows.assign(
        mean=signed_root(mean),
        low=signed_root(mean - sd),
        high=signed_root(mean + sd),
    )[[*named, "mean", "low", "high"]]


def signed_root(beta: NDArray[np.float64]) -> NDArray[np.float64]:
    """
    >>> signed_root(np.array([0.25, -0.25, 0.0])).tolist()
    [0.5, -0.5, 0.0]
    """
    root: NDArray[np.float64] = np.sign(beta) * np.sqrt(np.abs(beta))
    return root
