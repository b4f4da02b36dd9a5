"""The forest plot: differences from the reference at the primary stage with their intervals."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from analysis.figures import captions
from analysis.figures.captions import WIDTH_IN, caption, framed
from analysis.figures.figure_data import FigureData, optional
from analysis.figures.style import BLUE, INK, VERMILLION, light_axes
from analysis.number_format import counted, number, percent, plus_minus
from analysis.rows.read import records
from analysis.rows.scoring import windows_title
from analysis.stats.per_seed import outcome_counts

# Off the scale: so many times further than the middle row, and than the next one.
_FAR, _LEAP = 8.0, 3.0
_NUMBERS_PT, _COUNT_PT = 10, 122  # where the two columns at the right begin and end


def differences(data: FigureData) -> Figure:
    """One row per activation, the best on top; the reference is at zero.

    Thick: the simultaneous interval, which decides. Pale: the same of pooled noise alone. Thin: the
    interval of an activation's own pairs alone. Filled: resolved from the reference.
    """
    cells, contrasts, primary = data.cells, data.contrasts, data.study.primary
    paired, unranked = optional(lambda: data.paired), _unranked(data, set(contrasts["key"]))
    height = 1.5 + 0.27 * (len(contrasts) + 1 + len(unranked)) + 0.9
    figure = Figure(figsize=(WIDTH_IN, height))
    ax = figure.subplots()
    rows = contrasts.sort_values(["difference", "key"]).reset_index(drop=True)
    above = int((rows["difference"] < 0).sum())
    heights = [float(i if i < above else i + 1) for i in range(len(rows))]
    per_bpb = _nats_per_bpb(rows)
    margin = data.sweep.record_rule.nats
    limits = _limits(rows, None if per_bpb is None else -margin / per_bpb)
    own = {} if paired is None else {row["key"]: row for row in records(paired)}
    for y, row in zip(heights, records(rows), strict=True):
        _row(ax, row, y, limits, own.get(row["key"], {}))
    ax.plot([0], [above], marker="D", markersize=6, color=INK, zorder=4)
    names = dict(zip(heights, rows["label"].astype(str), strict=True))
    names[float(above)] = f"{data.study.labels[data.sweep.reference]} (reference)"
    for label, reason in unranked.items():
        _at_right(ax, len(names), f"✕ {reason}", "")
        names[float(len(names))] = label
    ax.set_yticks(sorted(names), [names[y] for y in sorted(names)])
    foot = 0.4 if per_bpb is None else -0.3  # the name of the line stands below the rows
    ax.set(xlim=limits, ylim=(len(names) - foot, -0.6))
    ax.axvline(0, color=INK, linewidth=0.9, zorder=1)
    ax.tick_params(axis="y", length=0)
    light_axes(ax, grid="x").spines["left"].set_visible(False)
    _at_right(ax, -0.9, "bits per byte", "n")
    if per_bpb is not None:
        _nats(ax, per_bpb, margin)
    ax.set_xlabel("difference from the reference (bits per byte); left of zero is better")
    first = rows.iloc[0]
    level = percent(first["level"])
    along = bool(rows.get("along_curve", pd.Series(dtype=bool)).any())
    curve = (
        " Some fixed slopes are compared along their curve, where that says more." if along else ""
    )
    meaning = (
        f"{windows_title(cells, primary)}. {_decides(first, level)}{curve} Thin, cut where it"
        f" leaves the scale: the {level} t interval of an activation's own pairs alone. Filled:"
        f" resolved from the reference. n: paired seeds.{' ✕: not ranked.' if unranked else ''}"
    )
    dashed = f"Dashed: {_nats_words(margin)} per token, the margin of the record rule."
    rule = dashed if margin else ""
    return framed(figure, caption(data, meaning, rule, captions.scoring_windows(cells, [primary])))


def _unranked(data: FigureData, compared: set[str]) -> dict[str, str]:
    """By label, in the order of the grid: why an activation with a diverged seed has no place."""
    counts = {facts["key"]: facts for facts in outcome_counts(data.cells)}
    num_seeds = data.cells.groupby("key")["seed"].nunique()
    lost = [counts[key] for key in data.sweep.keys if key in counts and key not in compared]
    return {
        facts["label"]: f"{facts['n_diverged']} of"
        f" {counted(int(num_seeds[facts['key']]), 'seed')} diverged"
        for facts in lost
        if facts["key"] != data.sweep.reference and facts["n_diverged"]
    }


def _decides(row: "pd.Series[float]", level: str) -> str:
    """What the thick interval is, or why there is none."""
    if isinstance(row["unjudged"], str):
        return f"No thick interval: {row['unjudged']}."
    many = int(row["comparisons"])
    held = f"hold for all {many} comparisons at once" if many > 1 else "are of one comparison"
    noise = f"pooled over the grid, sd {number(row['noise_sd'])}, {row['noise_df']:.0f} df"
    return (
        f"Thick: {level} intervals that {held}, widened for unequal noise; these decide. Pale:"
        f" the same for equal noise ({noise})."
    )


def _row(
    ax: Axes,
    row: Mapping[str, Any],
    y: float,
    limits: tuple[float, float],
    own: Mapping[str, Any],
) -> None:
    """Dot and intervals of one activation, what lies off the scale as an arrow, its numbers."""
    difference, alike = row["difference"], row.get("pooled_half_width")
    if pd.notna(alike):
        ends = [difference - alike, difference + alike]
        ax.plot(ends, [y, y], color=BLUE, alpha=0.3, linewidth=8, solid_capstyle="butt", zorder=1)
    for interval, width in ((own, 0.8), (row, 2.6)):
        if pd.notna(interval.get("low")):
            ends = [interval["low"], interval["high"]]
            ax.plot(ends, [y, y], color=BLUE, linewidth=width, zorder=2)
    resolved = pd.notna(row["resolved"]) and bool(row["resolved"])
    filled = BLUE if resolved else "white"
    left, right = limits
    at, marker, size = difference, "o", 6.5
    if not left <= difference <= right:
        at = left + (0.985 if difference > right else 0.015) * (right - left)
        marker, size = ">" if difference > right else "<", 8
    dot: dict[str, Any] = {"color": BLUE, "markerfacecolor": filled, "markeredgewidth": 1.4}
    ax.plot([at], [y], marker=marker, markersize=size, zorder=3, **dot)
    _at_right(ax, y, plus_minus(difference, row["half_width"], signed=True), str(row["n"]))


def _at_right(ax: Axes, y: float, text: str, count: str) -> None:
    """Two columns of words right of the row at height ``y``."""
    for words, offset, side in ((text, _NUMBERS_PT, "left"), (count, _COUNT_PT, "right")):
        ax.annotate(
            words,
            xy=(1.0, y),
            xycoords=ax.get_yaxis_transform(),
            xytext=(offset, 0),
            textcoords="offset points",
            va="center",
            ha=side,
            fontsize=8.5,
            annotation_clip=False,
        )


def _nats(ax: Axes, per_bpb: float, margin: float) -> None:
    """A second scale in nats per token, and the line of the record rule's ``margin``."""

    def to_nats(bits: ArrayLike) -> NDArray[np.float64]:
        return np.asarray(bits, dtype=np.float64) * per_bpb

    def from_nats(nats: ArrayLike) -> NDArray[np.float64]:
        return np.asarray(nats, dtype=np.float64) * (1 / per_bpb)

    scale = ax.secondary_xaxis("top", functions=(to_nats, from_nats))
    scale.set_xlabel("nats per token")
    scale.spines["top"].set_visible(False)
    scale.tick_params(length=2)
    if not margin:  # the line would be that of zero
        return
    line = -margin / per_bpb
    ax.axvline(line, color=VERMILLION, linestyle="--", linewidth=1.2, zorder=1)
    ax.annotate(
        _nats_words(margin),
        xy=(line, 0),
        xycoords=ax.get_xaxis_transform(),
        xytext=(-4, 3),
        textcoords="offset points",
        ha="right",
        color=VERMILLION,
        fontsize=8,
    )


def _nats_words(margin: float) -> str:
    return f"−{margin:g} nats"


def _nats_per_bpb(rows: pd.DataFrame) -> float | None:
    """One text and one tokenizer: the ratio is that of bytes to tokens, alike in every row."""
    known = rows[rows["nats"].notna() & (rows["difference"] != 0)]
    return None if known.empty else float((known["nats"] / known["difference"]).median())


def _limits(rows: pd.DataFrame, line: float | None) -> tuple[float, float]:
    """Zero, the line and all intervals, less the rows that are ``_FAR`` times off the others."""
    ends = rows[["difference", "low", "high"]].to_numpy(dtype=float)
    extent = np.nanmax(np.abs(ends), axis=1)
    usual = ends[extent <= _usual(np.sort(extent))]
    low, high = min(float(np.nanmin(usual)), 0.0), max(float(np.nanmax(usual)), 0.0)
    room = 0.08 * (high - low) or 1e-3
    # The line's name stands at its left.
    left = low if line is None else min(low, line - 1.2 * room)
    return left - room, high + room


def _usual(extent: NDArray[np.float64]) -> float:
    """The furthest that a row extends before the first leap to what is off the scale; sorted."""
    middle = float(np.median(extent))
    for nearer, further in pairwise(extent):
        if further > _FAR * middle and further > _LEAP * nearer:
            return float(nearer)
    return float(extent[-1])
