"""The effect of the number of steps on a score: ∂score / ∂log steps of one activation.

Under a budget of seconds a faster activation takes more steps. Its score with the reference's
number of steps was not measured, and is estimated from that slope, of which there are two sources,
the better first:

``steps in the setting``   within one budget, nodes of unlike speed make the steps differ:
                           score = block + activation + γ log steps
``learning curve``         an approximation. Within a run the warmdown is tied to the budget, so the
                           loss at step n is not what a run of n steps gives. The slope is taken
                           over the later half of the constant learning rate, which ends at step
                           n_c: the warmdown after it is as long for every N, so
                           ∂score / ∂log N ≈ (N / n_c) ∂loss / ∂log n at n_c
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.models.interval import t_quantile
from analysis.models.least_squares import indicators, solve
from analysis.number_format import counted
from analysis.rows.read import is_scored
from analysis.stats.ranking import ranked_scores
from analysis.study import Study

IN_SETTING = "steps in the setting"
LEARNING_CURVE = "learning curve (approximation)"

_FEWEST_LOSSES = 16  # training losses in the window; their noise is that of one batch each
_FEWEST_SCORES = 3


@dataclass(frozen=True, slots=True)
class StepEffect:
    """∂score / ∂log steps of one activation; ``half_width`` is NaN where nothing tells it."""

    per_log_step: float
    half_width: float
    method: str
    detail: str


def in_setting(study: Study, quantity: str, *, level: float) -> dict[str, StepEffect]:
    """One γ for all ranked activations; nothing where steps vary with activation and seed alone."""
    cells = _scores_and_steps(study, quantity)
    if cells.empty:
        return {}
    log_steps_N = np.log(cells["steps"].to_numpy(dtype=float))
    factors = [indicators(cells[name].tolist())[0] for name in ("seed", "key")]
    design_NP = np.hstack([log_steps_N[:, None] - log_steps_N.mean(), *factors])
    model = solve(design_NP, cells["value"].to_numpy(dtype=float))
    slopes_Q, errors_Q = model.estimate(np.eye(1, design_NP.shape[1]))
    if model.sd is None or math.isnan(slopes_Q[0]):
        return {}
    half_width = t_quantile(level, model.df) * model.sd * float(errors_Q[0])
    detail = f"{len(cells)} cells, one slope for all activations"
    effect = StepEffect(float(slopes_Q[0]), half_width, IN_SETTING, detail)
    return {str(key): effect for key in cells["key"].unique()}


def along_curve(
    here: pd.DataFrame, curves: pd.DataFrame | None, *, level: float
) -> dict[str, StepEffect]:
    """By key, from each cell's own learning curve: means over seeds, whose spread is pooled."""
    if curves is None:
        return {}
    scored = here[is_scored(here)].drop_duplicates("cell_id").set_index("cell_id")
    found = {}
    for cell_id, curve in curves[curves["cell_id"].isin(scored.index)].groupby("cell_id"):
        cell = scored.loc[cell_id]
        slope = _curve_slope(curve, bits_per_nat=_bits_per_nat(cell))
        if slope is not None:
            found[cell["key"], int(cell["seed"]), int(cell["replicate"])] = slope
    if not found:
        return {}
    slopes = pd.Series(found).rename_axis(["key", "seed", "replicate"])
    per_seed = slopes.groupby(["key", "seed"]).mean()
    by_key = {str(key): rows.to_numpy(dtype=float) for key, rows in per_seed.groupby("key")}
    df = sum(rows.size - 1 for rows in by_key.values())
    rss = sum(float(((rows - rows.mean()) ** 2).sum()) for rows in by_key.values())
    quantile, variance = (t_quantile(level, df), rss / df) if df else (math.nan, math.nan)
    return {
        key: StepEffect(
            float(rows.mean()),
            quantile * math.sqrt(variance / rows.size),
            LEARNING_CURVE,
            f"before the warmdown, {counted(rows.size, 'seed')}",
        )
        for key, rows in by_key.items()
    }


def _curve_slope(curve: pd.DataFrame, *, bits_per_nat: float) -> float | None:
    """∂BPB / ∂log N of one cell; None where the constant learning rate is too short to tell."""
    ordered = curve.sort_values("step")
    total, rate = float(ordered["step"].max()), ordered["lr_mult"].astype(float)
    constant = ordered[rate >= rate.max() * (1 - 1e-9)]
    last = float(constant["step"].max()) if len(constant) else 0.0
    window = constant[constant["step"] >= last / 2]
    window = window[window["step"] > 0]
    for column, factor, fewest in (
        ("val_bpb", 1.0, _FEWEST_SCORES),
        ("train_loss", bits_per_nat, _FEWEST_LOSSES),
    ):
        known = window.dropna(subset=[column])
        if len(known) >= fewest and not math.isnan(factor):
            log_steps = np.log(known["step"].to_numpy(dtype=float))
            centred = log_steps - log_steps.mean()
            values = known[column].to_numpy(dtype=float)
            return float(factor * total / last * (centred @ values) / (centred @ centred))
    return None


def _bits_per_nat(cell: "pd.Series[float]") -> float:
    """Bits per byte of text for one nat per token of it; NaN where the text is not known."""
    if pd.isna(cell["val_tokens"]) or pd.isna(cell["val_bytes"]):
        return math.nan
    return float(cell["val_tokens"]) / float(cell["val_bytes"]) / math.log(2)


def _scores_and_steps(study: Study, quantity: str) -> pd.DataFrame:
    """``key``, ``seed``, ``value`` and ``steps`` of ranked activations, means over replicates.

    Seeds are the blocks: that nodes differ is what is used here.
    """
    by_seed, columns = Study.of(study.cells, study.reference), {}
    for name, column in (("value", quantity), ("steps", "steps")):
        matrix = ranked_scores(by_seed, column, None).rename_axis(columns="key")
        long = matrix.reset_index("seed").melt("seed", value_name=name)
        columns[name] = long.groupby(["key", "seed"])[name].mean()
    both = pd.DataFrame(columns).dropna().reset_index()
    return both[both["steps"] > 0]
