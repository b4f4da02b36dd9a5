"""The figure of learning curves: the loss over the steps, and differences from the reference."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from analysis.figures import captions
from analysis.figures.captions import WIDTH_IN, caption, framed
from analysis.figures.figure_data import FigureData
from analysis.figures.style import INK, Look, empty_axes, label_ends, light_axes, looks
from analysis.number_format import percent
from analysis.rows.learning_curves import (
    from_reference,
    over_seeds,
    validated,
    window_steps,
    windowed_loss,
)
from analysis.rows.names import labels_of
from analysis.rows.read import is_scored
from trainer.config.config_errors import ConfigError

# The first steps fall by nats, what follows by hundredths; differences of the first would flatten
# everything.
_SETTLED = 0.1
_LINE_IN = 0.16  # height that the name of a line needs
_AROUND_IN = 0.52  # ticks, axis label and gap of a panel


def learning_curves(data: FigureData) -> Figure:
    """Training loss, its difference from the reference, and that of the validation score."""
    cells, sweep = data.cells, data.sweep
    scored = set(cells.loc[is_scored(cells), "cell_id"])
    curves = data.curves[data.curves["cell_id"].isin(scored)]
    window = window_steps(curves)
    loss, scores = windowed_loss(curves, window=window), validated(curves)
    if loss.empty:
        raise ConfigError("no training loss")
    gaps = [(loss, "training loss, nats per token")]
    if scores["step"].nunique() > 1:
        gaps.append((scores, "validation, bits per byte"))
    tall = max(2.4, _LINE_IN * loss["key"].nunique())
    heights = [2.0, *(tall for _ in gaps)]
    figure = Figure(figsize=(WIDTH_IN, sum(heights) + _AROUND_IN * len(heights) + 0.9))
    first, *others = figure.subplots(len(heights), 1, height_ratios=heights)
    look_of, reference = looks(cells), labels_of(cells).get(sweep.reference, sweep.reference)
    _loss_over_steps(over_seeds(loss), first, look_of)
    for i, (ax, (points, unit)) in enumerate(zip(others, gaps, strict=True)):
        gap = over_seeds(from_reference(points, sweep.reference))
        if gap.empty:
            ax.set(xticks=[], yticks=[])
            empty_axes(light_axes(ax), "no activation shares a seed and a step with the reference")
            continue
        ends = _gap_over_steps(gap, ax, look_of, marked=i > 0)
        ends.append((float(gap["step"].max()), 0.0, f"{reference} (reference)", INK))
        ax.set(xlabel="step", ylabel=f"difference from the reference\n({unit})")
        label_ends(light_axes(ax), ends, height_in=tall)
    smoothed = f"means of {window} steps that follow one another"
    meaning = (
        f"Means over seeds, {captions.num_seeds(cells)}; training loss:"
        f" {'of single steps' if window == 1 else smoothed}. Differences are taken within seeds"
        f" before they are averaged, from {percent(_SETTLED)} of the steps on; below zero is"
        " better. No interval is drawn: neighbouring points share their noise."
    )
    where = captions.scoring_windows(cells, ["post_quant_bpb"]) if len(gaps) > 1 else ""
    return framed(figure, caption(data, meaning, where))


def _loss_over_steps(means: pd.DataFrame, ax: Axes, look_of: Mapping[str, Look]) -> None:
    """Training loss of each activation, mean over seeds."""
    for key, line in means.groupby("key", sort=False):
        look = look_of[str(key)]
        ax.plot(line["step"], line["value"], color=look.colour, linestyle=look.line, linewidth=1.1)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set(xlabel="step", ylabel="training loss\n(nats per token)")
    ax.margins(x=0.01)
    light_axes(ax)


def _gap_over_steps(
    gaps: pd.DataFrame, ax: Axes, look_of: Mapping[str, Look], *, marked: bool
) -> list[tuple[float, float, str, str]]:
    """Difference from the reference within seeds; where each line ends, its name and colour.

    ``marked``: single points, such as validations, rather than a line of windows.
    """
    last = float(gaps["step"].max())
    shown = gaps[gaps["step"] >= _SETTLED * last]
    ends = []
    for key, line in shown.groupby("key", sort=False):
        look = look_of[str(key)].of_line | ({} if marked else {"marker": None})
        ax.plot(line["step"], line["value"], linewidth=1.3, markersize=4, **look)
        end = line.iloc[-1]
        ends.append((end["step"], end["value"], str(end["label"]), look["color"]))
    ax.axhline(0, color=INK, linewidth=0.9)
    ax.set_xlim(_SETTLED * last, last * 1.01)
    _limits(ax, shown)
    return ends


def _limits(ax: Axes, shown: pd.DataFrame) -> None:
    """Limits that hold zero and the last half of every line; what is earlier may leave them."""
    middle = (shown["step"].min() + shown["step"].max()) / 2
    late = shown.loc[shown["step"] >= middle, "value"]
    low, high = min(float(late.min()), 0.0), max(float(late.max()), 0.0)
    room = 0.12 * (high - low) or 1e-3
    ax.set_ylim(low - room, high + room)
