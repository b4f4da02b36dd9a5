"""Which pictures does a sweep deserve, and what must be said below each of them?

One set of figures per setting: budgets change the scores more than slopes do, so two budgets on
one axis would flatten both. The same cells give the same bytes: no date, no version, no random
identifier.
"""

import io
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from analysis import plots
from analysis.load import (
    Sweep,
    count_states,
    is_scored,
    load_cells,
    load_sweep,
    settings,
    succeeded,
)
from analysis.seed_stats import check_one_footing
from analysis.slopes import learned_slopes
from analysis.stages import PANELS, windows_of
from analysis.text import DASH, capital
from sweep.files import open_files

WIDTH_IN = 9.0  # 900 px at the 100 dpi of a README; saved at twice that for sharp screens
DPI = 200
LINE_IN = 0.165  # height of a line of the caption
CAPTION_COLUMNS = 148

STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8.5,
    "axes.formatter.useoffset": False,
    "svg.hashsalt": "activation-sweep",
}


def slope_bpb(cells: pd.DataFrame, sweep: Sweep) -> Figure:
    """The four stages side by side: pre-quant, post-quant, sliding, TTT."""
    figure = Figure(figsize=(WIDTH_IN, 7.6))
    for ax, stage in zip(figure.subplots(2, 2, sharey="row").flat, PANELS, strict=True):
        plots.bpb_by_slope(cells, ax, stage=stage)
        ax.label_outer()
    judged = (
        "A band stands for one activation alone; a seed moves all activations together, so they are"
        " compared within seeds (summary.md)."
    )
    learned = "Learned slope: sign(β)·√|β| of the mean β and of mean ± sd over layers and channels."
    remarks = [_windows(cells, PANELS), judged, *([] if learned_slopes(cells).empty else [learned])]
    return _captioned(figure, cells, sweep, remarks)


def quant_delta(cells: pd.DataFrame, sweep: Sweep) -> Figure:
    """What quantization costs at each slope, at equal windows."""
    figure = Figure(figsize=(WIDTH_IN, 4.6))
    plots.quant_delta_by_slope(cells, figure.subplots())
    return _captioned(figure, cells, sweep, [_windows(cells, ["quant_delta"])])


def artifact_bytes(cells: pd.DataFrame, sweep: Sweep) -> Figure:
    """How large the packed model is at each slope."""
    figure = Figure(figsize=(WIDTH_IN, 4.6))
    plots.artifact_by_slope(cells, figure.subplots())
    cap = f"Artifact: packed weights and code, 1 kB = 1,000 bytes; cap {plots.CAP_BYTES:,} bytes."
    return _captioned(figure, cells, sweep, [cap])


FIGURES: dict[str, Callable[[pd.DataFrame, Sweep], Figure]] = {
    "slope_bpb": slope_bpb,
    "quant_delta": quant_delta,
    "artifact_bytes": artifact_bytes,
}


def draw(name: str, cells: pd.DataFrame, sweep: Sweep) -> Figure:
    """The figure ``name`` of cells of one setting."""
    with mpl.rc_context(STYLE):
        return FIGURES[name](cells, sweep)


def save_figures(place: str | Path) -> list[str]:
    """Write every figure of the sweep in ``place`` as PNG and SVG; the paths written."""
    cells = load_cells(place)
    sweep = load_sweep(place, cells)
    succeeded(cells)
    check_one_footing(cells)
    files, known, names = open_files(place), settings(cells), []
    for setting in known:
        here = cells[cells["setting"] == setting]
        for name in FIGURES:
            stem = name if len(known) == 1 else f"{name}--{slug(setting)}"
            for kind, data in _encoded(draw(name, here, sweep)).items():
                names.append(f"figures/{stem}.{kind}")
                files.replace(names[-1], data)
    return [files.where(name) for name in names]


def slug(setting: str) -> str:
    """
    >>> slug("local, 200 steps, optim.lr = 0.02")
    'local-200-steps-optim.lr-0.02'
    """
    return re.sub(r"[^\w.]+", "-", setting).strip("-")


def _encoded(figure: Figure) -> dict[str, bytes]:
    """The figure as files, by the ending of their names."""
    png, svg = io.BytesIO(), io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None})
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return {"png": png.getvalue(), "svg": svg.getvalue()}


def _captioned(figure: Figure, cells: pd.DataFrame, sweep: Sweep, remarks: list[str]) -> Figure:
    """``figure`` with one legend above and its caption below, in room kept for both."""
    text = " ".join([_marks(cells), *remarks, _coverage(cells, sweep)])
    lines = textwrap.wrap(text, CAPTION_COLUMNS)
    room = (len(lines) * LINE_IN + 0.12) / figure.get_figheight()
    figure.set_layout_engine("constrained", rect=(0, room, 1, 1 - room), h_pad=0.06, w_pad=0.06)
    figure.text(0.012, 0.06 / figure.get_figheight(), "\n".join(lines), va="bottom", fontsize=8)
    handles = plots.legend_handles(cells, learned=len(figure.axes) > 1)
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), frameon=False)
    return figure


def _marks(cells: pd.DataFrame) -> str:
    first = cells.iloc[0]
    scored = cells[is_scored(cells)]
    counts = scored.groupby("key")["seed"].nunique()
    equal = counts.nunique() <= 1
    n = f"{counts.max()}" if equal else f"{counts.min()}{DASH}{counts.max()}"
    most = counts.max()
    band = "band and bars: 95 % t interval over seeds" if most > 1 else "one seed gives no interval"
    setting = str(first["setting"]).removeprefix(f"{first['recipe']}, ")
    return (
        f"Recipe {first['recipe']}, budget {setting}. Dots: single seeds, n = {n} per activation;"
        f" thick line: mean; thin lines join a seed; {band}."
        f"{'' if equal else ' Means over unequal seeds are not comparable.'}"
    )


def _windows(cells: pd.DataFrame, quantities: list[str] | tuple[str, ...]) -> str:
    first = cells[is_scored(cells)].head(1)
    if first.empty:
        return ""
    window, stride = int(first["window"].iloc[0]), int(first["stride"].iloc[0])
    kinds = {windows_of(quantity) for quantity in quantities}
    said = []
    if "contiguous" in kinds:
        said.append(f"contiguous windows: {window} tokens, stride {window}")
    if "sliding" in kinds:
        said.append(f"sliding windows: {window} tokens, stride {stride}")
    return capital("; ".join(said)) + "."


def _coverage(cells: pd.DataFrame, sweep: Sweep) -> str:
    """How many cells stand behind the figure, and what became of those that do not."""
    scored = is_scored(cells)
    drawn = int(scored.sum())
    total = f" of the sweep's {sweep.num_cells}" if sweep.num_cells is not None else ""
    left_out = cells[~scored]
    without = f" Without a score: {count_states(left_out)}." if len(left_out) else ""
    return f"Drawn: {drawn}{total} {'cell' if drawn == 1 and not total else 'cells'}.{without}"
