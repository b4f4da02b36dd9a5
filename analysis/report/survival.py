"""Does the answer survive another question? The same one of other stages, and with tainted cells.

Only the first line is a test; the others stand beside it and decide nothing.
"""

from analysis.number_format import DASH, capital
from analysis.report.answers import Answer, answer, gap_words, resolved_word
from analysis.report.document import Row, Table
from analysis.report.inputs import Case
from analysis.rows.read import including_tainted, is_scored
from analysis.rows.stages import PRIMARY, STAGES, is_legal, title_of


def survival_table(case: Case) -> Table:
    """One line for each way of asking, and whether it finds the same activation lowest."""
    cells, primary = case.cells, case.answer
    tested = f"{capital(title_of(PRIMARY))}: the one that is tested"
    rows = [_line(tested, primary, primary), _tainted(case)]
    for stage in STAGES:
        scored = cells.loc[is_scored(cells), stage].notna().any()
        if stage != PRIMARY and scored and is_legal(cells, stage):
            other = answer(case.study, stage)
            rows.append(_line(capital(title_of(stage)), other, primary))
    return Table(
        caption="Does the answer survive? The same question asked otherwise; only the first line"
        " is a test.",
        headings=("asked of", "lowest", "difference from reference", "n", "resolved", "same"),
        rows=tuple(rows),
        words=2,
    )


def _tainted(case: Case) -> Row:
    """The primary question with tainted successes counted, or that there are none."""
    counting = case.study.derive(including_tainted)
    more = int(is_scored(counting.cells).sum() - is_scored(case.cells).sum())
    title = f"With tainted attempts ({more or 'there are none'})"
    return _line(title, answer(counting) if more else case.answer, case.answer)


def _line(title: str, found: Answer, primary: Answer) -> Row:
    best, key = found.best, found.decision.best
    same = "yes" if key == primary.decision.best else "no"
    name = DASH if key is None else found.names[key]
    if best is None:
        return Row((title, name, DASH, DASH, DASH, same))
    return Row((title, name, gap_words(best), str(best["n"]), resolved_word(best), same))
