"""Axes of statistical power: the smallest effect that seeds resolve, and power over effects."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from analysis.figures.style import BLUE, GREY, INK, VERMILLION, Line, empty_axes, light_axes
from analysis.number_format import number

DESIGNS: dict[str, tuple[str, str, Line]] = {
    "block": (BLUE, "o", "-"),
    "unpaired": (VERMILLION, "s", "--"),
}
_SURE = 0.99  # where the better design has this power, its curve says nothing more
_WORDS = {"block": "seeds as blocks", "unpaired": "unpaired"}


def effect_over_seeds(
    curve: pd.DataFrame,
    ax: Axes,
    *,
    power: float,
    finished: pd.DataFrame | None = None,
    field_effect: float | None = None,
) -> Axes:
    """Smallest effect (bits per byte) that ``power`` of all sweeps of n seeds resolve, per design.

    ``curve``: design, n, effect, power; only rows of ``power`` are drawn. ``finished``: design, n,
    effect of the grid as it is. ``field_effect``: 0.005 nats per token in bits per byte.
    """
    shown = curve[((curve["power"] - power).abs() < 1e-9) & curve["effect"].notna()]
    ax.set(xlabel="seeds per activation", ylabel="smallest resolvable effect\n(bits per byte)")
    if shown.empty:
        return empty_axes(light_axes(ax), "the noise is not known yet")
    last = float(shown["n"].max())
    for design, (colour, marker, line) in DESIGNS.items():
        rows = shown[shown["design"] == design].sort_values("n")
        if rows.empty:
            continue
        ax.plot(
            rows["n"],
            rows["effect"],
            color=colour,
            marker=marker,
            linestyle=line,
            markersize=4,
            linewidth=1.4,
        )
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.set_xlim(float(shown["n"].min()) - 0.4, last + 0.4)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
    if field_effect is not None:
        ax.axhline(field_effect, color=INK, linestyle=":", linewidth=1.1)
        ax.annotate(
            "0.005 nats per token",
            xy=(0, field_effect),
            xycoords=ax.get_yaxis_transform(),
            xytext=(4, -3),
            textcoords="offset points",
            va="top",
            fontsize=8,
        )
        low, high = ax.get_ylim()
        ax.set_ylim(min(low, field_effect / (high / low) ** 0.1), high)
    if finished is not None:
        _finished(ax, finished)
    return light_axes(ax)


def power_over_effect(
    curve: pd.DataFrame, ax: Axes, *, power: float, field_effect: float | None = None
) -> Axes:
    """The share of sweeps like this one that would resolve an effect of that size, per design."""
    ax.set(xlabel="true difference from the reference\n(bits per byte)", ylabel="power (%)")
    if curve.empty:
        return empty_axes(light_axes(ax), "the noise is not known yet")
    for design, (colour, _, line) in DESIGNS.items():
        rows = curve[curve["design"] == design].sort_values("effect")
        ax.plot(rows["effect"], 100 * rows["power"], color=colour, linestyle=line, linewidth=1.6)
    sure = curve[(curve["design"] == "block") & (curve["power"] > _SURE)]["effect"].min()
    right = float(curve["effect"].max() if pd.isna(sure) else 1.6 * sure)
    ax.set(xlim=(0, max(right, 1.2 * (field_effect or 0.0))), ylim=(0, 101))
    ax.axhline(100 * power, color=GREY, linewidth=0.9)
    if field_effect is not None and field_effect < ax.get_xlim()[1]:
        ax.axvline(field_effect, color=INK, linestyle=":", linewidth=1.1)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=5))
    return light_axes(ax)


def handles(curve: pd.DataFrame) -> list[Line2D]:
    """Which line is which design."""
    return [
        Line2D(
            [], [], color=colour, marker=marker, markersize=4, linestyle=line, label=_WORDS[name]
        )
        for name, (colour, marker, line) in DESIGNS.items()
        if name in set(curve["design"])
    ]


def _finished(ax: Axes, finished: pd.DataFrame) -> None:
    """The grid as it is: a ring, with its number."""
    rows = finished[(finished["design"] == "block") & finished["effect"].notna()]
    for n, effect in zip(rows["n"], rows["effect"], strict=True):
        ax.plot([n], [effect], marker="o", markersize=11, mfc="none", color=INK, mew=1.4, zorder=4)
        ax.annotate(
            f"this grid: {number(effect)}",
            xy=(float(n), float(effect)),
            xytext=(9, 9),
            textcoords="offset points",
            color=INK,
        )
