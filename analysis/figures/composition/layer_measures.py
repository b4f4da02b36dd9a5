"""Figures of the layers' measures: over the slope, against the quantization delta, by layer."""

from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures import captions
from analysis.figures.captions import WIDTH_IN, framed
from analysis.figures.figure_data import FigureData
from analysis.figures.panels import by_slope as slope_panel
from analysis.figures.panels import layer_measures as panels
from analysis.figures.style import Look, looks
from analysis.rows.names import labels_of
from analysis.stats.quantization import with_deltas


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One measure of the layers' table: which rows, and what people read."""

    kind: str
    measure: str
    title: str
    unit: str


VIEWS = (
    View(kind="activation", measure="density", title="Density of the hidden layer", unit="share"),
    View(kind="tensor", measure="kurtosis", title="Kurtosis of the MLP's weights", unit="excess"),
    View(
        kind="tensor",
        measure="quant_mse_relative",
        title="Quantization error of the MLP",
        unit="MSE / mean square",
    ),
    View(
        kind="tensor",
        measure="code_entropy_bits",
        title="Entropy of the MLP's codes",
        unit="bits per weight",
    ),
    View(
        kind="tensor", measure="floored_rows", title="Floored rows of the MLP", unit="share of rows"
    ),
    View(
        kind="class",
        measure="bits_per_weight",
        title="Compressed size of the MLP",
        unit="bits per weight",
    ),
)
BY_LAYER = (
    VIEWS[0],
    View(
        kind="activation",
        measure="negative_fraction",
        title="Negative pre-activations",
        unit="share",
    ),
    *VIEWS[1:5],
)
AGAINST = (VIEWS[0], VIEWS[2])  # a cause that is asked about (PR #1062), and the step it acts by


def by_slope(data: FigureData) -> Figure:
    """Six measures over the slope."""
    cells, layers = data.cells, data.layers
    figure = Figure(figsize=(WIDTH_IN, 6.8))
    shown = [view for view in VIEWS if not rows_of(layers, view).empty]
    columns = min(2, len(shown))
    axes = list(figure.subplots(-(-len(shown) // columns), columns, squeeze=False).flat)
    for ax, view in zip(axes, shown, strict=False):
        values = per_cell(layers, view)
        panels.measure_by_slope(cells, ax, values=values, title=view.title, unit=view.unit)
    for ax in axes[: max(len(shown) - columns, 0)]:  # the slopes are told below the lowest
        ax.set(xlabel="", xticklabels=[])
    for ax in axes[len(shown) :]:
        ax.set_axis_off()
    return framed(
        figure,
        [captions.marks_and_intervals(cells), _means(), captions.cells_drawn(cells, data.sweep)],
        slope_panel.legend_handles(cells, learned=False),
    )


def against_delta(data: FigureData) -> Figure:
    """The quantization delta against two measures, both less their seed's mean."""
    cells, layers = data.cells, data.layers
    known, look_of = with_deltas(cells), looks(cells)
    figure = Figure(figsize=(WIDTH_IN, 4.6))
    shown = [view for view in AGAINST if not rows_of(layers, view).empty]
    for ax, view in zip(
        figure.subplots(1, len(shown), sharey=True, squeeze=False)[0], shown, strict=True
    ):
        values = per_cell(layers, view)
        unit = f"{view.title[0].lower()}{view.title[1:]}\nless the effect of its seed ({view.unit})"
        panels.against_delta(known, ax, values=values, look_of=look_of, unit=unit)
        ax.label_outer()
    meaning = (
        f"Dots: cells, {captions.num_seeds(cells)}, each less its seed's effect (additive model)"
        " and the mean; line: least squares. What goes together need not be cause and effect."
    )
    return framed(
        figure,
        [
            captions.recipe_and_budget(cells),
            meaning,
            _means(),
            captions.scoring_windows(cells, ["quant_delta"]),
            captions.cells_drawn(cells, data.sweep),
        ],
        look_handles(cells, look_of, lines=False),
    )


def by_layer(data: FigureData) -> Figure:
    """Measures over the layers, a line per activation."""
    cells, layers, look_of = data.cells, data.layers, looks(data.cells)
    shown = [view for view in BY_LAYER if rows_of(layers, view)["layer"].notna().any()]
    figure = Figure(figsize=(WIDTH_IN, 1.2 + 2.2 * -(-len(shown) // 2)))
    axes = list(figure.subplots(-(-len(shown) // 2), 2, squeeze=False).flat)
    for ax, view in zip(axes, shown, strict=False):
        panels.measure_by_layer(
            rows_of(layers, view), ax, look_of=look_of, title=view.title, unit=view.unit
        )
    for ax in axes[len(shown) :]:
        ax.set_axis_off()
    meaning = f"Lines: means over seeds, {captions.num_seeds(cells)}; no interval is drawn."
    return framed(
        figure,
        [captions.recipe_and_budget(cells), meaning, captions.cells_drawn(cells, data.sweep)],
        look_handles(cells, look_of),
    )


def look_handles(
    cells: pd.DataFrame, look_of: dict[str, Look], *, lines: bool = True
) -> list[Line2D]:
    """Which look is which activation, as lines with markers or as markers alone."""
    labels = labels_of(cells)
    return [
        Line2D(
            [],
            [],
            color=look.colour,
            marker=look.marker,
            linestyle=look.line if lines else "",
            markersize=4,
            label=labels[key],
        )
        for key, look in look_of.items()
    ]


def rows_of(layers: pd.DataFrame, view: View) -> pd.DataFrame:
    """The rows of one view; of tensors those that the activation stands between, of the MLP."""
    rows = layers[(layers["kind"] == view.kind) & (layers["measure"] == view.measure)]
    if view.kind == "tensor":
        rows = rows[rows["name"].str.contains("up|down", regex=True)]
    if view.kind == "class":
        rows = rows[rows["name"] == "mlp"]
    return rows[rows["value"].notna()]


def per_cell(layers: pd.DataFrame, view: View) -> "pd.Series[float]":
    """The mean of one view over layers and tensors, by cell_id."""
    return rows_of(layers, view).groupby("cell_id")["value"].mean().astype(float)


def _means() -> str:
    return "Measures are means over layers and, where of weights, over the two matrices of the MLP."
