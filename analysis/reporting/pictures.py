"""A figure as a part of a page: its SVG, and the words for whoever reads or cannot see it."""

import io

import matplotlib as mpl

from analysis.figures import STYLE, draw
from analysis.reporting.document import Picture
from analysis.reporting.inputs import Case

_TITLES = {
    "slope_bpb": "Bits per byte over the negative slope, by stage",
    "quant_delta": "Quantization delta over the negative slope",
    "artifact_bytes": "Size of the artifact over the negative slope",
}


def picture(name: str, case: Case) -> Picture:
    """The figure ``name`` of one setting."""
    figure = draw(name, case.cells, case.sweep)
    caption = " ".join(" ".join(text.get_text().split()) for text in figure.texts)
    for text in figure.texts:  # the page has it as text, which can be read at any width
        text.set_visible(False)
    figure.set_layout_engine("constrained", rect=(0, 0, 1, 1))
    svg = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    title = _TITLES[name]
    return Picture(
        title=title, alt=f"Chart: {title} ({case.name}).", caption=caption, svg=svg.getvalue()
    )
