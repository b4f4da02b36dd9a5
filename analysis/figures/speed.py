"""The figure of speed: steps reached and step times, by activation and node.

Under a budget of seconds the number of steps is a result: an activation that is slow to compute
trains less. Under a budget of steps there is only the time of a step.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import captions
from analysis.figures.captions import WIDTH_IN, caption, framed
from analysis.figures.figure_data import FigureData
from analysis.figures.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    handle,
    light_axes,
)
from analysis.rows.read import is_scored
from trainer.config.config_errors import ConfigError

_NODES = list(
    zip(
        (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY),
        ("o", "s", "^", "D", "v", "P"),
        strict=True,
    )
)


def speed(data: FigureData) -> Figure:
    """Steps reached within a budget of seconds, and the time of a step."""
    cells = data.cells
    scored = cells[is_scored(cells)]
    if not scored["step_ms_p50"].notna().any():
        raise ConfigError("no cell has a step time")
    timed = (cells["budget_kind"] == "seconds").any()
    panels = [("steps", "steps reached")] if timed else []
    panels.append(("step_ms_p50", "median time of a step (ms)"))
    figure = Figure(figsize=(WIDTH_IN, 1.9 + 0.26 * cells["key"].nunique()))
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, (quantity, unit) in zip(axes, panels, strict=True):
        _by_activation(data, ax, quantity=quantity, unit=unit)
    one_node = scored["node"].dropna().nunique() <= 1
    meaning = (
        f"Dots: single cells, {captions.num_seeds(cells)}, each seed at its own height; bar: mean."
        " No interval: the spread is of nodes as much as of seeds."
        + ("" if one_node else " Colour and shape: the node.")
    )
    marks = marks_of(cells)
    handles = [
        handle(node, color=colour, marker=marker, linestyle="", markersize=5)
        for node, (colour, marker) in marks.items()
    ]
    return framed(figure, caption(data, meaning), handles if len(marks) > 1 else ())


def _by_activation(data: FigureData, ax: Axes, *, quantity: str, unit: str) -> None:
    """A dot per cell, a row per activation in the order of the grid; bar: mean over its cells.

    The scale on top is relative to the reference's mean, where it has one.
    """
    cells, reference = data.cells, data.sweep.reference
    known = cells[is_scored(cells) & cells[quantity].notna()]
    ax.set_xlabel(unit)
    light_axes(ax, grid="x").spines["left"].set_visible(False)
    present = set(cells["key"])
    rows = {key: y for y, key in enumerate(key for key in data.sweep.keys if key in present)}
    for node, (colour, marker) in marks_of(cells).items():
        here = known[_nodes(known) == node]
        y = here["key"].map(rows).astype(float) + _apart(here, cells)
        ax.scatter(here[quantity], y, s=22, color=colour, marker=marker, alpha=0.85, linewidth=0)
    means = known.groupby("key")[quantity].mean().astype(float)
    for key, mean in means.items():
        ax.plot([mean, mean], [rows[key] - 0.36, rows[key] + 0.36], color=INK, linewidth=1.4)
    labels = data.study.labels
    names = [labels[key] + (" (reference)" if key == reference else "") for key in rows]
    ax.set_yticks(list(rows.values()), names)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    if reference in means:
        _relative(ax, float(means[reference]))


def marks_of(cells: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Colour and marker of every node, by name; one look for all where none is told apart.

    More nodes than looks share the last one, under the name "other nodes".
    """
    names = sorted(set(_nodes(cells[is_scored(cells)])))
    return dict(zip(names, _NODES, strict=False))


def _nodes(cells: pd.DataFrame) -> "pd.Series[str]":
    """The node of each row, in words; the rarest are pooled where there are too many."""
    named = cells["node"].astype("object").where(cells["node"].notna(), "node unknown").astype(str)
    counts = named.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    kept = list(counts.index[: len(_NODES) - 1]) if len(counts) > len(_NODES) else counts.index
    return named.where(named.isin(kept), "other nodes")


def _apart(here: pd.DataFrame, cells: pd.DataFrame) -> "pd.Series[float]":
    """A seed's own height within the row, so that seeds of equal pace are seen as several."""
    seeds = sorted(set(cells["seed"]))
    heights = np.linspace(-0.24, 0.24, len(seeds)) if len(seeds) > 1 else np.zeros(1)
    return here["seed"].map(dict(zip(seeds, heights, strict=True))).astype(float)


def _relative(ax: Axes, base: float) -> None:
    scale = ax.secondary_xaxis(
        "top",
        functions=(
            lambda x: 100 * (np.asarray(x) / base - 1),
            lambda p: base * (1 + np.asarray(p) / 100),
        ),
    )
    scale.set_xlabel("difference from the reference's mean (%)", color=INK)
    scale.spines["top"].set_color(GREY)
    scale.tick_params(length=2)
