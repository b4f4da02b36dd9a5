"""Axes of the fitted curve over the slope with its best slopes, and of published points.

Drawn over ``by_slope.bpb_by_slope``, whose dots it explains.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.figures.panels.by_slope import diverged_marks, slope_axis
from analysis.figures.style import BLUE, GREY, INK, looks
from analysis.number_format import DASH, capital, percent
from analysis.rows.read import records
from analysis.rows.stages import title_of
from analysis.stats.seed_effects import without_seed
from analysis.stats.slopes import CURVE, placed

if TYPE_CHECKING:
    from analysis.stats.slope_curve import SlopeCurve

_MARKERS = ("o", "s", "^", "v", "D", "P")


def fitted_curve(curve: SlopeCurve, ax: Axes) -> Axes:
    """The smooth fit with its band, and along the bottom the slopes that may be the best."""
    line = curve.line.sort_values("slope")
    ax.plot(line["slope"], line["fit"], color=INK, linewidth=1.8, zorder=4)
    if line[["low", "high"]].notna().all(axis=None):
        ax.fill_between(
            line["slope"], line["low"], line["high"], color=INK, alpha=0.2, linewidth=0, zorder=3
        )
    if curve.best is None:
        return ax
    where = ax.get_xaxis_transform()
    for low, high in curve.best_set or ():
        ax.plot(
            [low, high],
            [0.0, 0.0],
            transform=where,
            color=INK,
            linewidth=5,
            clip_on=False,
            solid_capstyle="butt",
            zorder=5,
        )
    ax.plot(
        [curve.best],
        [0.0],
        transform=where,
        marker="^",
        markersize=8,
        color=INK,
        markeredgecolor="white",
        clip_on=False,
        zorder=6,
    )
    return ax


def centred_by_slope(cells: pd.DataFrame, ax: Axes, *, quantity: str) -> Axes:
    """Every score less the effect of its seed, as a dot in its place on the slope axis."""
    known = placed(cells.assign(centred=without_seed(cells, quantity)))
    look_of = looks(cells)
    for key, rows in known[known["centred"].notna()].groupby("key"):
        look = look_of[str(key)]
        hollow = rows["role"].iloc[0] != CURVE
        ax.scatter(
            rows["x"],
            rows["centred"],
            s=34 if hollow else 22,
            marker=look.marker,
            facecolor="none" if hollow else BLUE,
            edgecolor=look.colour if hollow else "none",
            alpha=1.0 if hollow else 0.6,
            zorder=3,
        )
    diverged_marks(known, ax)
    slope_axis(known, ax)
    ax.set_ylabel("bits per byte,\nless the effect of the seed")
    ax.set_title(capital(f"{title_of(quantity)} windows"))
    return ax


def fit_handles(curve: SlopeCurve) -> list[Line2D]:
    """What the fit's marks are, with the answer that they give."""
    handles = [Line2D([], [], color=INK, linewidth=1.8, label="smooth fit")]
    if curve.best is not None:
        handles.append(
            Line2D(
                [],
                [],
                color=INK,
                marker="^",
                linewidth=4,
                markeredgecolor="white",
                markersize=8,
                label=best_words(curve),
            )
        )
    return handles


def best_words(curve: SlopeCurve) -> str:
    """``best slope 0.48 (95 % set 0.41–0.55)``; of a flat curve, or one that does not fit, less."""
    if curve.best is None:
        return "no best slope"
    if not curve.fits:
        return f"fit lowest at {curve.best:.2f}, but it does not fit the slopes"
    if curve.flat is not False:
        return f"fit lowest at {curve.best:.2f}; no effect of the slope is resolved"
    sets = ", ".join(f"{low:.2f}{DASH}{high:.2f}" for low, high in curve.best_set or ())
    return f"best slope {curve.best:.2f} ({percent(curve.level)} set {sets})"


def fit_words(curve: SlopeCurve) -> str:
    """What the fit is and what the bar below it means, for the caption."""
    words = f"Dark line: smooth fit, {percent(curve.level)} band, n = {curve.n} seeds as blocks."
    if curve.best is None:
        return f"{words} {curve.reason or ''}".strip()
    return f"{words} Bar at the foot: the slopes that may be the best ({percent(curve.level)} set)."


def published_over(points: pd.DataFrame, ax: Axes) -> Axes:
    """Published scores of the same recipe and stage, hollow and grey: under ours, never in a mean.

    ``points``: x (slope), value (bits per byte), pr.
    """
    markers = _markers(points)
    for row in records(points.dropna(subset=["x", "value"])):
        ax.plot(
            [row["x"]],
            [row["value"]],
            marker=markers[row["pr"]],
            markersize=7,
            color=GREY,
            markerfacecolor="none",
            markeredgewidth=1.3,
            linestyle="",
            zorder=1,
        )
    return ax


def published_handles(points: pd.DataFrame) -> list[Line2D]:
    """Which mark is which pull request."""
    return [
        Line2D(
            [],
            [],
            color=GREY,
            marker=marker,
            mfc="none",
            linestyle="",
            markersize=7,
            label=f"published, PR #{pr}",
        )
        for pr, marker in _markers(points).items()
    ]


def _markers(points: pd.DataFrame) -> dict[int, str]:
    known = points.dropna(subset=["x", "value"])
    return {int(pr): _MARKERS[i % len(_MARKERS)] for i, pr in enumerate(sorted(set(known["pr"])))}
