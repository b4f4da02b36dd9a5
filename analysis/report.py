"""What has a sweep found, on one page? Its answer first, then what it rests on, costs and lacks.

``report.html`` needs nothing but a browser; ``report.md`` goes into a pull request. This module
assembles: every number comes from the functions that the notebooks and the summary call too.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from analysis.figures import slug
from analysis.load import is_scored
from analysis.reporting.answers import answer, gap_words, support_words, verdict_words
from analysis.reporting.costs import cost_blocks
from analysis.reporting.document import (
    Block,
    Bullets,
    Fact,
    Report,
    Section,
    or_reason,
)
from analysis.reporting.html import render_html
from analysis.reporting.inputs import (
    Inputs,
    has_scores,
    load_inputs,
    ordered_settings,
    primary_setting,
)
from analysis.reporting.markdown import render_markdown
from analysis.reporting.missing import coverage, missing_section
from analysis.reporting.pictures import picture
from analysis.reporting.quantization import quantization_blocks
from analysis.reporting.repeat import repeat_section, revision_words
from analysis.reporting.winner import contrast_table, winner_blocks
from analysis.stages import PRIMARY, title_of
from analysis.text import counted, number
from sweep.files import open_files

HTML_FILE, MARKDOWN_FILE = "report.html", "report.md"

_LIMITS = (
    "It speaks of one recipe, one text and the budgets named above; another may rank otherwise.",
    "It compares each activation with the reference, not every pair: of two that are both better,"
    " it does not say which is the better one.",
    "Not resolved does not mean equal: it means that the difference is smaller than this grid can"
    " tell from noise.",
    "Intervals are about seeds, which draw the initial weights. Where the recipe reads its data in"
    " one fixed order, they are conditional on that order.",
    "One stage is tested, and it was named before any result; what other stages show is described.",
)


def write_report(place: str | Path) -> list[str]:
    """Write ``report.html`` and ``report.md`` of the sweep in ``place``; the paths written."""
    report = make_report(load_inputs(place))
    files = open_files(place)
    files.replace(HTML_FILE, render_html(report).encode())
    files.replace(MARKDOWN_FILE, render_markdown(report).encode())
    return [files.where(HTML_FILE), files.where(MARKDOWN_FILE)]


def make_report(inputs: Inputs) -> Report:
    """The whole report as a value; the same inputs give the same value."""
    first = primary_setting(inputs.cells)
    cells, sweep = inputs.setting(first), inputs.sweep
    found = answer(cells, sweep)
    return Report(
        sweep=sweep.name,
        kicker=f"Sweep {sweep.name} · {first} · {title_of(PRIMARY)}",
        verdict=verdict_words(found)
        if has_scores(cells)
        else f"No answer: none of {counted(len(cells), 'cell')} has a score.",
        support=support_words(found),
        notices=tuple(_notices(inputs)),
        facts=tuple(_facts(inputs, first)),
        sections=(
            _section("best", "Which activation is best, and how sure are we", inputs, _best),
            _section("quantization", "What quantization and TTT do to that", inputs, _quantization),
            _section("costs", "What it costs", inputs, _costs),
            missing_section(inputs),
            repeat_section(inputs),
            Section(anchor="limits", title="What this does not say", blocks=(Bullets(_LIMITS),)),
        ),
        table=contrast_table(found, cells) if found.rows else None,
        footnotes=tuple(_footnotes(inputs, first)),
    )


def _section(
    anchor: str, title: str, inputs: Inputs, build: Callable[[Inputs, str], tuple[Block, ...]]
) -> Section:
    """One question, asked of every setting: in parts where there are several."""
    known = ordered_settings(inputs.cells)
    answers = [or_reason(partial(build, inputs, setting)) for setting in known]
    if len(known) == 1:
        return Section(anchor=anchor, title=title, blocks=answers[0])
    parts = [
        Section(anchor=f"{anchor}-{slug(setting)}", title=setting, blocks=blocks)
        for setting, blocks in zip(known, answers, strict=True)
    ]
    return Section(anchor=anchor, title=title, parts=tuple(parts))


def _best(inputs: Inputs, setting: str) -> tuple[Block, ...]:
    return (*winner_blocks(inputs, setting), *_pictures(["slope_bpb"], inputs, setting))


def _quantization(inputs: Inputs, setting: str) -> tuple[Block, ...]:
    return (*quantization_blocks(inputs, setting), *_pictures(["quant_delta"], inputs, setting))


def _costs(inputs: Inputs, setting: str) -> tuple[Block, ...]:
    return (*cost_blocks(inputs, setting), *_pictures(["artifact_bytes"], inputs, setting))


def _pictures(names: list[str], inputs: Inputs, setting: str) -> tuple[Block, ...]:
    """The figures of a section; none where nothing was scored, which the section says."""
    if not has_scores(inputs.setting(setting)):
        return ()
    return tuple(picture(name, inputs, setting) for name in names)


def _notices(inputs: Inputs) -> list[str]:
    """What a reader must know before believing anything."""
    scored = coverage(inputs)
    notices = [] if scored.startswith("Nothing") else [f"{scored} Section 4 names each."]
    if inputs.cells["dirty"].fillna(False).any():
        notices.append("Some cells ran from a checkout with uncommitted changes (section 5).")
    return notices


def _facts(inputs: Inputs, setting: str) -> list[Fact]:
    cells = inputs.setting(setting)
    found = answer(cells, inputs.sweep)
    facts = []
    if found.best is not None:
        label = f"{found.names[found.best['key']]} − {found.names[found.reference]}"
        n = counted(found.best["n"], "paired seed")
        facts.append(Fact(label, gap_words(found.best), f"bits per byte; {n}"))
    if found.rows and found.rows[0]["noise_sd"] == found.rows[0]["noise_sd"]:
        first = found.rows[0]
        footing = f"bits per byte, {first['noise_df']:.0f} degrees of freedom"
        facts.append(Fact("Noise of one score (sd)", number(first["noise_sd"]), footing))
    total = inputs.sweep.num_cells or len(inputs.cells)
    scored = int(is_scored(inputs.cells).sum())
    facts.append(Fact("Cells with a score", f"{scored} of {total}", f"in {_settings(inputs)}"))
    return facts


def _settings(inputs: Inputs) -> str:
    return counted(inputs.cells["setting"].nunique(), "setting")


def _footnotes(inputs: Inputs, first: str) -> list[str]:
    cells = inputs.setting(first)
    others = [
        answer(inputs.setting(setting), inputs.sweep).verdict.sentence
        for setting in ordered_settings(inputs.cells)[1:]
    ]
    return [
        answer(cells, inputs.sweep).verdict.sentence,
        *others,
        f"Cells: {coverage(inputs)}",
        f"Revision {revision_words(inputs.cells)}. `make report SWEEP={inputs.sweep.name}` gives"
        " the whole.",
    ]
