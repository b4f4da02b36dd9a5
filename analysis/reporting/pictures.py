"""A figure as a part of a page: its SVG, and the words for whoever reads or cannot see it."""

import io

import matplotlib as mpl

from analysis.figures import STYLE, draw
from analysis.reporting.document import Picture
from analysis.reporting.inputs import Inputs

_TITLES = {
    "slope_bpb": "Bits per byte over the negative slope, by stage",
    "quant_delta": "Quantization delta over the negative slope",
    "artifact_bytes": "Size of the artifact over the negative slope",
}


def picture(name: str, inputs: Inputs, setting: str) -> Picture:
    """The figure ``name`` of one setting."""
    figure = draw(name, inputs.setting(setting), inputs.sweep)
    svg = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    caption = " ".join(" ".join(text.get_text().split()) for text in figure.texts)
    title = _TITLES[name]
    return Picture(
        title=title, alt=f"Chart: {title} ({setting}).", caption=caption, svg=svg.getvalue()
    )
