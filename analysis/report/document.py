"""The report as values, before it is decided how it looks: sections of blocks of strings.

The strings are ready to be read: the two renderers, ``html`` and ``markdown``, add no word and no
number.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from trainer.config.config_errors import ConfigError

Tone = Literal["plain", "good", "bad", "muted"]


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph. ``lead`` answers the section's question; ``note`` says what stands behind it."""

    text: str
    kind: Literal["lead", "plain", "note", "warning"] = "plain"


@dataclass(frozen=True, slots=True)
class Bullets:
    """Sentences of one rank."""

    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Findings:
    """Findings next to the answer: what each is about, and what it says."""

    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Code:
    """Commands to be typed."""

    text: str


@dataclass(frozen=True, slots=True)
class Bar:
    """An estimate and its interval, to be drawn in a row of a table; no interval is None."""

    middle: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: the first entry names it. ``bar`` is drawn where the table has bars."""

    entries: tuple[str, ...]
    tone: Tone = "plain"
    bar: Bar | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table with its caption. ``words`` counts the leading columns of words, aligned left.

    ``bars`` is the heading of a column in which each row's ``bar`` is drawn, all on one scale with
    a line at zero; None where there is none.
    """

    caption: str
    headings: tuple[str, ...]
    rows: tuple[Row, ...]
    words: int = 1
    bars: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A figure as SVG. ``alt`` says what it shows to whoever cannot see it."""

    title: str
    alt: str
    caption: str
    svg: bytes


@dataclass(frozen=True, slots=True)
class Details:
    """Blocks that are folded away under one line, for whoever wants to check."""

    summary: str
    blocks: tuple["Block", ...]


Block = Text | Bullets | Findings | Code | Table | Picture | Details


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One question with its answer; ``parts`` are its settings where the sweep has several."""

    anchor: str
    title: str
    blocks: tuple[Block, ...] = ()
    parts: tuple["Section", ...] = ()


@dataclass(frozen=True, slots=True)
class Fact:
    """A number of the first screen, with what it is and what it stands on."""

    label: str
    value: str
    basis: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The whole report. ``verdict`` says what is shown, ``choice`` what to use and at what cost.

    ``lead`` is the picture of the first screen; ``tables`` are those of the Markdown.
    """

    sweep: str
    kicker: str
    verdict: str
    choice: str
    support: str
    lead: Picture | None
    notices: tuple[str, ...]
    facts: tuple[Fact, ...]
    sections: tuple[Section, ...]
    tables: tuple[Table, ...]
    footnotes: tuple[str, ...]


def or_reason(build: Callable[[], tuple[Block, ...]]) -> tuple[Block, ...]:
    """What ``build`` gives; the sentence of its ConfigError where it cannot be told."""
    try:
        return build()
    except ConfigError as error:
        return (Text(str(error), "note"),)
