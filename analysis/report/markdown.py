"""Render a report as Markdown for a pull request: the verdict, one table, and footnotes."""

import re

from analysis.report.document import Report, Table

MOST_LINES = 60


def render_markdown(report: Report) -> str:
    """GitHub-flavoured Markdown of at most ``MOST_LINES`` lines; what was cut is said."""
    marks = [f"[^{i + 1}]" for i in range(len(report.footnotes))]
    lines = [f"### {_escaped(report.sweep)}: {_escaped(report.verdict)}", ""]
    lines += [f"{_escaped(report.support)}{''.join(marks)}", ""]
    for notice in report.notices:
        lines += [f"> {_escaped(notice)}", ""]
    footnotes = [
        f"{mark}: {_escaped(note)}" for mark, note in zip(marks, report.footnotes, strict=True)
    ]
    if report.table is not None:
        room = max(1, MOST_LINES - len(lines) - len(footnotes) - 6)
        lines += [*_table(report.table, room), ""]
    return "\n".join([*lines, *footnotes]) + "\n"


def _table(table: Table, room: int) -> list[str]:
    aligned = ["---" if i < table.words else "---:" for i in range(len(table.headings))]
    shown = table.rows[:room]
    lines = [_line(table.headings), f"| {' | '.join(aligned)} |"]
    lines += [_line(row.entries, bold=row.tone == "good") for row in shown]
    left = len(table.rows) - len(shown)
    more = [f"{left} more rows are in report.html."] if left else []
    return [*lines, "", " ".join([_escaped(table.caption), *more])]


def _line(entries: tuple[str, ...], *, bold: bool = False) -> str:
    first, *others = (_escaped(entry) for entry in entries)
    return f"| {' | '.join([f'**{first}**' if bold else first, *others])} |"


def _escaped(text: str) -> str:
    """Neither HTML nor a cell's border nor emphasis comes from a name; `commands` stay code.

    >>> print(_escaped("a|b <i> x_y* `make sweep`"))
    a\\|b &lt;i&gt; x\\_y\\* `make sweep`
    """
    parts = re.split(r"(`[^`]+`)", " ".join(text.split()))
    return "".join(
        part.replace("|", r"\|") if i % 2 else _plain(part) for i, part in enumerate(parts)
    )


def _plain(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\|*_\[\]`])", r"\\\1", text)
