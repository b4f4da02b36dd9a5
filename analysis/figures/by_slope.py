"""Axes of one quantity over the negative slope: dots, means and differences from the reference.

Every scored cell is a dot, the line is the mean over seeds. A seed moves all activations together,
so an interval of a mean compares no two of them; drawn is that of the difference from the reference
(``analysis.stats.compare``, simultaneous), as a bar around the reference's mean plus that
difference: a bar that the line at the reference's mean misses is a resolved difference. ReLU² has
its own marker at slope 0; an activation without one slope stands in a strip of its own, and the
mean of those that it learned, or was given for its layers, lies along the bottom. ✕ at the top
marks an activation with diverged seeds, whose survivors are shown and not joined.
"""

import re
from itertools import takewhile

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from analysis.figures.style import (
    BLUE,
    GREY,
    INK,
    Look,
    empty_axes,
    handle,
    light_axes,
    looks,
    thinned_labels,
)
from analysis.models.interval import LEVEL
from analysis.rows.read import is_scored
from analysis.rows.stages import is_legal
from analysis.stats.compare import compare
from analysis.stats.per_seed import seed_stats
from analysis.stats.slopes import CURVE, OFF_AXIS, PLACED_BY, POINT, mean_slopes, placed
from analysis.study import Study

INTERVAL = "difference from the reference"
_OF_STATS = ("recipe", "budget", "window", "stride", "footing_json", "slot_bpb", "slot_legal")
_NAME = 14  # letters of a name below the axis; all of it is in the other figures
_NAMED_BY_TICKS = 3  # more names off the axis than this stand at their ticks only


def quantity_by_slope(study: Study, ax: Axes, *, quantity: str, level: float = LEVEL) -> Axes:
    """Dots and means of ``quantity``, each activation in its place on the slope axis, and intervals
    of differences at ``level``.
    """
    cells = placed(study.cells[[*PLACED_BY, *_OF_STATS, quantity]])
    known = cells[is_scored(cells) & cells[quantity].notna()]
    if known.empty:
        empty_axes(ax, "no score")
    else:
        places = cells.drop_duplicates("key").set_index("key")[["x", "role"]]
        means = seed_stats(cells, [quantity]).join(places, on="key")
        _seed_lines(known, ax, quantity)
        _curve(known[known["role"] == CURVE], means[means["role"] == CURVE], ax, quantity)
        _points(known, means, ax, quantity)
        if is_legal(cells, quantity):
            _from_reference(compare(study, quantity, level=level).join(places, on="key"), means, ax)
    diverged_marks(cells, ax)
    slope_axis(cells, ax)
    return ax


def legend_handles(cells: pd.DataFrame, *, means: bool = False) -> list[Artist]:
    """What the marks mean, for one legend per figure: only marks that these cells need."""
    cells = placed(cells[[*PLACED_BY]])
    known = _off_curve(cells)
    handles: list[Artist] = []
    if CURVE in set(cells["role"]):
        handles.append(handle("LeakyReLU²", color=BLUE, marker="o", markersize=4))
    for key, look in known.items() if len(known) <= _NAMED_BY_TICKS else ():
        label = str(cells.loc[cells["key"] == key, "label"].iloc[0])
        handles.append(handle(label, color=look.colour, marker=look.marker, mfc="none", ls=""))
    if cells.loc[is_scored(cells), "seed"].nunique() > 1:
        handles.append(handle(INTERVAL, color=GREY, alpha=0.6, marker="|", markersize=10, ls=""))
    if means and not mean_slopes(cells).empty:
        handles.append(handle("mean slope ± sd", color=INK, marker="|", linewidth=1.0))
    if (cells["state"] == "diverged").any():
        handles.append(handle("diverged seeds", color=INK, marker="x", linestyle=""))
    return handles


def _seed_lines(known: pd.DataFrame, ax: Axes, quantity: str) -> None:
    """A faint line per seed, broken where a cell is missing; parallel lines pair well."""
    on_curve = known[known["role"] == CURVE]
    lines = on_curve.pivot(index="x", columns=["seed", "replicate"], values=quantity)
    for line in lines:
        ax.plot(lines.index, lines[line], color=BLUE, alpha=0.25, linewidth=0.7, zorder=1)


def _curve(known: pd.DataFrame, means: pd.DataFrame, ax: Axes, quantity: str) -> None:
    ax.scatter(known["x"], known[quantity], s=14, color=BLUE, alpha=0.6, linewidth=0, zorder=3)
    means = means.sort_values("x")
    ranked = means["mean"].where(means["ranked"])
    ax.plot(means["x"], ranked, color=BLUE, linewidth=1.8, marker="_", zorder=2)


def _points(known: pd.DataFrame, means: pd.DataFrame, ax: Axes, quantity: str) -> None:
    """ReLU² and what is off the axis: hollow dots, and next to them the mean."""
    for key, look in _off_curve(known).items():
        dots = known[known["key"] == key]
        ax.scatter(
            dots["x"],
            dots[quantity],
            s=34,
            marker=look.marker,
            facecolor="none",
            edgecolor=look.colour,
        )
        row = means[means["key"] == key].iloc[0]
        if row["ranked"]:
            x = row["x"] + _aside(row["role"])
            ax.plot([x], [row["mean"]], marker="_", markersize=7, color=look.colour, linewidth=0)


def _from_reference(gaps: pd.DataFrame, means: pd.DataFrame, ax: Axes) -> None:
    """The reference's mean as a line, and at each other activation the interval of its difference.

    ``gaps``: rows of ``compare``. Where scores are missing, such a bar need not be centred on the
    activation's own mean, which is over other seeds.
    """
    gaps = gaps[gaps["low"].notna()]
    if gaps.empty:
        return
    base = float(means.loc[means["key"] == gaps["reference"].iloc[0], "mean"].iloc[0])
    ax.axhline(base, color=GREY, linewidth=0.9, zorder=0)
    x = gaps["x"] + gaps["role"].map(_aside)
    ends = base + gaps["low"], base + gaps["high"]
    ax.vlines(x, *ends, color=GREY, alpha=0.6, linewidth=2.2, zorder=0)


def _aside(role: str) -> float:
    """How far from its dots the mean of what is not on the curve stands."""
    return {CURVE: 0.0, OFF_AXIS: 0.035}.get(role, -0.035)


def diverged_marks(cells: pd.DataFrame, ax: Axes) -> None:
    """✕ at the top, in the place of every activation of which a seed diverged."""
    for x in sorted(set(cells.loc[cells["state"] == "diverged", "x"])):
        ax.plot(
            [x], [0.95], transform=ax.get_xaxis_transform(), marker="x", markersize=6, color=INK
        )


def slope_axis(cells: pd.DataFrame, ax: Axes) -> None:
    """Ticks at the slopes that ran; a strip with its own ticks for what has no slope."""
    on_axis = cells[cells["role"] != OFF_AXIS]
    off_axis = cells[cells["role"] == OFF_AXIS].drop_duplicates("key").sort_values("x")
    slopes = sorted(set(on_axis["x"]))
    names = short_names([str(label) for label in off_axis["label"]])
    ax.set_xlim(cells["x"].min() - 0.08, cells["x"].max() + 0.1)
    texts = thinned_labels(ax, slopes, [f"{x:.4g}" for x in slopes])
    ax.set_xticks([*slopes, *off_axis["x"]], [*texts, *names])
    if len(names) > 2 or max(map(len, names), default=0) > 8:
        for tick in ax.get_xticklabels()[len(slopes) :]:
            tick.set(rotation=35, ha="right", rotation_mode="anchor")
    ax.set_xlabel("negative slope s  (β = s²)")
    if slopes and not off_axis.empty:
        ax.axvline(off_axis["x"].min() - 0.075, color=GREY, linewidth=0.8, linestyle=":")
    light_axes(ax)


def short_names(names: list[str]) -> list[str]:
    """Each name in ``_NAME`` letters, from the word on that tells it from others cut alike.

    >>> short_names(["ASQU", "LeakyReLU² by layer 0.3to0.6-92f4c", "LeakyReLU² by layer 0.1to0.9"])
    ['ASQU', '…0.3to0.6-92f…', '…0.1to0.9']
    """
    cut = [_cut(name) for name in names]
    words = [re.split(r"(?<=[ -])", name) for name in names]
    short = []
    for mine, its in zip(words, cut, strict=True):
        others = [one for one, same in zip(words, cut, strict=True) if same == its and one != mine]
        shared = max((_num_shared(mine, other) for other in others), default=0)
        short.append(_cut("…" + "".join(mine[shared:])) if shared else its)
    return short


def _num_shared(mine: list[str], other: list[str]) -> int:
    """How many words two names begin with alike."""
    return sum(
        1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(mine, other, strict=False))
    )


def _cut(name: str) -> str:
    return name if len(name) <= _NAME else name[: _NAME - 1].rstrip() + "…"


def _off_curve(cells: pd.DataFrame) -> dict[str, Look]:
    """The look of every activation that is not on the curve of slopes, by key."""
    rows = cells[cells["role"].isin([POINT, OFF_AXIS])].drop_duplicates("key")
    look_of = looks(cells)
    return {str(key): look_of[str(key)] for key in rows.sort_values(["x", "key"])["key"]}
