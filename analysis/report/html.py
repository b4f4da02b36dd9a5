"""Render a report as HTML: one page that needs nothing else, on a phone or on paper.

No script, no font, no request: the page forbids itself every source but its own text. Figures are
images in the page, so that no identifier of one can meet that of another.
"""

import base64
import re
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from analysis.report.document import Bar, Block, Report, Table

TEMPLATE = "report.html"
NO_BREAK = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True, slots=True)
class Scale:
    """Where values of a column of bars lie, in percent of its width; zero is always within."""

    low: float
    high: float

    def at(self, value: float) -> str:
        return f"{100 * (value - self.low) / (self.high - self.low):.2f}%"

    def width(self, low: float, high: float) -> str:
        return f"{100 * (high - low) / (self.high - self.low):.2f}%"


def render_html(report: Report) -> str:
    """The page. The same report gives the same text."""
    environment = Environment(
        loader=PackageLoader("analysis"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"kind": _kind, "data_uri": _data_uri, "scale": scale_of}
    environment.filters["typeset"] = typeset
    return environment.get_template(TEMPLATE).render(report=report)


def scale_of(table: Table) -> Scale:
    """A scale that holds every bar of ``table`` and zero, with a little room at both ends."""
    bars = [row.bar for row in table.rows if row.bar is not None]
    ends = [0.0, *(end for bar in bars for end in _ends(bar))]
    low, high = min(ends), max(ends)
    room = 0.06 * (high - low) or 1.0
    return Scale(low - room, high + room)


def typeset(text: str) -> Markup:
    """``text`` escaped, names and numbers kept on one line, `commands` as code.

    >>> str(typeset("ReLU² 0.5 & `make sweep`")).replace(NO_BREAK, "_")
    'ReLU²_0.5 &amp; <code>make sweep</code>'
    """
    whole = re.sub(r"(?<=²) (?=\d)|(?<=\d) (?=±|%)|(?<=±) ", NO_BREAK, text)
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(whole))))


def _ends(bar: Bar) -> tuple[float, float]:
    low = bar.middle if bar.low is None else bar.low
    return low, bar.middle if bar.high is None else bar.high


def _kind(block: Block) -> str:
    """The name that the template knows it by."""
    return type(block).__name__.lower()


def _data_uri(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
