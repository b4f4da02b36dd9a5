"""Figures of scores over the negative slope: the four stages, deltas between them, and sizes."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.conclusions.contrasts import mean_level
from analysis.figures import captions, slope_curve
from analysis.figures.by_slope import legend_handles, quantity_by_slope
from analysis.figures.captions import WIDTH_IN, caption, framed
from analysis.figures.figure_data import FigureData, optional
from analysis.figures.style import BLUE, GREY, INK, VERMILLION, light_axes, looks
from analysis.models.interval import LEVEL
from analysis.number_format import listed
from analysis.rows.read import is_scored
from analysis.rows.scoring import windows_title
from analysis.rows.stages import DELTAS, PANELS, STAGES, is_legal
from analysis.stats.quantization import with_deltas
from analysis.stats.slopes import mean_slopes
from trainer.config.config_errors import ConfigError

CAP_BYTES = 16_000_000
_KB, _MB = 1e3, 1e6


def bpb_by_slope(data: FigureData) -> Figure:
    """The four stages side by side: pre-quant, post-quant, sliding, TTT."""
    cells, level = data.cells, mean_level(data.study)
    published = optional(lambda: data.published) or {}
    figure = Figure(figsize=(WIDTH_IN, 7.4))
    handles = legend_handles(cells, means=True)
    for ax, stage in zip(figure.subplots(2, 2, sharey="row").flat, PANELS, strict=True):
        ax.set_ylabel("bits per byte")
        ax.set_title(windows_title(cells, stage))
        quantity_by_slope(data.study, ax, quantity=stage, level=level)
        _mean_slopes(cells, ax)
        if stage in published:
            slope_curve.published_over(published[stage], ax)
        ax.label_outer()
    means = "Mean slope: sign(β)·√|β| of the mean β and of mean ± sd over layers and channels."
    remarks = ["" if mean_slopes(cells).empty else means]
    if published:
        points = pd.concat(published.values())
        handles += slope_curve.published_handles(points)
        remarks.append(_published_words(points, str(cells["budget"].iloc[0])))
    windows = captions.scoring_windows(cells, PANELS)
    return framed(figure, caption(data, windows, *remarks, marks=level), handles)


def delta(data: FigureData, *, name: str) -> Figure:
    """One entry of ``stages.DELTAS`` over the slope, with a line at zero where it is in sight."""
    cells = data.cells
    study = data.study.derive(with_deltas)
    if not study.cells.loc[is_scored(cells), name].notna().any():
        raise ConfigError("no cell has both scores in windows known to be alike")
    figure = Figure(figsize=(WIDTH_IN, 4.6))
    ax = figure.subplots()
    after, before = (_without_windows(s) for s in (DELTAS[name].after, DELTAS[name].before))
    ax.set_ylabel(f"{after} − {before} (bits per byte)")
    legal = is_legal(cells, name)
    mark = "" if legal else ": not a legal score, never ranked"
    ax.set_title(f"{windows_title(cells, name)}{mark}")
    quantity_by_slope(study, ax, quantity=name)
    if ax.get_ylim()[0] < 0 < ax.get_ylim()[1]:
        ax.axhline(0, color=INK, linewidth=0.8)
    sign = (
        "Above zero: quantization costs." if name.startswith("quant") else "Below zero is a gain."
    )
    illegal = "SLOT is fitted here on the targets that it scores: no legal score, so without bars."
    windows = captions.scoring_windows(cells, [name])
    words = caption(data, windows, sign, "" if legal else illegal, marks=LEVEL)
    return framed(figure, words, legend_handles(cells))


def artifact_bytes(data: FigureData) -> Figure:
    """How large the packed model is at each slope, and how far below the cap.

    Sizes differ by far less than their distance from the cap can be, so one axis cannot show both:
    below are the sizes over the slope, above all of them on the way from nothing to the cap.
    """
    cells = data.cells
    sizes = cells.loc[is_scored(cells), "artifact_bytes"].dropna().astype(int)
    if sizes.empty:
        raise ConfigError("no cell has an artifact")
    figure = Figure(figsize=(WIDTH_IN, 5.2))
    gauge, by_slope = figure.subplots(2, 1, height_ratios=[1, 9])
    _cap_gauge(sizes, gauge)
    by_slope.set_ylabel("artifact (kB)")
    in_kb = data.study.derive(
        lambda rows: rows.assign(artifact_kB=rows["artifact_bytes"].astype(float) / _KB)
    )
    quantity_by_slope(in_kb, by_slope, quantity="artifact_kB")
    room = CAP_BYTES - sizes.max()
    by_slope.set_title(
        f"Largest artifact: {sizes.max():,} bytes,"
        f" {abs(room):,} {'below' if room >= 0 else 'above'} the cap of {CAP_BYTES:,}"
    )
    # Further off than the sizes differ, the line would flatten what this picture is to show.
    if room <= sizes.max() - sizes.min():
        by_slope.axhline(CAP_BYTES / _KB, color=VERMILLION, linestyle="--", label="cap")
    cap = (
        f"Artifact: packed weights and code, 1 kB = 1,000 bytes; dashed: the cap,"
        f" {CAP_BYTES:,} bytes. Above: every artifact on the way from nothing to the cap."
    )
    return framed(figure, caption(data, cap, marks=LEVEL), legend_handles(cells))


def _cap_gauge(sizes: "pd.Series[int]", ax: Axes) -> None:
    """From nothing to the cap: a bar up to the smallest artifact, all artifacts, the cap's line."""
    ax.set_xlabel("artifact (MB)")
    ax.set_yticks([])
    light_axes(ax, grid="x").spines["left"].set_visible(False)
    ax.barh([0], [sizes.min() / _MB], height=0.5, color=BLUE, alpha=0.25, linewidth=0)
    ax.scatter(sizes / _MB, [0.0] * len(sizes), marker="|", s=110, color=BLUE, linewidth=0.8)
    ax.axvline(CAP_BYTES / _MB, color=VERMILLION, linestyle="--", linewidth=1.6, label="cap")
    right = max(CAP_BYTES, sizes.max()) / _MB * 1.02
    ax.set(xlim=(0, right), ylim=(-0.45, 0.45))
    share = f"{sizes.max() / CAP_BYTES:.1%}".replace("%", " %")
    ax.set_title(f"{share} of the cap of 16 MB", color=INK)
    ax.tick_params(color=GREY)


def _mean_slopes(cells: pd.DataFrame, ax: Axes) -> None:
    """Below the scores, one bar per seed of what has no one slope: mean and mean ± sd."""
    bars = mean_slopes(cells).to_dict("records")
    where, look_of = ax.get_xaxis_transform(), looks(cells)
    for i, row in enumerate(bars):
        height = 0.02 + 0.02 * i
        ends = [row["low"], row["high"]]
        colour = look_of[row["key"]].colour
        ax.plot(ends, [height, height], transform=where, color=colour, linewidth=1.0)
        ax.plot([row["mean"]], [height], transform=where, color=colour, marker="|", markersize=6)
    if bars:  # room for the bars, as data, so that axes which share their limits agree
        box = ax.dataLim
        ax.update_datalim([(box.x0, box.y0 - (0.03 + 0.025 * len(bars)) * box.height)])
        ax.autoscale_view(scalex=False)
        left, right = ax.get_xlim()
        ax.set_xlim(min(left, *(row["low"] - 0.05 for row in bars)), right)


def _published_words(points: pd.DataFrame, budget: str) -> str:
    """What the published points are, and whether their height compares to ours."""
    others = sorted(set(points["budget"]) - {budget})
    words = "Grey and hollow: published runs of this recipe, in no mean and no fit."
    if not others:
        return words
    return f"{words} Budget {listed(others)}: compare their shape, not their height."


def _without_windows(stage: str) -> str:
    """Post-quant, TTT: the stage without its windows, which the title says."""
    name = STAGES[stage].name
    return "TTT" if name == "test-time training" else name
