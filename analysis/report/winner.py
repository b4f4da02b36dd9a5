"""Which activation is best, and how sure are we? The section that the report exists for."""

from typing import Any

import pandas as pd

from analysis.figures.inputs import Given
from analysis.number_format import DASH, capital, counted, listed, number, percent, plus_minus
from analysis.report.answers import (
    Answer,
    gap_words,
    p_words,
    resolved_word,
    tone_of,
)
from analysis.report.document import Bar, Block, Details, Points, Row, Table, Text, or_reason
from analysis.report.inputs import Case
from analysis.report.survival import survival_table
from analysis.rows.read import records
from analysis.rows.stages import PANELS, PRIMARY, title_of, windows_of
from analysis.stats.aa_control import aa_sentences
from analysis.stats.compare import FIELD_NATS, FIELD_P
from analysis.stats.per_seed import seed_stats
from analysis.stats.sensitivity import DATA_ORDER, sensitivity_sentences
from analysis.stats.slope_curve import best_fixed_sentences


def winner_blocks(case: Case) -> tuple[Block, ...]:
    """Section 1 of the report, for one setting."""
    if not case.has_scores:
        return (Text(f"None of {counted(len(case.cells), 'cell')} has a score (section 4)."),)
    found = case.answer
    return (
        Text(found.decision.sentence, "lead"),
        *([contrast_table(found, case.cells)] if found.rows else []),
        *or_reason(lambda: (_points(case),)),
        *or_reason(lambda: (survival_table(case),)),
        _means(case.cells, case.sweep.keys),
    )


def contrast_table(found: Answer, cells: pd.DataFrame) -> Table:
    """Every activation against the reference: the numbers of ``compare``, best first."""
    first = found.rows[0]
    return Table(
        caption=f"Difference from {found.names[found.reference]} in bits per byte,"
        f" {title_of(found.quantity)} ({footing_words(cells, found.quantity)}). Below zero is"
        " better.",
        headings=("activation", "difference", "n", "nats/token", "p", "resolved", "field's rule"),
        rows=tuple(_row(row, found) for row in found.rows),
        bars="better ← 0 → worse",
        note=_standing(first),
    )


def footing_words(cells: pd.DataFrame, quantity: str) -> str:
    """Window and stride of a score, in words."""
    known = cells.dropna(subset=["window"])
    if known.empty:
        return "windows not recorded"
    window, stride = int(known["window"].iloc[0]), int(known["stride"].iloc[0])
    return (
        f"windows of {window} tokens, stride"
        f" {stride if windows_of(quantity) == 'sliding' else window}"
    )


def _row(row: Any, found: Answer) -> Row:
    half, rule = row["half_width"], row["field_rule"]
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


def _standing(row: Any) -> str:
    """What all intervals of the table stand on."""
    if pd.isna(row["noise_sd"]):
        return "The noise is not known from so few seeds, so there is no interval."
    return (
        f"n counts paired seeds. Mean ± half width, simultaneous {percent(row['level'])} over"
        f" {counted(row['comparisons'], 'comparison')}, p adjusted over them; noise sd"
        f" {number(row['noise_sd'])} BPB with {row['noise_df']:.0f} degrees of freedom, pooled over"
        f" the grid (block: {row['blocks']}), the interval widened where noise is unequal."
        " Resolved: the interval excludes zero. Field's rule: better by more than"
        f" {FIELD_NATS} nats per token at p < {FIELD_P}."
    )


def _points(case: Case) -> Points:
    """What stands beside the answer: slope, learned β, what the grid resolves, its A/A control."""
    curve = [] if case.known.slope_curve is None else [case.known.slope_curve.sentence()]
    learned = best_fixed_sentences(case.study, PRIMARY)
    said = [
        *(("Best slope", sentence) for sentence in curve),
        *(("Learned β", sentence) for sentence in learned),
        *(("What it resolves", sentence) for sentence in resolution_words(case.known)),
        *(("A/A control", sentence) for sentence in aa_sentences(case.study)),
    ]
    said += [
        (_about(sentence), sentence)
        for sentence in sensitivity_sentences(case.study)
        if sentence != DATA_ORDER  # said once, in what the report does not say
    ]
    return Points(tuple((about, _bare(sentence, case.name)) for about, sentence in said))


_BESIDE = {
    "The field's rule": "Field's rule",
    "Equal noise": "Equal noise",
    "Sign flips": "Sign flips",
    "With ": "Tainted attempts",
}


def _about(sentence: str) -> str:
    """What a sentence that stands beside the verdict is about."""
    found = (name for opening, name in _BESIDE.items() if sentence.startswith(opening))
    return next(found, "Beside it")


def _bare(sentence: str, setting: str) -> str:
    """``sentence`` without the stage and setting that the section names already."""
    stage = capital(title_of(PRIMARY))
    openings = (f"{stage} ({setting}): ", f"A/A control ({setting}): ", "Sign flips: ")
    for opening in openings:
        sentence = sentence.removeprefix(opening)
    return capital(sentence)


def resolution_words(known: Given) -> list[str]:
    """The smallest difference that the finished grid resolves, and what other designs would."""
    if known.power is None:
        return []
    here = {row["design"]: row for row in records(known.power.here)}
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


_OTHER_DESIGNS = {
    "pooled": "if the noise were known to be alike for all",
    "unpaired": "if seeds were not paired",
}


def _means(cells: pd.DataFrame, keys: tuple[str, ...]) -> Details:
    """The scores themselves, for whoever wants to check."""
    stats = seed_stats(cells, PANELS)
    found = {(row["key"], row["quantity"]): row for row in records(stats)}
    present = [stage for stage in PANELS if (stats["quantity"] == stage).any()]
    rows = []
    for key in keys:
        mine = [found[key, stage] for stage in present if (key, stage) in found]
        if mine:
            n = str(max(row["n"] for row in mine))
            values = [plus_minus(row["mean"], row["half_width"]) for row in mine]
            mark = " †" if mine[0]["n_diverged"] else ""
            rows.append(Row((f"{mine[0]['label']}{mark}", n, *values)))
    table = Table(
        caption="Bits per byte of each stage: mean ± half width of the 95 % t interval over n"
        " seeds. These intervals hold the spread of seeds, which moves all activations together.",
        headings=("activation", "n", *(title_of(stage) for stage in present)),
        rows=tuple(rows),
        note=f"Contiguous: {footing_words(cells, 'post_quant_bpb')}. Sliding:"
        f" {footing_words(cells, PRIMARY)}. † a seed diverged: mean over survivors, not ranked.",
    )
    return Details("Scores of every stage", (table,))
