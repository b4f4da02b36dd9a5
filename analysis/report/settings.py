"""Does the answer hold in every setting: under other budgets, and other values of the recipe?"""

from analysis.costs.axes import axis_survival
from analysis.number_format import DASH
from analysis.report.answers import gap_words, resolved_word
from analysis.report.document import Block, Points, Row, Table, Text, or_reason
from analysis.report.inputs import Case
from analysis.rows.stages import PRIMARY, title_of
from analysis.study import Study


def across_settings(study: Study, known: tuple[Case, ...]) -> tuple[Block, ...]:
    """What is said before the settings one by one; nothing where there is one."""
    if len(known) == 1:
        return ()
    opening = Text("One line for each setting; the first is the one that the report opens with.")
    return (opening, _table(known), *or_reason(lambda: _axes(study)))


def _table(known: tuple[Case, ...]) -> Table:
    return Table(
        caption=f"The answer in each setting, {title_of(PRIMARY)}, each with intervals of its own.",
        headings=("setting", "lowest", "difference from reference", "n", "resolved"),
        rows=tuple(_row(case) for case in known),
        words=2,
    )


def _row(case: Case) -> Row:
    found = case.answer
    name = DASH if found.decision.best is None else found.names[found.decision.best]
    if found.best is None:
        return Row((case.name, name, DASH, DASH, DASH))
    best = found.best
    return Row((case.name, name, gap_words(best), str(best["n"]), resolved_word(best)))


def _axes(study: Study) -> tuple[Block, ...]:
    table = axis_survival(study, PRIMARY)
    return (Points(tuple(zip(table["axis"], table["sentence"], strict=True))),)
