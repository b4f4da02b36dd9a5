"""The figure of learning curves: how each activation differs from the reference, step by step.

Losses lie on one another, because a seed's data move all activations alike: so only the reference
is drawn as it is, and of every other activation its difference within seeds, in a panel of its own
under its name.
"""

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures import captions
from analysis.figures.captions import WIDTH_IN, caption, framed
from analysis.figures.figure_data import FigureData
from analysis.figures.style import BLUE, INK, light_axes
from analysis.number_format import percent
from analysis.rows.learning_curves import (
    from_reference,
    over_seeds,
    validated,
    window_steps,
    windowed_loss,
)
from analysis.rows.read import is_scored
from analysis.stats.ranking import function_labels, same_functions
from trainer.config.config_errors import ConfigError

# The first steps fall by nats, what follows by hundredths; differences of the first would flatten
# everything.
_SETTLED = 0.1
_FEWEST_VALIDATIONS = 4  # fewer make no curve, so the training loss is drawn
_USUAL = 0.9  # the share of the intervals that the scale holds; the others are cut off
_COLUMNS = 4
_ROW_IN = 1.3
_NAME = 26  # letters in a line of a panel's title


def learning_curves(data: FigureData) -> Figure:
    """The training loss of the reference; below it a panel for each difference from it."""
    scored = set(data.cells.loc[is_scored(data.cells), "cell_id"])
    curves = data.curves[data.curves["cell_id"].isin(scored)]
    window = window_steps(curves)
    loss, scores = windowed_loss(curves, window=window), validated(curves)
    if loss.empty:
        raise ConfigError("no training loss")
    is_score = scores["step"].nunique() >= _FEWEST_VALIDATIONS
    gaps = _gaps(data, scores if is_score else loss)
    keys, labels = list(dict.fromkeys(gaps["key"])), function_labels(data.study)
    rows = -(-len(keys) // _COLUMNS)
    figure = Figure(figsize=(WIDTH_IN, _ROW_IN * (rows + 1) + 0.9))
    grid = figure.add_gridspec(rows + 1, _COLUMNS)
    top = figure.add_subplot(grid[0, :])
    means = over_seeds(loss[loss["key"] == data.sweep.reference])
    top.plot(means["step"], means["value"], color=INK, linewidth=1.3)
    top.set_title(f"{labels[data.sweep.reference]}, the reference: training loss")
    top.set(ylabel="nats per token", xlim=(0, gaps["step"].max() * 1.01))
    light_axes(top)
    axes: list[Axes] = []
    for i, key in enumerate(keys):
        first = {"sharey": axes[0]} if axes else {}
        ax = figure.add_subplot(grid[1 + i // _COLUMNS, i % _COLUMNS], **first)
        _gap_over_steps(gaps[gaps["key"] == key], ax, marked=is_score)
        ax.set_title(textwrap.fill(labels[key], _NAME), fontsize=8.5)
        axes.append(ax)
    axes[0].set_ylim(*_limits(gaps))
    _outer_labels(axes, "bits per byte" if is_score else "nats per token")
    where = captions.scoring_windows(data.cells, ["post_quant_bpb"]) if is_score else ""
    return framed(figure, caption(data, _meaning(data, window, is_score=is_score), where))


def _meaning(data: FigureData, window: int, *, is_score: bool) -> str:
    """What lines and bands are, for the caption."""
    smoothed = "of single steps" if window == 1 else f"means of {window} steps"
    what = f"validation at single steps (above: {smoothed})" if is_score else smoothed
    why = captions.unjudged(data)
    band = (
        f"No interval: {why}."
        if why
        else "Band: 95 % t interval of the pairs at each step, no narrower than that of the spread"
        " pooled over activations; it holds for one step alone."
    )
    return (
        f"Below: difference from the reference (line at zero; below it is better), {what}, taken"
        f" within seeds, from {percent(_SETTLED)} of the steps on,"
        f" {captions.num_seeds(data.cells)}. {band}"
    )


def _gaps(data: FigureData, points: pd.DataFrame) -> pd.DataFrame:
    """Differences from the reference in the order of the grid, each function once."""
    same = same_functions(data.cells, data.sweep.reference)
    once = points[points["key"].map(same) == points["key"]]
    if set(once["key"]) == {data.sweep.reference}:
        raise ConfigError("only the reference has a learning curve, so there is no difference")
    gaps = over_seeds(from_reference(once, data.sweep.reference))
    gaps = gaps[gaps["step"] >= _SETTLED * gaps["step"].max()]
    if gaps.empty:
        raise ConfigError("no activation shares a seed and a step with the reference")
    if captions.unjudged(data):
        gaps = gaps.assign(half_width=np.nan)
    order = {key: i for i, key in enumerate(data.sweep.keys)}
    return gaps.sort_values(
        ["key", "step"], key=lambda of: of.map(order) if of.name == "key" else of
    )


def _gap_over_steps(gap: pd.DataFrame, ax: Axes, *, marked: bool) -> None:
    """One activation's difference with its band; ``marked``: single points, not windows."""
    ax.axhline(0, color=INK, linewidth=0.9)
    marker = "o" if marked else None
    ax.plot(gap["step"], gap["value"], color=BLUE, linewidth=1.3, marker=marker, markersize=3)
    low, high = gap["value"] - gap["half_width"], gap["value"] + gap["half_width"]
    ax.fill_between(gap["step"], low, high, color=BLUE, alpha=0.2, linewidth=0)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
    light_axes(ax)


def _limits(gaps: pd.DataFrame) -> tuple[float, float]:
    """Limits that hold zero, every line's last half and most intervals."""
    late = gaps[gaps["step"] >= (gaps["step"].min() + gaps["step"].max()) / 2]
    half_width = gaps["half_width"].fillna(0.0)
    low = min((gaps["value"] - half_width).quantile(1 - _USUAL), late["value"].min(), 0.0)
    high = max((gaps["value"] + half_width).quantile(_USUAL), late["value"].max(), 0.0)
    room = 0.08 * (high - low) or 1e-3
    return low - room, high + room


def _outer_labels(axes: Sequence[Axes], unit: str) -> None:
    """Units at the left, steps below the lowest panel of each column."""
    for i, ax in enumerate(axes):
        if i % _COLUMNS == 0:
            ax.set_ylabel(f"difference\n({unit})", fontsize=8)
        else:
            ax.tick_params(labelleft=False)
        if i + _COLUMNS < len(axes):
            ax.tick_params(labelbottom=False)
        else:
            ax.set_xlabel("step")
