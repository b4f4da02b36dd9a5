"""The figure of the fitted curve over the slope with its best slopes, and of published points.

The points are drawn over the scores of ``analysis.figures.scores``.
"""

from itertools import cycle
from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.conclusions.slope_curve import CONTRAST_LEVEL, SlopeCurve
from analysis.figures import captions
from analysis.figures.by_slope import INTERVAL, diverged_marks, legend_handles, slope_axis
from analysis.figures.captions import WIDTH_IN, caption, framed
from analysis.figures.figure_data import FigureData
from analysis.figures.style import BLUE, GREY, INK, handle, looks
from analysis.number_format import DASH, percent
from analysis.rows.read import records
from analysis.rows.scoring import windows_title
from analysis.stats.seed_effects import without_seed
from analysis.stats.slopes import CURVE, placed

_MARKERS = ("o", "s", "^", "v", "D", "P")


def best_slope(data: FigureData) -> Figure:
    """The primary stage without what seeds differ by: the fit, and which slopes may be the best."""
    cells, curve = data.cells, data.slope_curve
    figure = Figure(figsize=(WIDTH_IN, 4.8))
    ax = figure.subplots()
    _centred_by_slope(cells, ax, quantity=curve.quantity)
    low, high = ax.get_ylim()
    fitted_curve(curve, ax)
    _cut_shade(ax, low, high)
    known = [entry for entry in legend_handles(cells) if entry.get_label() != INTERVAL]
    meaning = (
        f"Dots: single seeds, {captions.num_seeds(cells)}, less the effect of the seed in the"
        " additive model of activations and seeds."
    )
    windows = captions.scoring_windows(cells, [curve.quantity])
    words = caption(data, meaning, fit_words(curve), windows)
    return framed(figure, words, [*known, *fit_handles(curve)])


def fitted_curve(curve: SlopeCurve, ax: Axes) -> None:
    """The fit with its band, and along the bottom the slopes that may be the best."""
    line = curve.line.sort_values("slope")
    alone: dict[str, Any] = (
        {"marker": "_", "markersize": 12, "linestyle": ""} if curve.degree is None else {}
    )
    ax.plot(line["slope"], line["fit"], color=INK, linewidth=1.8, zorder=4, **alone)
    if line[["low", "high"]].notna().all(axis=None):
        ax.fill_between(
            line["slope"], line["low"], line["high"], color=INK, alpha=0.2, linewidth=0, zorder=3
        )
    if curve.best is None:
        return
    where = ax.get_xaxis_transform()
    for low, high in curve.best_set:
        ax.plot(
            [low, high],
            [0.0, 0.0],
            transform=where,
            color=INK,
            linewidth=5,
            marker="|" if low == high else None,
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


def _cut_shade(ax: Axes, low: float, high: float) -> None:
    """Limits no further off than the dots are apart: a shade may be many times wider."""
    bottom, top = ax.get_ylim()
    ax.set_ylim(max(bottom, low - (high - low)), min(top, high + (high - low)))


def _centred_by_slope(cells: pd.DataFrame, ax: Axes, *, quantity: str) -> None:
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
    ax.set_title(windows_title(cells, quantity))


def fit_handles(curve: SlopeCurve) -> list[Artist]:
    """What the fit's marks are, with the answer that they give."""
    fit = "mean of each slope" if curve.degree is None else "smooth fit"
    handles: list[Artist] = [handle(fit, color=INK, linewidth=1.8)]
    if curve.best is not None:
        look = {"marker": "^", "markersize": 8, "markeredgecolor": "white"}
        handles.append(handle(best_words(curve), color=INK, linewidth=4, **look))
    return handles


def best_words(curve: SlopeCurve) -> str:
    """``best slope 0.48 (95 % set 0.41–0.55)``; less where no two slopes are resolved."""
    if curve.best is None:
        return "no best slope"
    if curve.flat:
        return f"fit lowest at {curve.best:.2f}; no two slopes are resolved"
    runs = (dict.fromkeys(f"{end:.2f}" for end in run) for run in curve.best_set)
    sets = ", ".join(DASH.join(run) for run in runs)
    return f"best slope {curve.best:.2f} ({percent(curve.level)} set {sets})"


def fit_words(curve: SlopeCurve) -> str:
    """What the fit is and what the bar below it means, for the caption."""
    level = percent(curve.level)
    words = f"Dark line: smooth fit, n = {curve.n} seeds, their effects taken off."
    if curve.best is None:
        return f"{words} {curve.reason or ''}".strip()
    if curve.degree is None:
        words = f"No smooth curve fits: dark marks are means of n = {curve.n} seeds."
    if curve.line["low"].notna().any():
        words += (
            f" Shade: difference from the reference slope ({100 * CONTRAST_LEVEL:g} %,"
            " simultaneous), cut where it leaves the scale."
        )
    return f"{words} Bar at the foot: the slopes that may be the best ({level} set)."


def published_over(points: pd.DataFrame, ax: Axes) -> None:
    """Published scores of the same recipe and stage, hollow and grey: under ours, never in a mean.

    ``points``: x (slope), value (bits per byte), pr.
    """
    looks_of = _published_looks(points)
    for row in records(points.dropna(subset=["x", "value"])):
        ax.plot([row["x"]], [row["value"]], markeredgewidth=1.3, zorder=1, **looks_of[row["pr"]])


def published_handles(points: pd.DataFrame) -> list[Artist]:
    """Which mark is which pull request."""
    looks_of = _published_looks(points)
    return [handle(f"published, PR #{pr}", **look) for pr, look in looks_of.items()]


def _published_looks(points: pd.DataFrame) -> dict[int, dict[str, Any]]:
    known = sorted(set(points.dropna(subset=["x", "value"])["pr"]))
    hollow = {"color": GREY, "markerfacecolor": "none", "markersize": 7, "linestyle": ""}
    return {int(pr): {**hollow, "marker": m} for pr, m in zip(known, cycle(_MARKERS), strict=False)}
