"""Captions of figures, and the frame of legend and caption around each.

Recipe and budget, n, what an interval is and its level, windows and stride, and how many cells
stand behind it; around every picture the same frame of legend and caption.
"""

import re
import textwrap
from collections.abc import Sequence
from functools import lru_cache

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from analysis.figures.figure_data import FigureData, optional
from analysis.number_format import DASH, capital
from analysis.rows.read import Sweep, count_states, is_scored
from analysis.rows.scoring import script_windows
from analysis.rows.stages import windows_of

WIDTH_IN = 8.0  # 900 px of a README at 112 dpi; saved at twice that for sharp screens
DPI = 225
CAPTION_SIZE = 8.0
_LINE_IN = 0.165  # height of a line of the caption
_COLUMNS = 145  # characters in a line of it, at most
_LEGEND_SIZE = 8.5
_CAPTION = "caption"  # the name of the caption's text in a figure
_TIED = "\N{NO-BREAK SPACE}"  # between a number and its unit, until the lines are broken
_HANDLE_IN = 0.6  # handle, its distance to the text, and the gap between columns


def framed(figure: Figure, remarks: Sequence[str], handles: Sequence[Artist] = ()) -> Figure:
    """``figure`` with one legend above and its caption below, in room kept for both."""
    words = "\n".join(_lines(" ".join(filter(None, remarks))))
    room = _room_in(words) / figure.get_figheight()
    top = 0.0 if handles else 0.05 / figure.get_figheight()
    figure.set_layout_engine(
        "constrained", rect=(0, room, 1, 1 - room - top), h_pad=0.06, w_pad=0.06
    )
    figure.text(
        0.012,
        0.06 / figure.get_figheight(),
        words,
        va="bottom",
        fontsize=CAPTION_SIZE,
        gid=_CAPTION,
        zorder=10,  # last: of an SVG without it no letter is missing
    )
    if handles:
        figure.legend(
            handles=list(handles),
            loc="outside upper left",
            ncols=_that_fit([str(handle.get_label()) for handle in handles]),
            frameon=False,
            fontsize=_LEGEND_SIZE,
        )
    return figure


def take_caption(figure: Figure, svg: bytes) -> tuple[str, bytes]:
    """The caption of ``figure`` as text, and ``svg``, its picture, without it and its room."""
    (text,) = (text for text in figure.texts if text.get_gid() == _CAPTION)
    words = text.get_text()
    height = b"%g" % (72 * (figure.get_figheight() - _room_in(words)))
    svg = re.sub(rb'  <g id="caption">.*?\n  </g>\n', b"", svg, count=1, flags=re.DOTALL)
    size = rb'height="\S+pt" viewBox="0 0 (\S+) \S+"'
    svg = re.sub(size, rb'height="%bpt" viewBox="0 0 \1 %b"' % (height, height), svg, count=1)
    return " ".join(words.split()), svg


def _room_in(words: str) -> float:
    """Height of a caption and of the space around it."""
    return (words.count("\n") + 1) * _LINE_IN + 0.12


def caption(data: FigureData, *remarks: str, marks: float | None = None) -> list[str]:
    """What is said of a figure: recipe and budget, ``remarks``, and how many cells are behind it.

    ``marks``: said too is what dots, lines and bars of a quantity over the slope are, the bars at
    this level.
    """
    opening = marks_and_intervals(data, marks) if marks else recipe_and_budget(data.cells)
    return [opening, *remarks, cells_drawn(data.cells, data.sweep)]


def recipe_and_budget(cells: pd.DataFrame) -> str:
    """Recipe and budget: what the cells have in common."""
    first = cells.iloc[0]
    setting = str(first["setting"]).removeprefix(f"{first['recipe']}, ")
    return f"Recipe {first['recipe']}, budget {setting}."


def marks_and_intervals(data: FigureData, level: float) -> str:
    """What dots, lines and bars of a quantity over the slope are, with n."""
    cells, why = data.cells, unjudged(data)
    counts = cells[is_scored(cells)].groupby("key")["seed"].nunique()
    bars = (
        f"no interval: {why}"
        if why
        else f"grey bars: simultaneous {100 * level:g} % intervals of the difference from the"
        " reference within seeds, from its mean on (grey line): one that misses the line is"
        " resolved"
    )
    unequal = "" if counts.nunique() <= 1 else " Means over unequal seeds are not comparable."
    return (
        f"{recipe_and_budget(cells)} Dots: single seeds, {num_seeds(cells)};"
        f" thick line: mean; thin lines join a seed; {bars}.{unequal}"
    )


def unjudged(data: FigureData) -> str | None:
    """Why no difference from the reference has an interval; None where they have."""
    rows = optional(lambda: data.contrasts)
    if rows is None:
        return "nothing is compared with the reference yet"
    why = rows["unjudged"].iloc[0]
    return why if isinstance(why, str) else None


def num_seeds(cells: pd.DataFrame) -> str:
    """``n = 3 per activation``, or the range of n."""
    counts = cells[is_scored(cells)].groupby("key")["seed"].nunique()
    if counts.empty:
        return "n = 0"
    n = f"{counts.max()}" if counts.nunique() == 1 else f"{counts.min()}{DASH}{counts.max()}"
    return f"n = {n} per activation"


def scoring_windows(cells: pd.DataFrame, quantities: Sequence[str]) -> str:
    """The windows, and the strides, in which ``quantities`` were scored."""
    of_script = script_windows(cells, quantities)
    if of_script is not None:
        return f"{of_script}."
    first = cells[is_scored(cells)].head(1)
    if first.empty or first[["window", "stride"]].isna().any(axis=None):
        return ""
    window, stride = int(first["window"].iloc[0]), int(first["stride"].iloc[0])
    kinds = {windows_of(quantity) for quantity in quantities}
    parts = []
    if "contiguous" in kinds:
        parts.append(f"contiguous windows: {window} tokens, stride {window}")
    if "sliding" in kinds:
        parts.append(f"sliding windows: {window} tokens, stride {stride}")
    return capital("; ".join(parts)) + "." if parts else ""


def cells_drawn(cells: pd.DataFrame, sweep: Sweep) -> str:
    """How many cells stand behind the figure, and what became of those that do not."""
    scored = is_scored(cells)
    drawn = int(scored.sum())
    total = f" of the sweep's {sweep.num_cells}" if sweep.num_cells is not None else ""
    left_out = cells[~scored]
    without = f" Without a score: {count_states(left_out)}." if len(left_out) else ""
    return f"Drawn: {drawn}{total} {'cell' if drawn == 1 and not total else 'cells'}.{without}"


def _that_fit(labels: Sequence[str]) -> int:
    """The most columns whose entries are no wider than the figure; a legend fills columns first."""
    widths = [_HANDLE_IN + _width_in(label, _LEGEND_SIZE) for label in labels]
    for columns in range(len(labels), 1, -1):
        rows, more = divmod(len(labels), columns)
        sizes = [rows + 1] * more + [rows] * (columns - more)
        starts = [sum(sizes[:i]) for i in range(columns)]
        widest = [max(widths[i : i + n]) for i, n in zip(starts, sizes, strict=True)]
        if sum(widest) <= WIDTH_IN - 0.1:
            return columns
    return 1


def _lines(text: str) -> list[str]:
    """``text`` in lines as long as the figure is wide, by the widths of its letters."""
    tied = re.sub(r"(?<=\d) (?=%|kB|MB|tokens|seeds|steps|nats)", _TIED, text)
    for columns in range(_COLUMNS, _COLUMNS // 2, -2):
        lines = [line.replace(_TIED, " ") for line in textwrap.wrap(tied, columns)]
        if all(_width_in(line, CAPTION_SIZE) < 0.965 * WIDTH_IN for line in lines):
            return lines
    return textwrap.wrap(text, _COLUMNS // 2)


def _width_in(text: str, size: float) -> float:
    return sum(_letter_in(letter, size) for letter in text)


@lru_cache(maxsize=1024)
def _letter_in(letter: str, size: float) -> float:
    """Advance of a letter, kerning apart; laying out whole lines took half of a figure's time."""
    font = FontProperties(family="DejaVu Sans", size=size)
    both_pt, one_pt = (
        text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]
        for text in (f"{letter}|", "|")
    )
    return float(both_pt - one_pt) / 72
