"""Section 1 of the report: which activation is best, and how sure that is."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.conclusions.best_fixed import best_fixed_sentences
from analysis.conclusions.sensitivity import DATA_ORDER, sensitivity_sentences
from analysis.costs.axis_survival import axis_survival
from analysis.figures.figure_data import FigureData, optional
from analysis.number_format import DASH, capital, counted, listed, number, percent
from analysis.planning.pairing import pairing_sentences
from analysis.report.answers import Answer, answer, gap_words, p_words, resolved_word, tone_of
from analysis.report.choice_tables import choice_table
from analysis.report.document import Bar, Block, Details, Findings, Row, Table, Text, or_reason
from analysis.report.report_data import SettingData, by_activation
from analysis.rows.read import including_tainted, is_scored, records
from analysis.rows.scoring import scoring_words, script_windows, stage_title, title_and_windows
from analysis.rows.stages import PANELS, STAGES, is_legal
from analysis.stats.aa_control import aa_sentences
from analysis.stats.per_seed import seed_stats
from analysis.study import Study
from sweep.spec.sweep_file import RecordRule

# What a sentence on the verdict is about, by how it begins.
_SUBJECTS = {
    "The record rule": "Record rule",
    "Equal noise": "Equal noise",
    "Sign flips": "Sign flips",
    "With ": "Tainted attempts",
}
_OTHER_DESIGNS = {
    "pooled": "if noise were known to be equal",
    "unpaired": "if seeds were not paired besides",
}


def best_activation(setting: SettingData) -> tuple[Block, ...]:
    """The section for one setting."""
    if not setting.has_scores:
        return (Text(f"None of {counted(len(setting.cells), 'cell')} has a score (section 4)."),)
    found = setting.answer
    controls = (
        *or_reason(lambda: (_findings(_controls(setting), setting),)),
        *or_reason(lambda: (_sensitivity_table(setting),)),
    )
    likely = [Details("How likely each activation is the best", (choice_table(setting),))]
    return (
        contrast_table(found, setting.cells)
        if found.rows
        else Text(found.decision.sentence, "lead"),
        *or_reason(lambda: (_findings(_next_to_the_answer(setting), setting),)),
        *(likely if setting.choice.key else []),
        Details("Controls, and the same question asked otherwise", controls),
        _means(setting.study),
    )


def resolution_words(data: FigureData) -> list[str]:
    """The smallest difference that the finished grid resolves, and what other designs would."""
    found = optional(lambda: data.resolution)
    if found is None:
        return []
    here = {row["design"]: row for row in records(found.here)}
    block = here["block"]
    others = [
        f"{number(here[design]['effect'])} {words}"
        for design, words in _OTHER_DESIGNS.items()
        if design in here
    ]
    return [
        "The smallest difference from the reference that this grid resolves is"
        f" {number(block['effect'])} BPB, with power {block['power']:g}"
        f" ({counted(int(block['n']), 'seed')}, {counted(int(block['comparisons']), 'comparison')},"
        f" noise sd {number(block['noise_sd'])}, {block['noise_df']} df). It would be"
        f" {listed(others)}."
    ]


def _next_to_the_answer(setting: SettingData) -> list[tuple[str, str]]:
    """Slope, learned β, and what the grid resolves."""
    study, curve = setting.study, optional(lambda: setting.figures.slope_curve)
    learned = best_fixed_sentences(study, study.primary)
    return [
        *([] if curve is None else [("Best slope", curve.sentence())]),
        *(("Learned β", sentence) for sentence in learned),
        *(("What it resolves", sentence) for sentence in resolution_words(setting.figures)),
    ]


def _controls(setting: SettingData) -> list[tuple[str, str]]:
    """What a reader of the answer must know in order not to be misled by it."""
    return [
        *(("Pairing", sentence) for sentence in pairing_sentences(setting.study)),
        *(("A/A control", sentence) for sentence in aa_sentences(setting.study)),
        *(
            (_subject(sentence), sentence)
            for sentence in sensitivity_sentences(setting.study)
            if sentence != DATA_ORDER  # said once, in what the report does not say
        ),
    ]


def _findings(found: list[tuple[str, str]], setting: SettingData) -> Findings:
    return Findings(tuple((subject, _bare(words, setting)) for subject, words in found))


def _subject(sentence: str) -> str:
    found = (name for opening, name in _SUBJECTS.items() if sentence.startswith(opening))
    return next(found, "Sensitivity")


def _bare(sentence: str, setting: SettingData) -> str:
    """``sentence`` without the stage and setting that the section names already."""
    stage, name = capital(stage_title(setting.cells, setting.study.primary)), setting.name
    openings = (f"{stage} ({name}): ", f"A/A control ({name}): ", "Sign flips: ")
    for opening in openings:
        sentence = sentence.removeprefix(opening)
    return capital(sentence)


def _means(study: Study) -> Details:
    """The scores themselves, for whoever wants to check."""
    cells, stats = study.cells, seed_stats(study.cells, PANELS)
    windows = script_windows(cells, PANELS) or (
        f"Contiguous: {scoring_words(cells, 'post_quant_bpb')}. Sliding:"
        f" {scoring_words(cells, 'post_quant_sliding_bpb')}"
    )
    present = [stage for stage in PANELS if (stats["quantity"] == stage).any()]
    rows = []
    for found in by_activation(stats, study.sweep.keys):
        first = found[present[0]]
        entries = [f"{number(found[s]['mean'])} ({number(found[s]['sd'])})" for s in present]
        n = max(int(row["n"]) for row in found.values())
        mark = " †" if first["n_diverged"] else ""
        rows.append(Row((f"{first['label']}{mark}", str(n), *entries)))
    table = Table(
        caption="Bits per byte of each stage: mean (standard deviation) over n seeds. The spread of"
        " seeds moves all activations together, so it compares no two of them.",
        headings=("activation", "n", *(stage_title(cells, stage) for stage in present)),
        rows=tuple(rows),
        note=f"{windows}. † a seed diverged: mean over survivors, not ranked.",
    )
    return Details("Scores of every stage", (table,))


def contrast_table(found: Answer, cells: pd.DataFrame) -> Table:
    """Every activation against the reference: the numbers of ``contrasts``, best first."""
    return Table(
        caption=f"Difference from {found.names[found.reference]} in bits per byte,"
        f" {title_and_windows(cells, found.quantity)}. Below zero is better.",
        headings=("activation", "difference", "n", "nats/token", "p", "resolved", "record rule"),
        rows=tuple(_contrast_row(row, found) for row in found.rows),
        bars="better ← 0 → worse",
        note=_interval_note(found.rows, found.record_rule),
    )


def _sensitivity_table(setting: SettingData) -> Table:
    """One line for each way of asking, and whether it finds the same activation lowest.

    Only the first line is a test; the same question of other stages, and with tainted attempts,
    decides nothing.
    """
    study, primary = setting.study, setting.answer
    title = capital(stage_title(study.cells, study.primary))
    rows = [
        _answer_row(f"{title}: the one that is tested", primary, primary),
        _with_tainted(study, primary),
    ]
    for stage in STAGES:
        scored = study.cells.loc[is_scored(study.cells), stage].notna().any()
        if stage != study.primary and scored and is_legal(study.with_reruns, stage):
            title = capital(stage_title(study.cells, stage))
            rows.append(_answer_row(title, answer(study, stage), primary))
    return Table(
        caption="Does the answer survive? The same question asked otherwise; only the first line"
        " is a test.",
        headings=("asked of", "lowest", "difference from reference", "n", "resolved", "same"),
        rows=tuple(rows),
        words=2,
    )


def across_settings(study: Study, settings: tuple[SettingData, ...]) -> tuple[Block, ...]:
    """The answer under every budget and value of the recipe; nothing where there is one setting."""
    if len(settings) == 1:
        return ()
    table = Table(
        caption=f"The answer in each setting, {stage_title(study.cells, study.primary)}, each with"
        " intervals of its own.",
        headings=("setting", "lowest", "difference from reference", "n", "resolved"),
        rows=tuple(_answer_row(setting.name, setting.answer) for setting in settings),
        words=2,
    )
    opening = Text("One line for each setting; the first is the one that the report opens with.")
    return (opening, table, *or_reason(lambda: (_axes(study),)))


def _axes(study: Study) -> Findings:
    table = axis_survival(study, study.primary)
    return Findings(tuple(zip(table["axis"], table["sentence"], strict=True)))


def _with_tainted(study: Study, primary: Answer) -> Row:
    """The primary question with tainted successes counted, or that there are none."""
    counting = study.derive(including_tainted)
    more = int(is_scored(counting.with_reruns).sum() - is_scored(study.with_reruns).sum())
    title = f"With tainted attempts ({more or 'there are none'})"
    return _answer_row(title, answer(counting) if more else primary, primary)


def _answer_row(title: str, found: Answer, primary: Answer | None = None) -> Row:
    """One answer, and whether it names the activation that ``primary`` does."""
    best, key = found.best, found.decision.best
    name = DASH if key is None else found.names[key]
    told = (DASH,) * 3
    if best is not None:
        told = (gap_words(best), str(best["n"]), resolved_word(best))
    if primary is None:
        return Row((title, name, *told))
    same = "yes" if key == primary.decision.best else "no"
    return Row((title, name, *told, same))


def _contrast_row(row: Any, found: Answer) -> Row:
    half, rule = row["half_width"], row["record_rule"]
    low, high = (None, None) if pd.isna(half) else (row["low"], row["high"])
    return Row(
        (
            found.names[row["key"]],
            gap_words(row),
            str(row["n"]),
            number(row["nats"], signed=True),
            p_words(row["p_value"]),
            resolved_word(row),
            rule if isinstance(rule, str) else DASH,
        ),
        tone=tone_of(row),
        bar=Bar(row["difference"], low, high),
    )


def _interval_note(rows: Sequence[Mapping[str, Any]], rule: RecordRule) -> str:
    """What all intervals of the table stand on."""
    row, along = rows[0], any(other["along_curve"] for other in rows)
    curve = ", of fixed slopes along their curve where that tells more," if along else ""
    if isinstance(row["unjudged"], str):
        return f"There is no interval: {row['unjudged']}."
    return (
        f"n counts paired seeds. Difference of means{curve} ± half width, simultaneous"
        f" {percent(row['level'])} over"
        f" {counted(row['comparisons'], 'comparison')}, p adjusted over them; noise sd"
        f" {number(row['noise_sd'])} BPB with {row['noise_df']:.0f} degrees of freedom, pooled over"
        f" the grid, compared within {row['blocks']}, the interval widened where noise is unequal."
        f" Resolved: the interval excludes zero. Record rule ({rule.source}): better by more than"
        f" {rule.nats:g} nats per token at p < {rule.p:g}."
    )
