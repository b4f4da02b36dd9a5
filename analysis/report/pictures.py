"""A figure as a part of a page: its SVG, and the words for whoever reads or cannot see it."""

import io

import matplotlib as mpl
from matplotlib.figure import Figure

from analysis.figures.catalog import FIGURES, STYLE, draw, why_not
from analysis.report.document import Picture
from analysis.report.inputs import Case

CAPTION = "caption"  # the name that analysis.figures.captions gives to a figure's caption


def pictures(names: tuple[str, ...], case: Case) -> tuple[Picture, ...]:
    """Those of the figures ``names`` that can be drawn of one setting."""
    drawable = [name for name in names if why_not(name, case.cells, case.known) is None]
    return tuple(picture(name, case) for name in drawable) if case.has_scores else ()


def picture(name: str, case: Case) -> Picture:
    """The figure ``name`` of one setting, its caption as text that can be read at any width."""
    figure = draw(name, case.study, case.known)
    caption = _without_caption(figure)
    svg = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    title = FIGURES[name].title
    alt = f"Chart ({case.name}): {title}."
    return Picture(title=title, alt=alt, caption=caption, svg=svg.getvalue())


def _without_caption(figure: Figure) -> str:
    """Take the caption and the room for it out of ``figure``; what it said."""
    found = [text for text in figure.texts if text.get_gid() == CAPTION]
    for text in found:
        text.set_visible(False)
    figure.set_layout_engine("constrained", rect=(0, 0, 1, 1))
    return " ".join(" ".join(text.get_text().split()) for text in found)
