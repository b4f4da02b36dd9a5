"""Axes of the learned β over the layers: quantiles over channels."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from analysis.figures.style import BLUE, GREY, INK, VERMILLION, empty_axes, label_ends, light_axes
from analysis.mechanism.layer_tables import BETAS

_BANDS = (
    ("beta_min", "beta_max", 0.12),
    ("beta_q05", "beta_q95", 0.2),
    ("beta_q25", "beta_q75", 0.35),
)
_LINES = ("-", "--", "-.", ":")


def beta_by_layer(layers: pd.DataFrame, ax: Axes, *, key: str, initial: float | None) -> Axes:
    """Quantiles of β over the channels of each layer: bands are means over seeds, lines are seeds.

    ``layers``: rows of ``load_layers`` of one setting; ``initial``: β before training.
    """
    mine = layers[(layers["key"] == key) & layers["measure"].isin(BETAS)]
    mine = mine[mine["value"].notna() & mine["layer"].notna()]
    ax.set(xlabel="layer", ylabel="β, factor of x² for x ≤ 0")
    if mine.empty:
        return empty_axes(light_axes(ax), "no β was kept")
    wide = mine.groupby(["layer", "seed", "measure"])["value"].mean().unstack("measure")
    means = wide.groupby("layer").mean()
    layer = means.index.astype(int).to_numpy()
    # One layer has no width for a band, so it is given some.
    edges = layer if layer.size > 1 else [float(layer[0]) - 0.25, float(layer[0]) + 0.25]
    for low, high, alpha in _BANDS:
        ends = (means[name].to_numpy() for name in (low, high))
        bottom, top = (end if layer.size > 1 else [end[0], end[0]] for end in ends)
        ax.fill_between(edges, bottom, top, color=BLUE, alpha=alpha, linewidth=0)
    for i, (_, seed) in enumerate(wide["beta_q50"].groupby("seed")):
        ax.plot(
            seed.index.get_level_values("layer").astype(int),
            seed.to_numpy(),
            color=INK,
            linewidth=1.0,
            linestyle=_LINES[i % len(_LINES)],
            marker="o",
            markersize=2.5,
        )
    ax.set_title(str(mine["label"].iloc[0]))
    _frame(ax, layer.tolist(), initial=initial)
    _name_bands(ax, means.iloc[-1], initial=initial)
    return ax


def _frame(ax: Axes, layer: Sequence[int], *, initial: float | None) -> None:
    """Ticks at whole layers, the line at which β began, and zero where β crosses it."""
    ax.set_xlim(
        min(layer) - (0.3 if len(layer) == 1 else 0), max(layer) + (0.3 if len(layer) == 1 else 0)
    )
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
    named = {"beta_max": "largest", "beta_q95": "95 %", "beta_q75": "75 %", "beta_q50": "median"}
    named |= {"beta_q25": "25 %", "beta_q05": "5 %", "beta_min": "smallest"}
    ends = [
        (x, float(last[q]), text, INK if q == "beta_q50" else BLUE) for q, text in named.items()
    ]
    if initial is not None:
        ends.append((x, initial, f"initial {initial:g}", VERMILLION))
    label_ends(ax, ends)
