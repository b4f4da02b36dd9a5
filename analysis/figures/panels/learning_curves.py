"""Axes of learning curves: the loss over the steps, and differences from the reference.

Takes frames of ``analysis.rows.learning_curves``: setting, key, label, step, n, value.
"""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from analysis.figures.style import INK, Look, empty_axes, label_ends, light_axes

# The first steps fall by nats, what follows by hundredths; differences of the first would flatten
# everything.
SETTLED = 0.1


def loss_over_steps(means: pd.DataFrame, ax: Axes, *, look_of: Mapping[str, Look]) -> Axes:
    """Training loss of each activation, mean over seeds."""
    if means.empty:
        return empty_axes(light_axes(ax), "no training loss")
    for key, line in means.groupby("key", sort=False):
        look = look_of[str(key)]
        ax.plot(line["step"], line["value"], color=look.colour, linestyle=look.line, linewidth=1.1)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set(xlabel="step", ylabel="training loss\n(nats per token)")
    ax.margins(x=0.01)
    return light_axes(ax)


def gap_over_steps(
    gaps: pd.DataFrame,
    ax: Axes,
    *,
    look_of: Mapping[str, Look],
    reference: str,
    unit: str,
    marked: bool = False,
    height_in: float | None = None,
) -> Axes:
    """Difference from the reference, whose label is given, within seeds; named at the line's end.

    ``marked``: single points, such as validations, rather than a line of windows.
    """
    if gaps.empty:
        ax.set(xticks=[], yticks=[])
        return empty_axes(
            light_axes(ax), "no activation shares a seed and a step with the reference"
        )
    last = float(gaps["step"].max())
    shown = gaps[gaps["step"] >= SETTLED * last]
    ends = []
    for key, line in shown.groupby("key", sort=False):
        look = look_of[str(key)]
        ax.plot(
            line["step"],
            line["value"],
            color=look.colour,
            linestyle=look.line,
            linewidth=1.3,
            marker=look.marker if marked else None,
            markersize=4,
        )
        end = line.iloc[-1]
        ends.append((end["step"], end["value"], str(end["label"]), look.colour))
    ax.axhline(0, color=INK, linewidth=0.9)
    ax.set_xlim(SETTLED * last, last * 1.01)
    _limits(ax, shown)
    ends.append((last, 0.0, f"{reference} (reference)", INK))
    ax.set(xlabel="step", ylabel=f"difference from the reference\n({unit})")
    return label_ends(light_axes(ax), ends, height_in=height_in)


def _limits(ax: Axes, shown: pd.DataFrame) -> None:
    """Limits that hold zero and the last half of every line; what is earlier may leave them."""
    middle = (shown["step"].min() + shown["step"].max()) / 2
    late = shown.loc[shown["step"] >= middle, "value"]
    low, high = min(float(late.min()), 0.0), max(float(late.max()), 0.0)
    room = 0.12 * (high - low) or 1e-3
    ax.set_ylim(low - room, high + room)
