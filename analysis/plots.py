"""What does one quantity look like over the negative slope? (cells of one setting, Axes) -> Axes.

Every scored cell is a dot. The line is the mean over seeds, the band its 95 % t interval. ReLU² has
its own marker at slope 0; an activation without a slope stands in a strip beside the axis, and the
slopes that it learned lie along the bottom. ✕ at the top marks an activation with diverged seeds,
whose survivors are shown and not joined.
"""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.load import is_scored
from analysis.quant_delta import with_deltas
from analysis.seed_stats import seed_stats
from analysis.slopes import BESIDE, CURVE, POINT, learned_slopes, placed
from analysis.stages import title_of
from analysis.text import capital

# Okabe and Ito (2008): distinct under every common colour blindness, and in print.
BLUE, VERMILLION, GREEN, ORANGE, PURPLE = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7"
INK, GREY = "#333333", "#999999"
BESIDE_COLOURS = (GREEN, ORANGE, PURPLE)

CAP_BYTES = 16_000_000


def bpb_by_slope(cells: pd.DataFrame, ax: Axes, *, stage: str) -> Axes:
    """One stage's bits per byte over the slope."""
    ax.set_ylabel("bits per byte")
    ax.set_title(capital(f"{title_of(stage)} windows"))
    quantity_by_slope(cells, ax, quantity=stage)
    return _learned(cells, ax)


def quant_delta_by_slope(cells: pd.DataFrame, ax: Axes, *, delta: str = "quant_delta") -> Axes:
    """Post-quant − pre-quant over the slope, with a line at zero."""
    ax.set_ylabel("post-quant − pre-quant (bits per byte)")
    ax.set_title(capital(f"{title_of(delta)} windows"))
    quantity_by_slope(with_deltas(cells), ax, quantity=delta)
    if ax.get_ylim()[0] < 0 < ax.get_ylim()[1]:
        ax.axhline(0, color=INK, linewidth=0.8)
    return ax


def artifact_by_slope(cells: pd.DataFrame, ax: Axes) -> Axes:
    """Size of the artifact over the slope, with the cap where it is within sight."""
    ax.set_ylabel("artifact (kB)")
    quantity_by_slope(
        cells.assign(artifact_kB=cells["artifact_bytes"] / 1000), ax, quantity="artifact_kB"
    )
    sizes = cells.loc[is_scored(cells), "artifact_bytes"].dropna().astype(int)
    if sizes.empty:
        return ax
    largest = sizes.max()
    room = CAP_BYTES - largest
    ax.set_title(
        f"Largest artifact: {largest:,} bytes,"
        f" {abs(room):,} {'below' if room >= 0 else 'above'} the cap of {CAP_BYTES:,}"
    )
    # Further off than the sizes differ, the line would flatten what this figure is to show.
    if room <= largest - sizes.min():
        ax.axhline(CAP_BYTES / 1000, color=VERMILLION, linestyle="--", label="cap")
    return ax


def quantity_by_slope(cells: pd.DataFrame, ax: Axes, *, quantity: str) -> Axes:
    """Dots, means and intervals of ``quantity``, each activation in its place on the slope axis."""
    cells = placed(cells)
    known = cells[is_scored(cells) & cells[quantity].notna()]
    if known.empty:
        ax.text(0.5, 0.5, "no score", transform=ax.transAxes, ha="center", color=GREY)
    else:
        places = cells.drop_duplicates("key").set_index("key")[["x", "role"]]
        stats = seed_stats(cells, [quantity]).join(places, on="key")
        _seed_threads(known, ax, quantity)
        _curve(known[known["role"] == CURVE], stats[stats["role"] == CURVE], ax, quantity)
        _points(known, stats, ax, quantity)
    _diverged(cells, ax)
    _slope_axis(cells, ax)
    return ax


def legend_handles(cells: pd.DataFrame, *, learned: bool) -> list[Line2D | Patch]:
    """What the marks mean, for one legend per figure: only marks that these cells need."""
    cells = placed(cells)
    handles: list[Line2D | Patch] = []
    if CURVE in set(cells["role"]):
        handles.append(Line2D([], [], color=BLUE, marker="o", markersize=4, label="LeakyReLU²"))
    for key, colour, marker in _off_curve(cells):
        label = str(cells.loc[cells["key"] == key, "label"].iloc[0])
        hollow = Line2D([], [], color=colour, marker=marker, markerfacecolor="none", label=label)
        handles.append(hollow)
    if cells.loc[is_scored(cells), "seed"].nunique() > 1:
        handles.append(Patch(color=GREY, alpha=0.4, label="95 % t interval"))
    if learned and not learned_slopes(cells).empty:
        handles.append(Line2D([], [], color=GREEN, marker="|", label="learned slope, mean ± sd"))
    if (cells["state"] == "diverged").any():
        handles.append(Line2D([], [], color=INK, marker="x", linestyle="", label="diverged seeds"))
    return handles


def _seed_threads(known: pd.DataFrame, ax: Axes, quantity: str) -> None:
    """A faint line per seed, broken where a cell is missing; parallel lines pair well."""
    on_curve = known[known["role"] == CURVE]
    threads = on_curve.pivot(index="x", columns=["seed", "replicate"], values=quantity)
    for thread in threads:
        ax.plot(threads.index, threads[thread], color=BLUE, alpha=0.25, linewidth=0.7, zorder=1)


def _curve(known: pd.DataFrame, stats: pd.DataFrame, ax: Axes, quantity: str) -> None:
    ax.scatter(known["x"], known[quantity], s=14, color=BLUE, alpha=0.6, linewidth=0, zorder=3)
    stats = stats.sort_values("x")
    ranked = stats.where(stats["ranked"])
    ax.plot(stats["x"], ranked["mean"], color=BLUE, linewidth=1.8, marker="_", zorder=2)
    ax.vlines(stats["x"], ranked["low"], ranked["high"], color=BLUE, alpha=0.2, linewidth=0.8)
    ax.fill_between(
        stats["x"], ranked["low"], ranked["high"], color=BLUE, alpha=0.15, linewidth=0, zorder=0
    )


def _points(known: pd.DataFrame, stats: pd.DataFrame, ax: Axes, quantity: str) -> None:
    """ReLU² and what stands beside the axis: hollow dots, mean and interval beside them."""
    for key, colour, marker in _off_curve(known):
        dots = known[known["key"] == key]
        ax.scatter(
            dots["x"], dots[quantity], s=34, marker=marker, facecolor="none", edgecolor=colour
        )
        row = stats[stats["key"] == key].iloc[0]
        if row["ranked"]:
            x = row["x"] + (0.035 if row["role"] == BESIDE else -0.035)
            ax.plot([x], [row["mean"]], marker="_", markersize=7, color=colour, linewidth=0)
            if pd.notna(row["half_width"]):
                ax.plot([x, x], [row["low"], row["high"]], color=colour, linewidth=1.6)


def _learned(cells: pd.DataFrame, ax: Axes) -> Axes:
    """Below the scores, one bar per seed: the slopes that were learned, mean and mean ± sd."""
    learned = learned_slopes(cells).to_dict("records")
    where = ax.get_xaxis_transform()
    for i, row in enumerate(learned):
        height = 0.02 + 0.02 * i
        ends = [row["low"], row["high"]]
        ax.plot(ends, [height, height], transform=where, color=GREEN, linewidth=1.0)
        ax.plot([row["learned"]], [height], transform=where, color=GREEN, marker="|", markersize=6)
    if learned:  # room for the bars, as data, so that axes which share their limits agree
        box = ax.dataLim
        ax.update_datalim([(box.x0, box.y0 - (0.03 + 0.025 * len(learned)) * box.height)])
        ax.autoscale_view(scalex=False)
        left, right = ax.get_xlim()
        ax.set_xlim(min(left, *(row["low"] - 0.05 for row in learned)), right)
    return ax


def _diverged(cells: pd.DataFrame, ax: Axes) -> None:
    for x in sorted(set(cells.loc[cells["state"] == "diverged", "x"])):
        ax.plot(
            [x], [0.95], transform=ax.get_xaxis_transform(), marker="x", markersize=6, color=INK
        )


def _slope_axis(cells: pd.DataFrame, ax: Axes) -> None:
    """Ticks at the slopes that ran; a strip with its own ticks for what has no slope."""
    on_axis = cells[cells["role"] != BESIDE]
    beside = cells[cells["role"] == BESIDE].drop_duplicates("key").sort_values("x")
    slopes = sorted(set(on_axis["x"]))
    ax.set_xlim(cells["x"].min() - 0.08, cells["x"].max() + 0.1)
    ax.set_xticks(
        [*slopes, *beside["x"]], [*(f"{x:.12g}" for x in slopes), *beside["label"].astype(str)]
    )
    ax.set_xlabel("negative slope s  (β = s²)")
    if slopes and not beside.empty:
        ax.axvline(beside["x"].min() - 0.075, color=GREY, linewidth=0.8, linestyle=":")
    ax.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def _off_curve(cells: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Key, colour and marker of every activation that is not on the curve of slopes."""
    rows = cells.drop_duplicates("key").sort_values(["x", "key"])
    points = [(str(key), VERMILLION, "D") for key in rows.loc[rows["role"] == POINT, "key"]]
    beside = [str(key) for key in rows.loc[rows["role"] == BESIDE, "key"]]
    return points + [
        (key, BESIDE_COLOURS[i % len(BESIDE_COLOURS)], "s") for i, key in enumerate(beside)
    ]
