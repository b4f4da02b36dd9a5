"""Tables of text: aligned for a terminal or a log, and as Markdown."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from rich import box
from rich.console import Console
from rich.table import Table

from trainer.system.printable import printable


@dataclass(frozen=True, slots=True)
class TextTable:
    """One setting: what its scores stand on, the column headings, one line per activation.

    Columns after the first hold numbers; with ``ends_in_words`` the last one holds sentences.
    """

    title: str
    headings: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    ends_in_words: bool = False


@dataclass(frozen=True, slots=True)
class Summary:
    """What is printed at the end of a sweep, and written to ``summary.md``."""

    name: str
    sections: tuple[TextTable, ...]
    sentences: tuple[str, ...]


def markdown(summary: Summary) -> str:
    """
    >>> section = TextTable("local", ("activation", "n"), (("ASQU", "3"),))
    >>> print(markdown(Summary("slopes", (section,), ("No decision.",))))
    # Sweep slopes
    <BLANKLINE>
    ## local
    <BLANKLINE>
    | activation | n |
    |---|---|
    | ASQU | 3 |
    <BLANKLINE>
    - No decision.
    <BLANKLINE>
    """
    lines = [f"# Sweep {escaped(summary.name)}", ""]
    for section in summary.sections:
        lines += [f"## {escaped(section.title)}", "", _row(section.headings)]
        lines += ["|" + "---|" * len(section.headings), *map(_row, section.lines), ""]
    return "\n".join([*lines, *(f"- {escaped(s)}" for s in summary.sentences), ""])


def escaped(text: str) -> str:
    """Neither HTML nor a cell's border nor emphasis comes from a name; `commands` stay code.

    >>> print(escaped("a|b <i> x_y* `make sweep`"))
    a\\|b &lt;i&gt; x\\_y\\* `make sweep`
    """
    parts = re.split(r"(`[^`]+`)", " ".join(text.split()))
    return "".join(
        part.replace("|", r"\|") if i % 2 else _plain(part) for i, part in enumerate(parts)
    )


def _plain(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\|*_\[\]`])", r"\\\1", text)


def plain(summary: Summary) -> str:
    """Aligned columns of text, for a log or a pipe."""
    blocks = []
    for section in summary.sections:
        rows = [section.headings, *section.lines]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        if section.ends_in_words:
            widths[-1] = 0
        blocks.append("\n".join([section.title, *(_aligned(row, widths) for row in rows)]))
    return "\n\n".join([*blocks, "\n".join(summary.sentences)]) + "\n"


def show(summary: Summary, stream: IO[str]) -> None:
    """Print ``summary``: a drawn table on a terminal, aligned text anywhere else."""
    console = Console(file=stream, highlight=False, markup=False)
    if not console.is_terminal:
        stream.write(printable(plain(summary)))
        return
    for section in summary.sections:
        table = Table(
            title=section.title,
            title_justify="left",
            box=box.SIMPLE_HEAD,
            padding=0,
            show_edge=False,
        )
        words = {0, len(section.headings) - 1 if section.ends_in_words else 0}
        widths = _widths((section.headings, *section.lines), console.width)
        for i, (heading, width) in enumerate(zip(section.headings, widths, strict=True)):
            table.add_column(
                heading,
                justify="left" if i in words else "right",
                no_wrap=i == 0,
                overflow="fold",  # never an ellipsis: a digit that is not shown is a wrong number
                width=width,
            )
        for line in section.lines:
            table.add_row(*map(printable, line))
        console.print(table)
    for sentence in summary.sentences:
        console.print(printable(sentence))


def _widths(rows: Sequence[Sequence[str]], room: int) -> list[int | None]:
    """Of each column: its longest entry, or down to its longest word where room is short.

    None where even that does not fit: then rich folds words.
    """
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    least = [max(len(word) for text in column for word in text.split(" ")) for column in columns]
    least[0] = widths[0]
    while (excess := sum(widths) + len(widths) - 1 - room) > 0 and widths != least:
        widest = max(range(len(widths)), key=lambda i: (widths[i] > least[i], widths[i]))
        widths[widest] = max(least[widest], widths[widest] - excess)
    return [None] * len(widths) if excess > 0 else list(widths)


def _row(entries: Sequence[str]) -> str:
    return "| " + " | ".join(map(escaped, entries)) + " |"


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    entries = [entry.rjust(width) for entry, width in zip(row, widths, strict=True)]
    return "  ".join([row[0].ljust(widths[0]), *entries[1:]]).rstrip()
