"""Figures of the layers' measures: over the slope, against the quantization delta, by layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures import captions
from analysis.figures.by_slope import legend_handles, quantity_by_slope
from analysis.figures.captions import WIDTH_IN, caption, framed
from analysis.figures.figure_data import FigureData
from analysis.figures.style import GREY, INK, Look, empty_axes, handle, light_axes, looks
from analysis.models.interval import LEVEL
from analysis.rows.read import is_scored
from analysis.stats.quantization import with_deltas
from analysis.stats.seed_effects import without_seed
from trainer.config.config_errors import ConfigError

_MEANS = "Measures are means over layers and, where of weights, over the two matrices of the MLP."


@dataclass(frozen=True, slots=True)
class View:
    """One measure of the layers' table: which rows, and what people read."""

    kind: str
    measure: str
    title: str
    unit: str

    def rows_of(self, layers: pd.DataFrame) -> pd.DataFrame:
        """Its rows; of tensors those that the activation stands between, of the MLP."""
        names = {"tensor": "up|down", "class": "^mlp$"}.get(self.kind, "")
        is_kind = (layers["kind"] == self.kind) & (layers["measure"] == self.measure)
        rows = layers[is_kind & layers["value"].notna()]
        return rows[rows["name"].str.contains(names, regex=True)]

    def per_cell(self, layers: pd.DataFrame) -> "pd.Series[float]":
        """Its mean over layers and tensors, by cell_id."""
        return self.rows_of(layers).groupby("cell_id")["value"].mean().astype(float)


_DENSITY = View("activation", "density", "Density of the hidden layer", "share")
_ERROR = View("tensor", "quant_mse_relative", "Quantization error of the MLP", "MSE / mean square")
_OF_TENSORS = (
    View("tensor", "kurtosis", "Kurtosis of the MLP's weights", "excess"),
    _ERROR,
    View("tensor", "code_entropy_bits", "Entropy of the MLP's codes", "bits per weight"),
    View("tensor", "floored_rows", "Floored rows of the MLP", "share of rows"),
)
_NEGATIVE = View("activation", "negative_fraction", "Negative pre-activations", "share")
_SIZE = View("class", "bits_per_weight", "Compressed size of the MLP", "bits per weight")
_BY_SLOPE = (_DENSITY, *_OF_TENSORS, _SIZE)
_BY_LAYER = (_DENSITY, _NEGATIVE, *_OF_TENSORS)
# A cause that is asked about (PR #1062), and the step it acts by.
_AGAINST = (_DENSITY, _ERROR)


def by_slope(data: FigureData) -> Figure:
    """Six measures over the slope."""
    cells, layers = data.cells, data.layers
    figure = Figure(figsize=(WIDTH_IN, 6.8))
    shown, constant = _that_vary(_BY_SLOPE, layers)
    columns = min(2, len(shown))
    axes = list(figure.subplots(-(-len(shown) // columns), columns, squeeze=False).flat)
    for ax, view in zip(axes, shown, strict=False):
        ax.set_title(view.title)
        ax.set_ylabel(view.unit)
        study = data.study.derive(partial(_with_measure, per_cell=view.per_cell(layers)))
        quantity_by_slope(study, ax, quantity="measure")
        _from_zero(ax, view.unit)
    for ax in axes[: max(len(shown) - columns, 0)]:  # the slopes are told below the lowest
        ax.set(xlabel="", xticklabels=[])
    for ax in axes[len(shown) :]:
        ax.set_axis_off()
    return framed(figure, caption(data, _MEANS, constant, marks=LEVEL), legend_handles(cells))


def _that_vary(views: Sequence[View], layers: pd.DataFrame) -> tuple[list[View], str]:
    """Those that were measured and are worth a panel; and of the others, what they are."""
    values = {view: view.rows_of(layers)["value"] for view in views}
    counts = {view: known.nunique() for view, known in values.items() if len(known)}
    constant = [
        f"{v.title}: {values[v].iloc[0]:g} in all cells." for v, n in counts.items() if n == 1
    ]
    shown = [view for view, count in counts.items() if count > 1]
    if not shown:
        raise ConfigError(" ".join(["no measure varies.", *constant]).strip())
    return shown, " ".join(constant)


def _with_measure(cells: pd.DataFrame, *, per_cell: "pd.Series[float]") -> pd.DataFrame:
    return cells.assign(measure=cells["cell_id"].map(per_cell).astype(float))


def against_delta(data: FigureData) -> Figure:
    """The quantization delta against two measures, both less their seed's mean."""
    cells, layers = data.cells, data.layers
    known, look_of = with_deltas(cells), looks(cells)
    figure = Figure(figsize=(WIDTH_IN, 4.6))
    shown, _ = _that_vary(_AGAINST, layers)
    axes = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for ax, view in zip(axes, shown, strict=True):
        title = f"{view.title[0].lower()}{view.title[1:]}"
        ax.set(
            xlabel=f"{title}\nless the effect of its seed ({view.unit})",
            ylabel="quantization delta less the effect\nof its seed (bits per byte)",
        )
        _scatter(known.assign(measure=known["cell_id"].map(view.per_cell(layers))), ax, look_of)
        ax.label_outer()
    meaning = (
        f"Dots: cells, {captions.num_seeds(cells)}, each less its seed's effect (additive model)"
        " and the mean; line: least squares. What goes together need not be cause and effect."
    )
    windows = captions.scoring_windows(cells, ["quant_delta"])
    handles = [
        handle(data.study.labels[key], markersize=4, **look.of_line | {"linestyle": ""})
        for key, look in look_of.items()
    ]
    return framed(figure, caption(data, meaning, _MEANS, windows), handles)


def by_layer(data: FigureData) -> Figure:
    """Measures over the layers, a line per activation."""
    cells, layers, look_of = data.cells, data.layers, looks(data.cells)
    of_layers = layers[layers["layer"].notna()]
    shown, constant = _that_vary(_BY_LAYER, of_layers)
    figure = Figure(figsize=(WIDTH_IN, 1.2 + 2.2 * -(-len(shown) // 2)))
    axes = list(figure.subplots(-(-len(shown) // 2), 2, squeeze=False).flat)
    for ax, view in zip(axes, shown, strict=False):
        _lines_over_layers(view, of_layers, ax, look_of)
    for ax in axes[len(shown) :]:
        ax.set_axis_off()
    meaning = f"Lines: means over seeds, {captions.num_seeds(cells)}; no interval is drawn."
    labels = data.study.labels
    handles = [handle(labels[key], markersize=4, **look.of_line) for key, look in look_of.items()]
    return framed(figure, caption(data, meaning, constant), handles)


def _lines_over_layers(
    view: View, layers: pd.DataFrame, ax: Axes, look_of: Mapping[str, Look]
) -> None:
    """One line per activation: mean of one measure over seeds."""
    ax.set(title=view.title, xlabel="layer", ylabel=view.unit)
    rows = view.rows_of(layers)
    means = rows.groupby(["key", "layer"])["value"].mean()
    for key, look in look_of.items():
        if key in means.index:
            line = means[key]
            at = line.index.astype(int)
            ax.plot(at, line.to_numpy(), markersize=3, linewidth=1.1, **look.of_line)
    layer = sorted({int(i) for i in rows["layer"]})
    ax.set_xticks(layer if len(layer) <= 12 else layer[:: -(-len(layer) // 12)])
    _from_zero(light_axes(ax), view.unit)


def _from_zero(ax: Axes, unit: str) -> None:
    """A share has no scale below zero, which an interval or a line of zeros would ask for."""
    low, high = ax.get_ylim()
    if unit.startswith("share") and low < 0 < high:
        ax.set_ylim(bottom=-0.04 * high)  # room for half a mark, and for no number


def _scatter(cells: pd.DataFrame, ax: Axes, look_of: Mapping[str, Look]) -> None:
    """A dot per cell: its measure and its delta, each less the effect of its seed and the mean."""
    known = cells[is_scored(cells) & cells["measure"].notna() & cells["quant_delta"].notna()]
    if len(known) < 2:
        empty_axes(light_axes(ax), "not measured")
        return
    x, y = (_centred(known, name) for name in ("measure", "quant_delta"))
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
    light_axes(ax, grid="both")


def _centred(known: pd.DataFrame, quantity: str) -> "pd.Series[float]":
    values = without_seed(known, quantity)
    return values - values.mean()
