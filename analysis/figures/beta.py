"""The figure of the learned β over the layers: quantiles over channels."""

import json
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import captions
from analysis.figures.captions import WIDTH_IN, framed
from analysis.figures.figure_data import FigureData
from analysis.figures.style import BLUE, GREY, INK, VERMILLION, Line, Look, label_ends, light_axes
from trainer.activations import ACTIVATIONS, of_layer, with_defaults
from trainer.config.config_errors import ConfigError

QUANTILES = {  # of the quantiles, as they stand at the last layer
    **{"beta_max": "largest", "beta_q95": "95 %", "beta_q75": "75 %", "beta_q50": "median"},
    **{"beta_q25": "25 %", "beta_q05": "5 %", "beta_min": "smallest"},
}
_BANDS = (
    ("beta_min", "beta_max", 0.12),
    ("beta_q05", "beta_q95", 0.2),
    ("beta_q25", "beta_q75", 0.35),
)
_LINES: tuple[Line, ...] = ("-", "--", "-.", ":")


def beta_by_layer(data: FigureData) -> Figure:
    """What every activation that learns its β learned, layer by layer."""
    cells, layers = data.cells, data.layers
    known = layers[layers["measure"].isin(QUANTILES) & layers["value"].notna()]
    learns = [name for name, entry in ACTIVATIONS.items() if entry.learns_beta]
    rows = cells[cells["activation"].isin(learns) & cells["key"].isin(known["key"])]
    rows = rows.drop_duplicates("key")
    if rows.empty:
        raise ConfigError("no activation here learns its β")
    figure = Figure(figsize=(WIDTH_IN, 0.6 + 3.2 * len(rows)))
    axes = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
    for ax, (_, row) in zip(axes, rows.iterrows(), strict=True):
        _beta_of_one(known[known["key"] == row["key"]], ax, initial=_initial(row))
        ax.set_title(str(row["label"]))
    meaning = (
        f"Bands: quantiles of β over the channels of a layer, mean over seeds"
        f" ({captions.num_seeds(cells)}); dark lines: the median of"
        " each seed. A slope s is β = s²; below zero no slope has it."
    )
    return framed(figure, [captions.recipe_and_budget(cells), meaning])


def _beta_of_one(known: pd.DataFrame, ax: Axes, *, initial: float | None) -> None:
    """Quantiles of β over the channels of each layer: bands are means over seeds, lines are seeds.

    ``initial``: β before training.
    """
    ax.set(xlabel="layer", ylabel="β, factor of x² for x ≤ 0")
    wide = known.groupby(["layer", "seed", "measure"])["value"].mean().unstack("measure")
    means = wide.groupby("layer").mean()
    layer = means.index.astype(int).to_numpy()
    # One layer has no width for a band, so it is given some.
    edges = layer if layer.size > 1 else [float(layer[0]) - 0.25, float(layer[0]) + 0.25]
    for low, high, alpha in _BANDS:
        ends = (means[name].to_numpy() for name in (low, high))
        bottom, top = (end if layer.size > 1 else [end[0], end[0]] for end in ends)
        ax.fill_between(edges, bottom, top, color=BLUE, alpha=alpha, linewidth=0)
    for i, (_, seed) in enumerate(wide["beta_q50"].groupby("seed")):
        at = seed.index.get_level_values("layer").astype(int)
        look = Look(INK, "o", _LINES[i % len(_LINES)])
        ax.plot(at, seed.to_numpy(), linewidth=1.0, markersize=2.5, **look.of_line)
    _frame(ax, layer.tolist(), initial=initial)
    _name_bands(ax, means.iloc[-1], initial=initial)


def _initial(row: "pd.Series[object]") -> float | None:
    """β before training; it is a parameter of the activation."""
    text = row["params_json"]
    params = json.loads(text) if isinstance(text, str) else {}
    return of_layer(with_defaults(str(row["activation"]), params), 0).get("init")


def _frame(ax: Axes, layer: Sequence[int], *, initial: float | None) -> None:
    """Ticks at whole layers, the line at which β began, and zero where β crosses it."""
    room = 0.3 if len(layer) == 1 else 0
    ax.set_xlim(min(layer) - room, max(layer) + room)
    ax.set_xticks(layer if len(layer) <= 16 else layer[:: -(-len(layer) // 16)])
    if initial is not None:
        ax.axhline(initial, color=VERMILLION, linestyle="--", linewidth=1.2, label="initial")
    low, high = ax.get_ylim()
    if low < 0 < high:
        ax.axhline(0, color=GREY, linewidth=0.9)
    light_axes(ax)


def _name_bands(ax: Axes, last: "pd.Series[float]", *, initial: float | None) -> None:
    """What the edges are, at the last layer."""
    x = ax.get_xlim()[1]
    ends = [
        (x, float(last[q]), text, INK if q == "beta_q50" else BLUE) for q, text in QUANTILES.items()
    ]
    if initial is not None:
        ends.append((x, initial, f"initial {initial:g}", VERMILLION))
    label_ends(ax, ends)
