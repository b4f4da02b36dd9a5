"""The figure of power: the smallest effect that seeds resolve, and power over effects."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from analysis.figures import captions
from analysis.figures.captions import WIDTH_IN, framed
from analysis.figures.figure_data import POWER, FigureData, Resolution
from analysis.figures.style import BLUE, GREEN, GREY, INK, VERMILLION, Look, handle, light_axes
from analysis.number_format import counted, number, percent
from analysis.rows.scoring import windows_title

_DESIGNS = {
    "block": ("paired within seeds: decides", Look(BLUE, "o", "-")),
    "pooled": ("the same for equal noise", Look(GREEN, "^", "-.")),
    "unpaired": ("unpaired seeds for equal noise", Look(VERMILLION, "s", "--")),
}
_SURE = 0.99  # where the better design has this power, its curve says nothing more


def resolution(data: FigureData) -> Figure:
    """The smallest effect that more or fewer seeds would resolve, and the power of this grid."""
    cells, found, primary = data.cells, data.resolution, data.study.primary
    figure = Figure(figsize=(WIDTH_IN, 4.0))
    left, right = figure.subplots(1, 2)
    _effect_over_seeds(found, left)
    _power_over_effect(found, right)
    first = found.here.iloc[0]
    meaning = (
        f"{windows_title(cells, primary)}. Resolved: the simultaneous interval"
        f" ({percent(first['level'])}, {counted(int(first['comparisons']), 'comparison')}) excludes"
        f" zero. Left: the effect that {percent(POWER)} of all sweeps would resolve; right: this"
        f" grid, n = {first['n']} seeds. Noise: its own, sd {number(first['noise_sd'])} bits per"
        " byte within seeds."
    )
    known = set(found.curve["design"])
    handles = [
        handle(words, markersize=4, **look.of_line)
        for name, (words, look) in _DESIGNS.items()
        if name in known
    ]
    return framed(
        figure,
        [captions.recipe_and_budget(cells), meaning, captions.scoring_windows(cells, [primary])],
        handles,
    )


def _effect_over_seeds(found: Resolution, ax: Axes) -> None:
    """Smallest effect that ``POWER`` of all sweeps of n seeds resolve, per design, log scale."""
    ax.set(xlabel="seeds per activation", ylabel="smallest resolvable effect\n(bits per byte)")
    for design, (_, look) in _DESIGNS.items():
        rows = found.over_seeds[found.over_seeds["design"] == design]
        if not rows.empty:
            ax.plot(rows["n"], rows["effect"], markersize=4, linewidth=1.4, **look.of_line)
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.set_xlim(found.over_seeds["n"].min() - 0.4, found.over_seeds["n"].max() + 0.4)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
    if found.record_effect is not None:
        ax.axhline(found.record_effect, color=INK, linestyle=":", linewidth=1.1)
        ax.annotate(
            f"{found.record_nats:g} nats per token",
            xy=(0, found.record_effect),
            xycoords=ax.get_yaxis_transform(),
            xytext=(4, -3),
            textcoords="offset points",
            va="top",
            fontsize=8,
        )
        low, high = ax.get_ylim()
        ax.set_ylim(min(low, found.record_effect / (high / low) ** 0.1), high)
    _mark_this_grid(found.here, ax)
    light_axes(ax)


def _mark_this_grid(here: pd.DataFrame, ax: Axes) -> None:
    """The grid as it is: a ring, with its number."""
    row = here[here["design"] == "block"].iloc[0]
    at = (float(row["n"]), float(row["effect"]))
    ax.plot(*at, marker="o", markersize=11, mfc="none", color=INK, mew=1.4, zorder=4)
    words = f"this grid: {number(row['effect'])}"
    ax.annotate(words, xy=at, xytext=(9, 9), textcoords="offset points", color=INK)


def _power_over_effect(found: Resolution, ax: Axes) -> None:
    """The share of sweeps like this one that would resolve an effect of that size, per design."""
    curve, field = found.curve, found.record_effect
    ax.set(xlabel="true difference from the reference\n(bits per byte)", ylabel="power (%)")
    for design, (_, look) in _DESIGNS.items():
        rows = curve[curve["design"] == design]
        line = look.of_line | {"marker": None}
        ax.plot(rows["effect"], 100 * rows["power"], linewidth=1.6, **line)
    sure = curve[(curve["design"] == "block") & (curve["power"] > _SURE)]["effect"].min()
    right = float(curve["effect"].max() if pd.isna(sure) else 1.6 * sure)
    ax.set(xlim=(0, max(right, 1.2 * (field or 0.0))), ylim=(0, 101))
    ax.axhline(100 * POWER, color=GREY, linewidth=0.9)
    if field is not None and field < ax.get_xlim()[1]:
        ax.axvline(field, color=INK, linestyle=":", linewidth=1.1)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=5))
    light_axes(ax)
