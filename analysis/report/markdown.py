"""Render a report as Markdown for a pull request: the verdict, one table, and footnotes."""

from analysis.report.document import Report, Table
from analysis.text_table import escaped

MOST_LINES = 60


def render_markdown(report: Report) -> str:
    """GitHub-flavoured Markdown of at most ``MOST_LINES`` lines; what was cut is said."""
    marks = [f"[^{i + 1}]" for i in range(len(report.footnotes))]
    lines = [f"### {escaped(report.sweep)}: {escaped(report.verdict)}", ""]
    lines += [line for said in (report.choice,) if said for line in (escaped(said), "")]
    lines += [f"{escaped(report.support)}{''.join(marks)}", ""]
    for notice in report.notices:
        lines += [f"> {escaped(notice)}", ""]
    footnotes = [
        f"{mark}: {escaped(note)}" for mark, note in zip(marks, report.footnotes, strict=True)
    ]
    for i, table in enumerate(report.tables):
        later = sum(len(other.rows) + 5 for other in report.tables[i + 1 :])
        room = max(1, MOST_LINES - len(lines) - len(footnotes) - later - 6)
        lines += [*_table(table, room), ""]
    return "\n".join([*lines, *footnotes]) + "\n"


def _table(table: Table, room: int) -> list[str]:
    aligned = ["---" if i < table.words else "---:" for i in range(len(table.headings))]
    shown = table.rows[:room]
    lines = [_line(table.headings), f"| {' | '.join(aligned)} |"]
    lines += [_line(row.entries, bold=row.tone == "good") for row in shown]
    left = len(table.rows) - len(shown)
    more = [f"{left} more rows are in report.html."] if left else []
    return [*lines, "", " ".join([escaped(table.caption), *more])]


def _line(entries: tuple[str, ...], *, bold: bool = False) -> str:
    first, *others = (escaped(entry) for entry in entries)
    return f"| {' | '.join([f'**{first}**' if bold else first, *others])} |"
