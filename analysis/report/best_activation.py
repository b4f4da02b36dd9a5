"""Section 1 of the report: which activation is best, and how sure that is."""

from analysis.figures.figure_data import FigureData, optional
from analysis.number_format import capital, counted, listed, number, plus_minus
from analysis.report.answer_tables import contrast_table, sensitivity_table
from analysis.report.document import Block, Details, Findings, Row, Table, Text, or_reason
from analysis.report.report_data import SettingData, by_activation
from analysis.rows.read import records
from analysis.rows.scoring import scoring_words
from analysis.rows.stages import PANELS, PRIMARY, title_of
from analysis.stats.aa_control import aa_sentences
from analysis.stats.best_fixed import best_fixed_sentences
from analysis.stats.per_seed import seed_stats
from analysis.stats.sensitivity import DATA_ORDER, sensitivity_sentences
from analysis.study import Study

# What a sentence on the verdict is about, by how it begins.
_SUBJECTS = {
    "The field's rule": "Field's rule",
    "Equal noise": "Equal noise",
    "Sign flips": "Sign flips",
    "With ": "Tainted attempts",
}
_OTHER_DESIGNS = {
    "pooled": "if the noise were known to be alike for all",
    "unpaired": "if seeds were not paired",
}


def best_activation(setting: SettingData) -> tuple[Block, ...]:
    """The section for one setting."""
    if not setting.has_scores:
        return (Text(f"None of {counted(len(setting.cells), 'cell')} has a score (section 4)."),)
    found = setting.answer
    return (
        Text(found.decision.sentence, "lead"),
        *([contrast_table(found, setting.cells)] if found.rows else []),
        *or_reason(lambda: (_findings(setting),)),
        *or_reason(lambda: (sensitivity_table(setting),)),
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


def _findings(setting: SettingData) -> Findings:
    """Next to the answer: slope, learned β, what the grid resolves, its A/A control."""
    study, curve = setting.study, optional(lambda: setting.figures.slope_curve)
    learned = best_fixed_sentences(study, PRIMARY)
    found = [
        *([] if curve is None else [("Best slope", curve.sentence())]),
        *(("Learned β", sentence) for sentence in learned),
        *(("What it resolves", sentence) for sentence in resolution_words(setting.figures)),
        *(("A/A control", sentence) for sentence in aa_sentences(study)),
        *(
            (_subject(sentence), sentence)
            for sentence in sensitivity_sentences(study)
            if sentence != DATA_ORDER  # said once, in what the report does not say
        ),
    ]
    return Findings(tuple((subject, _bare(words, setting.name)) for subject, words in found))


def _subject(sentence: str) -> str:
    found = (name for opening, name in _SUBJECTS.items() if sentence.startswith(opening))
    return next(found, "Sensitivity")


def _bare(sentence: str, setting: str) -> str:
    """``sentence`` without the stage and setting that the section names already."""
    stage = capital(title_of(PRIMARY))
    openings = (f"{stage} ({setting}): ", f"A/A control ({setting}): ", "Sign flips: ")
    for opening in openings:
        sentence = sentence.removeprefix(opening)
    return capital(sentence)


def _means(study: Study) -> Details:
    """The scores themselves, for whoever wants to check."""
    stats = seed_stats(study.cells, PANELS)
    present = [stage for stage in PANELS if (stats["quantity"] == stage).any()]
    rows = []
    for found in by_activation(stats, study.sweep.keys):
        mine = [found[stage] for stage in present if stage in found]
        values = [plus_minus(row["mean"], row["half_width"]) for row in mine]
        mark = " †" if mine[0]["n_diverged"] else ""
        n = str(max(row["n"] for row in mine))
        rows.append(Row((f"{mine[0]['label']}{mark}", n, *values)))
    table = Table(
        caption="Bits per byte of each stage: mean ± half width of the 95 % t interval over n"
        " seeds. These intervals hold the spread of seeds, which moves all activations together.",
        headings=("activation", "n", *(title_of(stage) for stage in present)),
        rows=tuple(rows),
        note=f"Contiguous: {scoring_words(study.cells, 'post_quant_bpb')}. Sliding:"
        f" {scoring_words(study.cells, PRIMARY)}. † a seed diverged: mean over survivors, not"
        " ranked.",
    )
    return Details("Scores of every stage", (table,))
