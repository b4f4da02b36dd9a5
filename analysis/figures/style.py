"""Colours, markers and line styles of activations, plain axes, and labels that do not overlap.

A slope has a colour of an ordered scale (viridis, dark to light, van der Walt and Smith 2015), so
that neighbours look alike and the order can be read. What has no slope has a colour of Okabe and
Ito (2008), with a marker and a line style of its own: no two activations differ by colour alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D
from scipy.optimize import isotonic_regression

from analysis.stats.slopes import CURVE, PLACED_BY, POINT, placed

BLUE, VERMILLION, GREEN, ORANGE, PURPLE = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7"
SKY, INK, GREY = "#56B4E9", "#333333", "#999999"

Line = Literal["-", "--", "-.", ":"]

_LINES: tuple[Line, ...] = ("--", "-.", ":")
# Light yellow is lost on white, so the scale ends before it.
_LIGHTEST = 0.86
_SIZE = 8.0  # of labels and ticks
_LABEL_GAP = 1.35  # of the font's size, between the middles of two labels


@dataclass(frozen=True, slots=True)
class Look:
    """Colour, marker and line style of one activation."""

    colour: str
    marker: str
    line: Line

    @property
    def of_line(self) -> dict[str, Any]:
        """What ``Axes.plot`` is told."""
        return {"color": self.colour, "linestyle": self.line, "marker": self.marker}


_OFF_CURVE = [
    Look(colour, marker, line)
    for line in _LINES
    for colour, marker in (
        *((PURPLE, "s"), (ORANGE, "^"), (GREEN, "v")),
        *((SKY, "P"), (INK, "X"), (BLUE, "h")),
    )
]


def looks(cells: pd.DataFrame) -> dict[str, Look]:
    """The look of every activation in ``cells``, by key, from small slopes to large.

    ReLU², which has a fixed β and no slope, has the slopes' neighbourhood and a look of its own.
    """
    rows = placed(cells[[*PLACED_BY]]).drop_duplicates("key").sort_values(["x", "key"])
    curve = [str(key) for key in rows.loc[rows["role"] == CURVE, "key"]]
    shades = mpl.colormaps["viridis"](np.linspace(0, _LIGHTEST, max(len(curve), 2)))
    found = {key: Look(to_hex(shade), "o", "-") for key, shade in zip(curve, shades, strict=False)}
    rest = iter(range(len(rows)))
    for key, role in zip(rows["key"], rows["role"], strict=True):
        if role == POINT and VERMILLION not in {look.colour for look in found.values()}:
            found[str(key)] = Look(VERMILLION, "D", "--")
        elif role != CURVE:
            found[str(key)] = _OFF_CURVE[next(rest) % len(_OFF_CURVE)]
    return {str(key): found[str(key)] for key in rows["key"]}


def handle(label: str, **look: Any) -> Line2D:
    """An entry of a legend."""
    return Line2D([], [], label=label, **look)


def light_axes(ax: Axes, *, grid: str = "y") -> Axes:
    """``ax`` without the frame that says nothing, with a grid that is seen only if looked for."""
    if grid:
        ax.grid(axis=grid, color=GREY, alpha=0.25, linewidth=0.6)  # type: ignore[arg-type]
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def empty_axes(ax: Axes, words: str) -> Axes:
    """``ax`` empty, and the reason in its middle."""
    ax.text(0.5, 0.5, words, transform=ax.transAxes, ha="center", va="center", color=GREY)
    return ax


def spread_apart(preferred: Sequence[float], gap: float, *, low: float, high: float) -> list[float]:
    """Places nearest to those ``preferred`` that are ``gap`` apart, in their order, in low to high.

    Isotonic regression of what is left of each place after the gaps below it. Where there is no
    room for all they exceed ``high``.

    >>> spread_apart([0.0, 0.1, 5.0], 1.0, low=0.0, high=9.0)
    [0.0, 1.0, 5.0]
    """
    order = np.argsort(np.asarray(preferred, dtype=float), kind="stable")
    gaps = gap * np.arange(len(order))
    levels = isotonic_regression(np.asarray(preferred, dtype=float)[order] - gaps).x
    # Both bounds rise by a gap from one place to the next, so they keep the gaps.
    levels = np.maximum(np.minimum(levels, high - (len(order) - 1) * gap), low)
    places = np.empty(len(order))
    places[order] = levels + gaps
    return [round(float(place), 12) for place in places]


def label_ends(ax: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Names of lines at the right edge of ``ax``, each at the height of its end as far as they fit.

    ``ends``: x and y of the line's last point, text, colour. Call it when the limits are settled.
    """
    low, high = ax.get_ylim()
    height_pt = 72 * ax.get_window_extent().height / ax.figure.dpi
    heights = [min(max((y - low) / (high - low), 0.0), 1.0) for _, y, _, _ in ends]
    places = spread_apart(heights, _LABEL_GAP * _SIZE / height_pt, low=0.0, high=1.0)
    for (x, y, text, colour), place in zip(ends, places, strict=True):
        ax.annotate(
            text,
            xy=(x, min(max(y, low), high)),
            xytext=(1.035, place),
            textcoords="axes fraction",
            va="center",
            fontsize=_SIZE,
            color=INK,
            annotation_clip=False,
            arrowprops={
                **{"arrowstyle": "-", "color": colour, "linewidth": 0.9, "shrinkA": 1},
                **{"shrinkB": 0, "relpos": (0.0, 0.5)},
            },
        )


def thinned_labels(ax: Axes, places: Sequence[float], texts: Sequence[str]) -> list[str]:
    """``texts``, of which only every second, third … is kept where more would touch."""
    left, right = ax.get_xlim()
    per_unit = _width_in(ax) * 72 / (right - left)
    order = [int(i) for i in np.argsort(np.asarray(places), kind="stable")]
    for each in range(1, len(order) + 1):
        kept = order[::each]
        ends = [(places[i] * per_unit, 0.32 * _SIZE * len(texts[i]) + 0.12 * _SIZE) for i in kept]
        if all(b - half_b > a + half_a for (a, half_a), (b, half_b) in pairwise(ends)):
            return [text if i in kept else "" for i, text in enumerate(texts)]
    return list(texts)


def _width_in(ax: Axes) -> float:
    """About the width of ``ax`` once the layout is settled: its column less labels and gaps."""
    columns = ax.get_gridspec().ncols  # type: ignore[union-attr]  # all axes here are subplots
    return ax.figure.bbox.width / ax.figure.dpi / columns - 0.55
