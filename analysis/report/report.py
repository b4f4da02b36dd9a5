"""What has a sweep found, on one page? Its answer first, then what it rests on, costs and lacks.

``report.html`` needs nothing but a browser; ``report.md`` goes into a pull request. This module
assembles: every number comes from the functions that the notebooks and the summary call too.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from analysis.figures.catalog import slug
from analysis.number_format import counted, number, percent
from analysis.planning.second_stage import second_stage_sentences
from analysis.report.answers import decision_words, gap_words, support_words
from analysis.report.costs import cost_blocks
from analysis.report.document import (
    Block,
    Bullets,
    Details,
    Fact,
    Picture,
    Report,
    Section,
    or_reason,
)
from analysis.report.html import render_html
from analysis.report.inputs import Case, Inputs, cases, load_inputs
from analysis.report.markdown import render_markdown
from analysis.report.missing import (
    common_reasons,
    coverage,
    is_complete,
    missing_section,
    num_asked,
)
from analysis.report.pictures import pictures
from analysis.report.quantization import quantization_blocks
from analysis.report.repeat import repeat_section, revision_words
from analysis.report.settings import across_settings
from analysis.report.winner import contrast_table, resolution_words, winner_blocks
from analysis.rows.read import is_scored, succeeded
from analysis.rows.stages import PRIMARY, title_of
from analysis.stats.sensitivity import DATA_ORDER
from analysis.stats.slope_curve import best_set
from sweep.store.files import open_files
from trainer.config.config_errors import ConfigError

HTML_FILE, MARKDOWN_FILE = "report.html", "report.md"

_LIMITS = (
    "It speaks of one recipe, one text and the budgets named above; another may rank otherwise.",
    "It compares each activation with the reference, not every pair: of two that are both better,"
    " it does not say which is the better one.",
    "Not resolved does not mean equal: it means that the difference is smaller than this grid can"
    " tell from noise.",
    f"Intervals are about seeds, which draw the initial weights. {DATA_ORDER}",
    "One stage is tested, and it was named before any result; what other stages show is described.",
)


def write_report(place: str | Path) -> list[str]:
    """Write ``report.html`` and ``report.md`` of the sweep in ``place``; the paths written.

    Where no cell has a score the report says what failed; it is written, and then a ConfigError
    says so, since there is no answer.
    """
    inputs, files = load_inputs(place), open_files(place)
    report = make_report(inputs)
    files.replace(HTML_FILE, render_html(report).encode())
    files.replace(MARKDOWN_FILE, render_markdown(report).encode())
    try:
        succeeded(inputs.cells)
    except ConfigError as error:
        raise ConfigError(f"{error} {files.where(HTML_FILE)} names each.") from None
    return [files.where(HTML_FILE), files.where(MARKDOWN_FILE)]


def make_report(inputs: Inputs) -> Report:
    """The whole report as a value; the same inputs give the same value."""
    known = cases(inputs)
    first, sweep = known[0], inputs.sweep
    over = across_settings(inputs.study, known)
    return Report(
        sweep=sweep.name,
        kicker=f"Sweep {sweep.name} · {first.name} · {title_of(PRIMARY)}",
        verdict=_verdict(first),
        support=support_words(first.answer) if first.has_scores else _reasons(first),
        notices=tuple(_notices(inputs)),
        facts=tuple(_facts(inputs, first)),
        sections=(
            _section("best", "Which activation is best, and how sure are we", known, _best, over),
            _section("quantization", "What quantization and TTT do to that", known, _quantization),
            _section("costs", "What it costs", known, _costs),
            missing_section(inputs),
            repeat_section(inputs),
            Section(anchor="limits", title="What this does not say", blocks=(Bullets(_LIMITS),)),
        ),
        table=contrast_table(first.answer, first.cells) if first.answer.rows else None,
        footnotes=tuple(_footnotes(inputs, known)),
    )


def _verdict(case: Case) -> str:
    if case.has_scores:
        return decision_words(case.answer)
    return f"No answer: none of {counted(len(case.cells), 'cell')} has a score."


def _reasons(case: Case) -> str:
    shared = common_reasons(case.cells)
    return " ".join(shared) if shared else "Section 4 says why."


def _section(
    anchor: str,
    title: str,
    known: tuple[Case, ...],
    build: Callable[[Case], tuple[Block, ...]],
    over: tuple[Block, ...] = (),
) -> Section:
    """One question, asked of every setting: in parts where there are several."""
    answers = [or_reason(partial(build, case)) for case in known]
    if len(known) == 1:
        return Section(anchor=anchor, title=title, blocks=answers[0])
    parts = [
        Section(anchor=f"{anchor}-{slug(case.name)}", title=case.name, blocks=blocks)
        for case, blocks in zip(known, answers, strict=True)
    ]
    return Section(anchor=anchor, title=title, blocks=over, parts=tuple(parts))


def _best(case: Case) -> tuple[Block, ...]:
    more = pictures(("differences", "power"), case)
    return (*winner_blocks(case), *pictures(("slope_bpb",), case), *_folded(more))


def _quantization(case: Case) -> tuple[Block, ...]:
    shown = pictures(("quant_delta", "ttt_gain", "slot_gain", "mechanism_delta"), case)
    more = pictures(("mechanism", "mechanism_layers", "beta_by_layer"), case)
    return (*quantization_blocks(case), *shown, *_folded(more))


def _costs(case: Case) -> tuple[Block, ...]:
    shown = pictures(("artifact_bytes", "pace", "learning_curves"), case)
    return (*cost_blocks(case), *shown)


def _folded(more: tuple[Picture, ...]) -> tuple[Block, ...]:
    titles = [f"{shown.title[:1].lower()}{shown.title[1:]}" for shown in more]
    return (Details(f"More figures: {'; '.join(titles)}", more),) if more else ()


def _notices(inputs: Inputs) -> list[str]:
    """What a reader must know before believing anything."""
    notices = second_stage_sentences(inputs.study)
    if not is_complete(inputs):
        notices.append(f"{coverage(inputs)} Section 4 says more.")
    if inputs.cells["dirty"].fillna(False).any():
        notices.append("Some cells ran from a checkout with uncommitted changes (section 5).")
    return notices


def _facts(inputs: Inputs, case: Case) -> list[Fact]:
    found, facts = case.answer, []
    if found.best is not None:
        label = f"{found.names[found.best['key']]} − {found.names[found.reference]}"
        n = counted(found.best["n"], "paired seed")
        facts.append(Fact(label, gap_words(found.best), f"bits per byte; {n}"))
    curve, power = case.known.slope_curve, case.known.power
    if power is not None:
        row = power.here[power.here["design"] == "block"].iloc[0]
        seeds, noise = counted(int(row["n"]), "seed"), number(row["noise_sd"])
        footing = f"bits per byte, with power {row['power']:g}; {seeds}, noise sd {noise}"
        facts.append(Fact("Resolvable difference", number(row["effect"]), footing))
    if curve is not None and curve.fits and curve.flat is False:
        footing = f"{percent(curve.level)} set; {counted(curve.n, 'seed')}"
        facts.append(Fact("Best slope", best_set(curve), footing))
    scored, asked = int(is_scored(inputs.cells).sum()), num_asked(inputs)
    several = counted(inputs.cells["setting"].nunique(), "setting")
    return [*facts, Fact("Cells with a score", f"{scored} of {asked}", f"in {several}")]


def _footnotes(inputs: Inputs, known: tuple[Case, ...]) -> list[str]:
    first = known[0]
    slopes = first.known.slope_curve
    return [
        first.answer.decision.sentence,
        *([] if slopes is None else [slopes.sentence()]),
        *resolution_words(first.known),
        *(case.answer.decision.sentence for case in known[1:]),
        coverage(inputs),
        f"Revision {revision_words(inputs.cells)}. `make report SWEEP={inputs.sweep.name}` gives"
        " the whole.",
    ]
