"""Average measures of layers over each cell, and over seeds for each activation and layer.

Input is the long frame of ``load_layers``: kind, name, layer, measure, value. ``kind`` says what is
measured (an activation, a weight tensor, a class of tensors), ``name`` which.
"""

from dataclasses import asdict

import pandas as pd

from analysis.models.interval import TInterval
from analysis.rows.attempt_files import OF_CELL
from analysis.rows.read import is_scored

MEASURE = ["kind", "name", "measure"]
BETAS = ("beta_min", "beta_q05", "beta_q25", "beta_q50", "beta_q75", "beta_q95", "beta_max")


def layer_means(layers: pd.DataFrame) -> pd.DataFrame:
    """One row per cell and measure: ``value``, its mean over the ``num_layers`` that have one.

    A measure of what is of no layer is its own mean.
    """
    by = [*OF_CELL, *MEASURE]
    found = layers.groupby(by, sort=False)["value"].agg(["mean", "count"]).reset_index()
    return found.rename(columns={"mean": "value", "count": "num_layers"})


def layer_table(frame: pd.DataFrame, layers: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
    """One row per setting, activation, measure and layer: n seeds, mean, sd and t interval.

    Scored cells of ``frame`` only; replicates of a seed are averaged first. ``layer`` is null for
    what is of no layer.
    """
    by = ["setting", "key", "label", *MEASURE, "layer"]
    here = layers[layers["cell_id"].isin(frame.loc[is_scored(frame), "cell_id"])]
    per_seed = here.groupby([*by, "seed"], sort=False, dropna=False)["value"].mean().reset_index()
    interval, rows = TInterval(level), []
    for names, values in per_seed.groupby(by, sort=False, dropna=False)["value"]:
        rows.append({**dict(zip(by, names, strict=True)), **asdict(interval(values))})
    table = pd.DataFrame(rows, columns=[*by, "n", "mean", "sd", "half_width"])
    table = table.astype({"mean": float, "sd": float, "half_width": float, "layer": "Int64"})
    budgets = dict(zip(frame["setting"], frame["budget"], strict=True))
    return table.assign(
        low=table["mean"] - table["half_width"],
        high=table["mean"] + table["half_width"],
        level=level,
        budget=table["setting"].map(budgets),
    )


def beta_by_layer(layers: pd.DataFrame) -> pd.DataFrame:
    """One row per setting, learned activation, seed and layer: the quantiles of β over channels.

    Columns ``beta_min`` … ``beta_max``, averaged over replicates; what was not measured is null.
    """
    by = ["setting", "key", "label", "seed", "layer"]
    found = layers[(layers["kind"] == "activation") & layers["measure"].isin(BETAS)]
    means = found.groupby([*by, "measure"])["value"].mean().unstack("measure")
    return means.reindex(columns=list(BETAS)).rename_axis(columns=None).reset_index()
