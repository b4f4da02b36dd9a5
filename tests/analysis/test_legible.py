"""Claims about every figure: its words are inside it and apart, and its looks can be told apart.

Measured with the renderer that writes the files. Whether a figure is beautiful only an eye can tell.
"""

from dataclasses import replace

import matplotlib as mpl
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from analysis.figures import DPI, FIGURES, STYLE, draw
from analysis.given import given
from analysis.load import Sweep
from tests.support.drawn import contrasts_of, curves_of, layers_of, paired_of, published_of

# Boxes of words that only touch: the box of a line of text is taller than its letters.
TOUCHING_PX = 2.0


def timed(row):
    """The row under a budget of seconds, on one of two nodes."""
    ms = 80.0 + row["seed"] + (row["slope"] or 0.0)
    return {
        **row,
        **{"budget_kind": "seconds", "budget_value": 600.0, "steps": int(600_000 / ms)},
        **{"step_ms_p50": ms, "node": f"node-{row['seed'] % 2}"},
    }


def everything(cells, sweep):
    """All that a figure may take, for one setting."""
    rows = contrasts_of(cells, reference=sweep.reference)
    return replace(
        given(cells, sweep, ["slope_curve", "power"]),
        curves=curves_of(cells),
        layers=layers_of(cells),
        contrasts=None if rows.empty else rows,
        paired=paired_of(rows),
        published={"post_quant_sliding_bpb": published_of(2.3)},
    )


def sweep_of(cells, reference="leaky_relu2-s0.5"):
    keys = tuple(dict.fromkeys(cells["key"]))
    return Sweep(name="a", reference=reference, keys=keys, num_cells=len(cells))


@pytest.fixture(scope="module")
def cases(rows, rows_with_losses, frame_of, row_of):
    """Sweeps at the edges of what is drawn, by name."""
    few = [row for row in rows if row["activation"] == "asqu" or row["slope"] == 0.5]
    far = [
        {**row, "post_quant_sliding_bpb": 9.0} if row["slope"] == 0.9 else row
        for row in rows_with_losses[:30]
    ]
    names = [("relu2", None), *(("leaky_relu2", round(0.07 * i, 2)) for i in range(12))]
    names += [("leaky_relu2", 0.5), *((name, None) for name in ("asqu", "prelu2", "gelu", "silu"))]
    names += [("rrelu2", None), ("elu", None)]
    params = {"rrelu2": '{"high":0.3333,"low":0.125}'}
    many = [
        row_of(name, s, seed, recipe="a-recipe-with-a-name-of-forty-letters-or-so",
               params_json=params.get(name), slot_bpb=2.2, slot_legal=False)
        for seed in (1, 2)
        for name, s in names
    ]  # fmt: skip
    made = {"full": rows, "few": few, "far": far, "many": many}
    made["one seed"] = [row for row in rows if row["seed"] == 1]
    return {name: frame_of([timed(row) for row in some]) for name, some in made.items()}


def drawn(name, cells):
    """The figure and its renderer, at the size of its PNG; None where it is not drawn."""
    sweep = sweep_of(cells)
    known = everything(cells, sweep)
    picture = FIGURES[name]
    if known.lacks(picture.needs) or picture.lacks(cells, known):
        return None
    figure = draw(name, cells, sweep, known)
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    with mpl.rc_context(STYLE):
        canvas.draw()
    return figure, canvas.get_renderer()


def words(figure, renderer):
    """Every text that is seen, with its box."""
    found = [
        text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()
    ]
    shown = []
    for text in found:
        if text.axes is not None and not _ticks_in_sight(text):
            continue
        box = Text.get_window_extent(text, renderer)
        shown.append((text, box))
    return shown


def _ticks_in_sight(text):
    """False for the label of a tick outside the limits, which is never drawn."""
    ax = text.axes
    for axis, at in ((ax.xaxis, 0), (ax.yaxis, 1)):
        low, high = sorted(axis.get_view_interval())
        for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
            if text in (tick.label1, tick.label2):
                slack = 1e-9 * (high - low)
                return low - slack <= tick.get_loc() <= high + slack and at in (0, 1)
    return True
