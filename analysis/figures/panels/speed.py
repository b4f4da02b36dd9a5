"""Axes of steps reached and step times, by activation and node.

Under a budget of seconds the number of steps is a result: an activation that is slow to compute
trains less. Under a budget of steps there is only the time of a step.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.figures.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    empty_axes,
    light_axes,
)
from analysis.rows.names import labels_of
from analysis.rows.read import is_scored

_NODES = list(
    zip(
        (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY),
        ("o", "s", "^", "D", "v", "P"),
        strict=True,
    )
)


def by_activation(
    cells: pd.DataFrame, ax: Axes, *, quantity: str, unit: str, keys: Sequence[str], reference: str
) -> Axes:
    """A dot per cell, a row per activation in the order of ``keys``; bar: mean over its cells.

    The scale on top is relative to the reference's mean (``reference`` is a key), where it has one.
    """
    known = cells[is_scored(cells) & cells[quantity].notna()]
    ax.set_xlabel(unit)
    light_axes(ax, grid="x").spines["left"].set_visible(False)
    if known.empty:
        return empty_axes(ax, "not measured")
    rows = {key: y for y, key in enumerate(key for key in keys if key in set(cells["key"]))}
    for node, marks in marks_of(cells).items():
        here = known[_nodes(known) == node]
        y = here["key"].map(rows).astype(float) + _apart(here, cells)
        colour, marker = marks
        ax.scatter(here[quantity], y, s=22, color=colour, marker=marker, alpha=0.85, linewidth=0)
    means = known.groupby("key")[quantity].mean().astype(float)
    for key, mean in means.items():
        ax.plot([mean, mean], [rows[key] - 0.36, rows[key] + 0.36], color=INK, linewidth=1.4)
    labels = labels_of(cells)
    names = [labels[key] + (" (reference)" if key == reference else "") for key in rows]
    ax.set_yticks(list(rows.values()), names)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    if reference in means:
        _relative(ax, float(means[reference]))
    return ax


def marks_of(cells: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Colour and marker of every node, by name; one look for all where none is told apart.

    More nodes than looks share the last one, under the name "other nodes".
    """
    names = sorted(set(_nodes(cells[is_scored(cells)])))
    return dict(zip(names, _NODES, strict=False))


def node_handles(cells: pd.DataFrame) -> list[Line2D]:
    """Which mark is which node; nothing where there is one node or none is known."""
    marks = marks_of(cells)
    if len(marks) < 2:
        return []
    return [
        Line2D([], [], color=colour, marker=marker, linestyle="", markersize=5, label=node)
        for node, (colour, marker) in marks.items()
    ]


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
    if base <= 0:
        return
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
