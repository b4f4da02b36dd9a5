"""Assemble the report of a sweep: its answer first, then what it rests on, costs and lacks.

``report.html`` needs nothing but a browser; ``report.md`` goes into a pull request. This module
assembles: every number comes from the functions that the notebooks and the summary call too.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from analysis.conclusions.sensitivity import DATA_ORDER
from analysis.conclusions.slope_curve import best_set
from analysis.figures.captions import recipe_and_budget, take_caption
from analysis.figures.catalog import FIGURES, as_svg, draw_or_reason, save_figures, slug
from analysis.figures.figure_data import optional
from analysis.number_format import counted, number, percent
from analysis.planning.optional_stopping import stopping_sentences
from analysis.planning.pairing import pairing_sentences
from analysis.planning.second_stage import second_stage_sentences
from analysis.report.answers import shown_words, support_words
from analysis.report.best_activation import (
    across_settings,
    best_activation,
    contrast_table,
    resolution_words,
)
from analysis.report.choice_tables import seed_table
from analysis.report.costs import costs
from analysis.report.document import (
    Block,
    Bullets,
    Details,
    Fact,
    Picture,
    Report,
    Section,
    Table,
    or_reason,
)
from analysis.report.html import render_html
from analysis.report.markdown import render_markdown
from analysis.report.missing_cells import (
    common_reasons,
    completeness_words,
    grid_size,
    missing_cells,
)
from analysis.report.quantization import quantization
from analysis.report.report_data import ReportData, SettingData, report_data
from analysis.report.reproduction import reproduction, revision_words
from analysis.rows.read import is_scored, succeeded
from analysis.rows.scoring import stage_title
from analysis.study import read_study
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
    "Two questions are tested, each with an error rate of 5 %, and named before any result: the"
    " ranking at one stage, and whether quantization costs all activations the same. All else is"
    " described.",
)


class _Question(NamedTuple):
    """A section that every setting has: what it says, its figures, and those that are folded."""

    anchor: str
    title: str
    say: Callable[[SettingData], tuple[Block, ...]]
    shown: tuple[str, ...]
    folded: tuple[str, ...] = ()

    def blocks(self, setting: SettingData) -> tuple[Block, ...]:
        """Its answer for one setting."""
        blocks, more = self.say(setting), pictures(self.folded, setting)
        titles = "; ".join(f"{figure.title[:1].lower()}{figure.title[1:]}" for figure in more)
        folded = (Details(f"More figures: {titles}", more),) if more else ()
        return (*blocks, *pictures(self.shown, setting), *folded)


_BEST = _Question(
    "best",
    "Which activation is best, and how sure are we",
    best_activation,
    shown=(),
    folded=("differences", "slope_bpb", "power"),
)
_QUANTIZATION = _Question(
    "quantization",
    "What quantization and TTT do to that",
    quantization,
    shown=("quant_delta",),
    folded=(
        *("ttt_gain", "slot_gain", "mechanism_delta", "mechanism", "mechanism_layers"),
        "beta_by_layer",
    ),
)
_COSTS = _Question(
    "costs",
    "What it costs",
    costs,
    shown=("learning_curves",),
    folded=("artifact_bytes", "pace"),
)


def write_report(
    place: str | Path, *, figures: bool = False, tell: Callable[[str], object] = lambda line: None
) -> list[str]:
    """Write ``report.html`` and ``report.md`` of the sweep in ``place``; the paths written.

    Where no cell has a score the report says what failed; it is written, and then a ConfigError
    says so, since there is no answer. With ``figures`` all figures are written too, as
    ``save_figures`` does, from the values that the report has read already.
    """
    data, files = report_data(read_study(place)), open_files(place)
    known = {setting.name: setting.figures for setting in data.settings if setting.has_scores}
    drawn = save_figures(data.study, tell=tell, known=known) if figures and known else []
    report = make_report(data)
    files.replace(HTML_FILE, render_html(report).encode())
    files.replace(MARKDOWN_FILE, render_markdown(report).encode())
    try:
        succeeded(data.study.cells)
    except ConfigError as error:
        raise ConfigError(f"{error} {files.where(HTML_FILE)} names each.") from None
    return [files.where(HTML_FILE), files.where(MARKDOWN_FILE), *drawn]


def make_report(data: ReportData) -> Report:
    """The whole report as a value; the same data give the same value."""
    settings, study = data.settings, data.study
    first = settings[0]
    return Report(
        sweep=study.sweep.name,
        kicker=f"Sweep {study.sweep.name} · {first.name} ·"
        f" {stage_title(first.cells, study.primary)}",
        verdict=_verdict(first),
        choice=first.choice.sentence() if first.has_scores else "",
        support=support_words(first.answer) if first.has_scores else _reasons(first),
        lead=next(iter(pictures(("slope_curve",), first)), None),
        notices=tuple(_notices(data)),
        facts=tuple(_facts(data)),
        sections=(
            _section(_BEST, settings, across_settings(study, settings)),
            _section(_QUANTIZATION, settings),
            _section(_COSTS, settings),
            missing_cells(data),
            reproduction(study),
            Section(anchor="limits", title="What this does not say", blocks=(Bullets(_LIMITS),)),
        ),
        tables=_posted_tables(first),
        footnotes=tuple(_footnotes(data)),
    )


def _posted_tables(setting: SettingData) -> tuple[Table, ...]:
    """What people post: every difference, and the seeds of what to use and of the reference."""
    if not setting.answer.rows:
        return ()
    return (contrast_table(setting.answer, setting.cells), seed_table(setting))


def _verdict(setting: SettingData) -> str:
    if told := stopping_sentences(setting.study):
        return told[0]
    if setting.has_scores:
        return shown_words(setting.answer, optional(lambda: setting.figures.slope_curve))
    return f"No answer: none of {counted(len(setting.cells), 'cell')} has a score."


def _reasons(setting: SettingData) -> str:
    shared = common_reasons(setting.cells)
    return " ".join(shared) if shared else "Section 4 says why."


def _section(
    question: _Question, settings: tuple[SettingData, ...], over: tuple[Block, ...] = ()
) -> Section:
    """One question, asked of every setting: in parts where there are several."""
    anchor, title = question.anchor, question.title
    parts = tuple(
        Section(
            anchor=f"{anchor}-{slug(setting.name)}",
            title=setting.name,
            blocks=or_reason(partial(question.blocks, setting)),
        )
        for setting in settings
    )
    if len(parts) == 1:
        return Section(anchor=anchor, title=title, blocks=parts[0].blocks)
    return Section(anchor=anchor, title=title, blocks=over, parts=parts)


def pictures(names: tuple[str, ...], setting: SettingData) -> tuple[Picture, ...]:
    """Those of the figures ``names`` that can be drawn, each with its caption as text.

    A caption that is text can be read at any width, and by those who cannot see the figure.
    """
    if not setting.has_scores:
        return ()
    shown = []
    for name in names:
        drawn = setting.figures.on_page.get(name)
        if drawn is None:
            figure = draw_or_reason(name, setting.figures)
            if isinstance(figure, str):
                continue
            drawn = take_caption(figure, as_svg(figure))
        title, (caption, svg) = FIGURES[name].title, drawn
        caption = caption.removeprefix(recipe_and_budget(setting.cells)).strip()
        alt = f"Chart ({setting.name}): {title}."
        shown.append(Picture(title=title, alt=alt, caption=caption, svg=svg))
    return tuple(shown)


def _notices(data: ReportData) -> list[str]:
    """What a reader must know first."""
    notices = [*second_stage_sentences(data.study), *stopping_sentences(data.study)[1:]]
    if data.missing:
        notices.append(f"{completeness_words(data)} Section 4 says more.")
    if data.study.cells["dirty"].fillna(False).any():
        notices.append("Some cells ran from a checkout with uncommitted changes (section 5).")
    return notices


def _facts(data: ReportData) -> list[Fact]:
    first = data.settings[0]
    found, facts = first.choice, []
    if found.key is not None:
        best = found.table.iloc[0]
        basis = f"best of those tested with probability {percent(best['probability'])}"
        facts.append(Fact("To use", best["label"], basis))
        basis = f"bits per byte, with probability {percent(found.level)}"
        facts.append(Fact("Costs at most", number(best["regret_high"]), basis))
    resolution = optional(lambda: first.figures.resolution)
    if resolution is not None:
        row = resolution.here[resolution.here["design"] == "block"].iloc[0]
        seeds, noise = counted(int(row["n"]), "seed"), number(row["noise_sd"])
        basis = f"bits per byte, with power {row['power']:g}; {seeds}, noise sd {noise}"
        facts.append(Fact("Resolvable difference", number(row["effect"]), basis))
    curve = optional(lambda: first.figures.slope_curve)
    if curve is not None and curve.flat is False:
        basis = f"{percent(curve.level)} set; {counted(curve.n, 'seed')}"
        facts.append(Fact("Best slope", best_set(curve), basis))
    scored, of = int(is_scored(data.study.cells).sum()), grid_size(data.study)
    several = counted(data.study.cells["setting"].nunique(), "setting")
    return [*facts, Fact("Cells with a score", f"{scored} of {of}", f"in {several}")]


def _footnotes(data: ReportData) -> list[str]:
    first, *others = data.settings
    curve = optional(lambda: first.figures.slope_curve)
    return [
        first.answer.decision.sentence,
        *([] if curve is None else [curve.sentence()]),
        *resolution_words(first.figures),
        *pairing_sentences(first.study),
        *first.stages,
        *(setting.answer.decision.sentence for setting in others),
        completeness_words(data),
        f"Revision {revision_words(data.study.cells)}. `make report"
        f" SWEEP={data.study.sweep.name}` gives the whole.",
    ]
