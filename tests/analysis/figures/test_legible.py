"""Claims about every figure: its words are inside it and apart, and its looks can be told apart.

Measured by the layout that the files have. Whether a figure is beautiful only an eye can tell.
"""

from functools import cache
from itertools import combinations

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes._base import _AxesBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from analysis.figures.captions import DPI
from analysis.figures.catalog import FIGURES, STYLE, draw_or_reason
from analysis.figures.figure_data import FigureData
from analysis.figures.style import looks, spread_apart
from analysis.study import Study
from tests.analysis.conftest import REFERENCE, make_frame, make_row
from tests.support.drawn import contrasts_of, curves_of, layers_of, paired_of, published_of

pytestmark = pytest.mark.usefixtures("few_draws")

# Boxes of words that only touch: the box of a line of text is taller than its letters.
TOUCHING_PX = 3.0


def timed(row):
    """The row under a budget of seconds, on one of two nodes."""
    ms = 80.0 + row["seed"] + (row["slope"] or 0.0)
    return {
        **row,
        **{"budget_kind": "seconds", "budget_value": 600.0, "steps": int(600_000 / ms)},
        **{"step_ms_p50": ms, "node": f"node-{row['seed'] % 2}"},
    }


def everything(cells):
    """All that a figure may take, for one setting."""
    study = Study.of(cells, REFERENCE)
    rows = contrasts_of(cells, reference=study.reference)
    known = {} if rows.empty else {"contrasts": rows, "paired": paired_of(rows)}
    return FigureData(
        study,
        curves=curves_of(cells),
        layers=layers_of(cells),
        published={"post_quant_sliding_bpb": published_of(2.3)},
        **known,
    )


@pytest.fixture(scope="module")
def cases(rows, rows_with_losses):
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
        make_row(name, s, seed, recipe="a-recipe-with-a-name-of-forty-letters-or-so",
               params_json=params.get(name), slot_bpb=2.2, slot_legal=False)
        for seed in (1, 2)
        for name, s in names
    ]  # fmt: skip
    made = {"full": rows, "few": few, "far": far, "many": many}
    made["one seed"] = [row for row in rows if row["seed"] == 1]
    return {name: make_frame([timed(row) for row in some]) for name, some in made.items()}


@pytest.fixture(scope="module")
def known(cases):
    """``known(name)``: what a case has beside its cells, computed once."""
    return cache(lambda name: everything(cases[name]))


def laid_out(figure):
    """The renderer of a figure that has its layout."""
    figure.set_dpi(DPI)
    with mpl.rc_context(STYLE):
        figure.draw_without_rendering()
    return FigureCanvasAgg(figure).get_renderer()


def words(figure, renderer):
    """Every text that is seen, with its box."""
    unseen = unseen_ticks(figure)
    found = [text for text in figure.findobj(Text) if text.get_visible()]
    return [
        (text, Text.get_window_extent(text, renderer))
        for text in found
        if text.get_text().strip() and id(text) not in unseen
    ]


def unseen_ticks(figure):
    """The labels of ticks outside the limits, which are there and never drawn."""
    unseen = set()
    for ax in figure.findobj(_AxesBase):
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            slack = 1e-9 * (high - low)
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                if not low - slack <= tick.get_loc() <= high + slack or not axis.get_visible():
                    unseen |= {id(tick.label1), id(tick.label2)}
    return unseen


def overlapping(shown):
    """Pairs of texts whose boxes share more than what touching boxes do."""
    pairs = []
    for (one, a), (other, b) in combinations(shown, 2):
        if abs(one.get_rotation() % 90) > 1 or abs(other.get_rotation() % 90) > 1:
            continue  # the box of slanted words is mostly empty
        width = min(a.x1, b.x1) - max(a.x0, b.x0)
        height = min(a.y1, b.y1) - max(a.y0, b.y0)
        if width > TOUCHING_PX and height > TOUCHING_PX:
            pairs.append((one.get_text(), other.get_text()))
    return pairs


def assert_legible(figure):
    shown = words(figure, laid_out(figure))
    whole = figure.bbox
    outside = [
        text.get_text()
        for text, box in shown
        if box.x0 < whole.x0 or box.x1 > whole.x1 or box.y0 < whole.y0 or box.y1 > whole.y1
    ]
    assert outside == []
    assert overlapping(shown) == []
    assert len(shown) > 5


@pytest.mark.parametrize("name", ["slope_bpb", "differences", "learning_curves", "pace"])
def test_no_words_overlap_or_leave_the_figure(known, name):
    assert_legible(draw_or_reason(name, known("full")))


@pytest.mark.slow
@pytest.mark.parametrize("case", ["many"])
def test_no_words_overlap_or_leave_any_figure_at_the_edges(known, case):
    drawn = [draw_or_reason(name, known(case)) for name in FIGURES]
    figures = [figure for figure in drawn if not isinstance(figure, str)]
    assert len(figures) >= 9
    for figure in figures:
        assert_legible(figure)


def test_no_two_activations_look_alike_or_differ_by_colour_alone_but_on_an_ordered_scale(cases):
    for cells in cases.values():
        found = looks(cells)
        assert set(found) == set(cells["key"])
        assert len(set(found.values())) == len(found)
        unordered = [look for look in found.values() if look.line != "-"]
        assert len({(look.marker, look.line) for look in unordered}) == len(unordered)


@given(st.lists(st.floats(-1, 2), min_size=1, max_size=30), st.floats(1e-3, 0.03, exclude_min=True))
def test_spread_labels_are_apart_in_order_and_within_bounds(preferred, gap):
    places = spread_apart(preferred, gap, low=0.0, high=1.0)
    order = np.argsort(preferred, kind="stable")
    ranked = np.asarray(places)[order]
    # Places are rounded to 12 decimals.
    assert (np.diff(ranked) >= gap - 2e-12).all()
    assert ranked[0] >= -1e-12
    assert ranked[-1] <= 1 + 1e-9


@given(st.lists(st.integers(0, 20), min_size=1, max_size=20, unique=True))
def test_labels_with_room_stay_where_they_are_preferred(preferred):
    assert spread_apart(preferred, 1.0, low=0.0, high=20.0) == preferred
