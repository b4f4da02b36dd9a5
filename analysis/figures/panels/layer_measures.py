"""Axes of the layers' measures: over the slope, over the layers, against the quantization delta.

Three views of one long table: a measure over the slope, a measure over the layers, and a measure
against the quantization delta.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from analysis.figures.panels.by_slope import quantity_by_slope
from analysis.figures.style import GREY, INK, Look, empty_axes, light_axes
from analysis.rows.read import is_scored
from analysis.stats.seed_effects import without_seed


def measure_by_slope(
    cells: pd.DataFrame, ax: Axes, *, values: "pd.Series[float]", title: str, unit: str
) -> Axes:
    """``values``, indexed by cell_id, over the slope, with dots, means and intervals."""
    ax.set_title(title)
    ax.set_ylabel(unit)
    known = cells.assign(measure=cells["cell_id"].map(values).astype(float))
    return _from_zero(quantity_by_slope(known, ax, quantity="measure"), unit)


def measure_by_layer(
    layers: pd.DataFrame, ax: Axes, *, look_of: Mapping[str, Look], title: str, unit: str
) -> Axes:
    """One line per activation: mean over seeds of one measure (rows of one kind, name, measure)."""
    ax.set(title=title, xlabel="layer", ylabel=unit)
    known = layers[layers["value"].notna() & layers["layer"].notna()]
    if known.empty:
        return empty_axes(light_axes(ax), "not measured")
    means = known.groupby(["key", "layer"])["value"].mean()
    for key, look in look_of.items():
        if key in means.index:
            line = means[key]
            ax.plot(
                line.index.astype(int),
                line.to_numpy(),
                color=look.colour,
                linestyle=look.line,
                marker=look.marker,
                markersize=3,
                linewidth=1.1,
            )
    layer = sorted({int(i) for i in known["layer"]})
    ax.set_xticks(layer if len(layer) <= 12 else layer[:: -(-len(layer) // 12)])
    return _from_zero(light_axes(ax), unit)


def _from_zero(ax: Axes, unit: str) -> Axes:
    """A share has no scale below zero, which an interval or a line of zeros would ask for."""
    low, high = ax.get_ylim()
    if unit.startswith("share") and low < 0 < high:
        ax.set_ylim(bottom=-0.04 * high)  # room for half a mark, and for no number
    return ax


def against_delta(
    cells: pd.DataFrame,
    ax: Axes,
    *,
    values: "pd.Series[float]",
    look_of: Mapping[str, Look],
    unit: str,
    delta: str = "quant_delta",
) -> Axes:
    """A dot per cell: its measure and its delta, each less the effect of its seed and the mean.

    ``values`` is indexed by cell_id; ``cells`` has the column ``delta``.
    """
    known = cells.assign(measure=cells["cell_id"].map(values).astype(float))
    known = known[is_scored(known) & known["measure"].notna() & known[delta].notna()]
    ax.set(xlabel=unit, ylabel="quantization delta less the effect\nof its seed (bits per byte)")
    if len(known) < 2:
        return empty_axes(light_axes(ax), "not measured")
    x, y = (_centred(known, name) for name in ("measure", delta))
    for key, look in look_of.items():
        mine = known["key"] == key
        ax.scatter(
            x[mine], y[mine], s=30, color=look.colour, marker=look.marker, alpha=0.85, linewidth=0
        )
    ax.axhline(0, color=GREY, linewidth=0.7)
    ax.axvline(0, color=GREY, linewidth=0.7)
    if float(np.ptp(x)) > 0:
        ends = np.array([x.min(), x.max()])
        ax.plot(
            ends, float((x * y).sum() / (x * x).sum()) * ends, color=INK, linewidth=1.0, alpha=0.7
        )
    ax.xaxis.set_major_locator(MaxNLocator(nbins=4))
    return light_axes(ax, grid="both")


def _centred(known: pd.DataFrame, quantity: str) -> "pd.Series[float]":
    values = without_seed(known, quantity)
    return values - values.mean()
