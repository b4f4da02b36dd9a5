"""Axes of the packed model's size over the slope, and of its distance from the cap.

Sizes differ by far less than their distance from the cap can be, so one axis cannot show both: one
picture has the sizes over the slope, and a gauge has all of them on the way to the cap.
"""

import pandas as pd
from matplotlib.axes import Axes

from analysis.figures.panels.by_slope import quantity_by_slope
from analysis.figures.style import BLUE, GREY, INK, VERMILLION, empty_axes, light_axes
from analysis.rows.read import is_scored

CAP_BYTES = 16_000_000
_KB, _MB = 1e3, 1e6


def artifact_by_slope(cells: pd.DataFrame, ax: Axes) -> Axes:
    """Size of the artifact over the slope, with the cap where it is within sight."""
    ax.set_ylabel("artifact (kB)")
    quantity_by_slope(
        cells.assign(artifact_kB=cells["artifact_bytes"].astype(float) / _KB),
        ax,
        quantity="artifact_kB",
    )
    sizes = _sizes(cells)
    if sizes.empty:
        return ax
    room = CAP_BYTES - sizes.max()
    ax.set_title(
        f"Largest artifact: {sizes.max():,} bytes,"
        f" {abs(room):,} {'below' if room >= 0 else 'above'} the cap of {CAP_BYTES:,}"
    )
    # Further off than the sizes differ, the line would flatten what this picture is to show.
    if room <= sizes.max() - sizes.min():
        ax.axhline(CAP_BYTES / _KB, color=VERMILLION, linestyle="--", label="cap")
    return ax


def cap_gauge(cells: pd.DataFrame, ax: Axes) -> Axes:
    """From nothing to the cap: a bar up to the smallest artifact, all artifacts, the cap's line."""
    ax.set_xlabel("artifact (MB)")
    ax.set_yticks([])
    light_axes(ax, grid="x").spines["left"].set_visible(False)
    sizes = _sizes(cells)
    if sizes.empty:
        return empty_axes(ax, "no artifact")
    ax.barh([0], [sizes.min() / _MB], height=0.5, color=BLUE, alpha=0.25, linewidth=0)
    ax.scatter(sizes / _MB, [0.0] * len(sizes), marker="|", s=110, color=BLUE, linewidth=0.8)
    ax.axvline(CAP_BYTES / _MB, color=VERMILLION, linestyle="--", linewidth=1.6, label="cap")
    right = max(CAP_BYTES, sizes.max()) / _MB * 1.02
    ax.set(xlim=(0, right), ylim=(-0.45, 0.45))
    share = f"{sizes.max() / CAP_BYTES:.1%}".replace("%", " %")
    ax.set_title(f"{share} of the cap of 16 MB", color=INK)
    ax.tick_params(color=GREY)
    return ax


def _sizes(cells: pd.DataFrame) -> "pd.Series[int]":
    return cells.loc[is_scored(cells), "artifact_bytes"].dropna().astype(int)
