"""Does a denser hidden layer, or another spread of weights, make quantization cost more?

Figures of one setting from ``load.load_layers``: what was measured per layer and tensor, over the
slope, against the quantization delta, and over the layers.
"""

from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures import captions
from analysis.figures.captions import WIDTH_IN, framed
from analysis.figures.inputs import Given
from analysis.figures.panels import by_slope
from analysis.figures.panels.mechanism import against_delta, measure_by_layer, measure_by_slope
from analysis.figures.style import Look, looks
from analysis.rows.read import Sweep, labels_of
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


def mechanism(cells: pd.DataFrame, sweep: Sweep, given: Given) -> Figure:
    """Six measures over the slope."""
    layers = _layers(given)
    figure = Figure(figsize=(WIDTH_IN, 6.8))
    shown = [view for view in VIEWS if not rows_of(layers, view).empty]
    columns = min(2, len(shown))
    panels = list(figure.subplots(-(-len(shown) // columns), columns, squeeze=False).flat)
    for ax, view in zip(panels, shown, strict=False):
        values = per_cell(layers, view)
        measure_by_slope(cells, ax, values=values, title=view.title, unit=view.unit)
    for ax in panels[: max(len(shown) - columns, 0)]:  # the slopes are told below the lowest
        ax.set(xlabel="", xticklabels=[])
    for ax in panels[len(shown) :]:
        ax.set_axis_off()
    return framed(
        figure,
        [captions.marks(cells), _means(), captions.coverage(cells, sweep)],
        by_slope.legend_handles(cells, learned=False),
    )


def mechanism_delta(cells: pd.DataFrame, sweep: Sweep, given: Given) -> Figure:
    """The quantization delta against two measures, both less their seed's mean."""
    layers, known, look_of = _layers(given), with_deltas(cells), looks(cells)
    figure = Figure(figsize=(WIDTH_IN, 4.6))
    shown = [view for view in AGAINST if not rows_of(layers, view).empty]
    for ax, view in zip(
        figure.subplots(1, len(shown), sharey=True, squeeze=False)[0], shown, strict=True
    ):
        values = per_cell(layers, view)
        unit = f"{view.title[0].lower()}{view.title[1:]}\nless the effect of its seed ({view.unit})"
        against_delta(known, ax, values=values, look_of=look_of, unit=unit)
        ax.label_outer()
    said = (
        f"Dots: cells, {captions.seeds(cells)}, each less its seed's effect (additive model) and"
        " the mean; line: least squares. What goes together need not be cause and effect."
    )
    return framed(
        figure,
        [
            captions.footing(cells),
            said,
            _means(),
            captions.windows(cells, ["quant_delta"]),
            captions.coverage(cells, sweep),
        ],
        look_handles(cells, look_of, lines=False),
    )


def mechanism_layers(cells: pd.DataFrame, sweep: Sweep, given: Given) -> Figure:
    """Measures over the layers, a line per activation."""
    layers, look_of = _layers(given), looks(cells)
    shown = [view for view in BY_LAYER if rows_of(layers, view)["layer"].notna().any()]
    figure = Figure(figsize=(WIDTH_IN, 1.2 + 2.2 * -(-len(shown) // 2)))
    panels = list(figure.subplots(-(-len(shown) // 2), 2, squeeze=False).flat)
    for ax, view in zip(panels, shown, strict=False):
        measure_by_layer(
            rows_of(layers, view), ax, look_of=look_of, title=view.title, unit=view.unit
        )
    for ax in panels[len(shown) :]:
        ax.set_axis_off()
    said = f"Lines: means over seeds, {captions.seeds(cells)}; no interval is drawn."
    return framed(
        figure,
        [captions.footing(cells), said, captions.coverage(cells, sweep)],
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


def _layers(given: Given) -> pd.DataFrame:
    assert given.layers is not None  # what FIGURES promises
    return given.layers
