"""Figures of training: learning curves, steps and step times, and what learned its β."""

import json

import pandas as pd
from matplotlib.figure import Figure

from analysis.figures import captions
from analysis.figures.captions import WIDTH_IN, framed
from analysis.figures.figure_data import FigureData
from analysis.figures.panels import beta
from analysis.figures.panels import learning_curves as learning
from analysis.figures.panels import speed as panel
from analysis.figures.style import looks
from analysis.mechanism.layer_tables import BETAS
from analysis.rows.learning_curves import (
    from_reference,
    over_seeds,
    validated,
    window_steps,
    windowed_loss,
)
from analysis.rows.names import labels_of
from analysis.rows.read import is_scored
from trainer.activations import ACTIVATIONS, with_defaults
from trainer.config.config_errors import ConfigError

_LINE_IN = 0.16  # height that the name of a line needs
_AROUND_IN = 0.52  # ticks, axis label and gap of a panel


def learning_curves(data: FigureData) -> Figure:
    """Training loss, its difference from the reference, and that of the validation score."""
    cells, sweep = data.cells, data.sweep
    scored = set(cells.loc[is_scored(cells), "cell_id"])
    curves = data.curves[data.curves["cell_id"].isin(scored)]
    window = window_steps(curves)
    loss, scores = windowed_loss(curves, window=window), validated(curves)
    gaps = [(over_seeds(from_reference(loss, sweep.reference)), "training loss, nats per token")]
    if scores["step"].nunique() > 1:
        gap = over_seeds(from_reference(scores, sweep.reference))
        gaps.append((gap, "validation, bits per byte"))
    rows = loss["key"].nunique()
    tall = max(2.4, _LINE_IN * rows)
    heights = [2.0, *(tall for _ in gaps)]
    figure = Figure(figsize=(WIDTH_IN, sum(heights) + _AROUND_IN * len(heights) + 0.9))
    axes = figure.subplots(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    look_of, reference = looks(cells), labels_of(cells).get(sweep.reference, sweep.reference)
    learning.loss_over_steps(over_seeds(loss), axes[0], look_of=look_of)
    for i, (ax, (gap, unit)) in enumerate(zip(axes[1:], gaps, strict=True)):
        learning.gap_over_steps(
            gap,
            ax,
            look_of=look_of,
            reference=reference,
            unit=unit,
            marked=i > 0,
            height_in=tall,
        )
    meaning = (
        f"Means over seeds, {captions.num_seeds(cells)}; training loss: {_smoothed(window)}."
        " Differences are taken within seeds before they are averaged, from"
        f" {learning.SETTLED:.0%} of the steps on".replace("%", " %")
        + "; below zero is better. No interval is drawn: neighbouring points share their noise."
    )
    where = captions.scoring_windows(cells, ["post_quant_bpb"]) if len(gaps) > 1 else ""
    return framed(
        figure,
        [captions.recipe_and_budget(cells), meaning, where, captions.cells_drawn(cells, sweep)],
    )


def _smoothed(window: int) -> str:
    return "of single steps" if window == 1 else f"means of {window} steps that follow one another"


def speed(data: FigureData) -> Figure:
    """Steps reached within a budget of seconds, and the time of a step."""
    cells, sweep = data.cells, data.sweep
    if not cells.loc[is_scored(cells), "step_ms_p50"].notna().any():
        raise ConfigError("no cell has a step time")
    timed = (cells["budget_kind"] == "seconds").any()
    panels = [("steps", "steps reached")] if timed else []
    panels.append(("step_ms_p50", "median time of a step (ms)"))
    rows = cells["key"].nunique()
    figure = Figure(figsize=(WIDTH_IN, 1.9 + 0.26 * rows))
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, (quantity, unit) in zip(axes, panels, strict=True):
        panel.by_activation(
            cells, ax, quantity=quantity, unit=unit, keys=sweep.keys, reference=sweep.reference
        )
    one_node = cells.loc[is_scored(cells), "node"].dropna().nunique() <= 1
    meaning = (
        f"Dots: single cells, {captions.num_seeds(cells)}, each seed at its own height; bar: mean."
        " No interval: the spread is of nodes as much as of seeds."
        + ("" if one_node else " Colour and shape: the node.")
    )
    return framed(
        figure,
        [captions.recipe_and_budget(cells), meaning, captions.cells_drawn(cells, sweep)],
        panel.node_handles(cells),
    )


def beta_by_layer(data: FigureData) -> Figure:
    """What every activation that learns its β learned, layer by layer."""
    cells, layers = data.cells, data.layers
    keys = _keys_that_learn(cells, layers)
    if not keys:
        raise ConfigError("no activation here learns its β")
    figure = Figure(figsize=(WIDTH_IN, 0.6 + 3.2 * len(keys)))
    for ax, key in zip(figure.subplots(len(keys), 1, squeeze=False)[:, 0], keys, strict=True):
        row = cells[cells["key"] == key].iloc[0]
        beta.beta_by_layer(layers, ax, key=key, initial=_initial(row))
    meaning = (
        f"Bands: quantiles of β over the channels of a layer, mean over seeds"
        f" ({captions.num_seeds(cells)}); dark lines: the median of"
        " each seed. A slope s is β = s²; below zero no slope has it."
    )
    return framed(figure, [captions.recipe_and_budget(cells), meaning])


def _keys_that_learn(cells: pd.DataFrame, layers: pd.DataFrame) -> list[str]:
    """The activations of ``cells`` that learned a β which ``layers`` describes."""
    told = set(layers.loc[layers["measure"].isin(BETAS), "key"])
    rows = cells.drop_duplicates("key")
    return [
        str(key)
        for key, name in zip(rows["key"], rows["activation"], strict=True)
        if key in told and name in ACTIVATIONS and ACTIVATIONS[name].learns_beta
    ]


def _initial(row: "pd.Series[object]") -> float | None:
    """β before training; it is a parameter of the activation."""
    text = row["params_json"]
    params = json.loads(text) if isinstance(text, str) else {}
    value = with_defaults(str(row["activation"]), params).get("init")
    return None if value is None else float(value)
