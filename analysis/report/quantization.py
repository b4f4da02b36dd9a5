"""Section 2 of the report: what quantization and test-time training do to each activation.

Deltas are taken within a cell at equal windows. Whether quantization acts on all activations alike
is the second question that is tested (``analysis.conclusions.stage_interaction``); what else
differs is described.
"""

import pandas as pd

from analysis.figures.figure_data import optional
from analysis.mechanism.associations import association_sentences
from analysis.number_format import capital, counted, listed, percent, plus_minus
from analysis.report.document import Block, Findings, Table, Text
from analysis.report.report_data import SettingData, gap_entries, seed_rows
from analysis.rows.read import records
from analysis.rows.scoring import scoring_words
from analysis.rows.stages import DELTAS, STAGES, is_legal
from analysis.stats.compare import compare
from analysis.stats.quantization import CHANGES, delta_stats, primary_delta, with_deltas
from analysis.study import Study

_SLOT = "slot_gain"


def quantization(setting: SettingData) -> tuple[Block, ...]:
    """The section for one setting."""
    cells = setting.cells
    stats = delta_stats(cells)
    known = stats[stats["n"] > 0]
    if known.empty:
        return (Text("No cell has two scores in windows known to be alike, so no delta is known."),)
    by_name = {name: known[known["quantity"] == name] for name in CHANGES}
    present = [name for name, rows in by_name.items() if len(rows)]
    tested = primary_delta(cells)
    findings = [
        (capital(CHANGES[name]), _range(by_name[name], setting, tested)) for name in present
    ]
    layers = optional(lambda: setting.figures.layers)
    if layers is not None:
        told = association_sentences(setting.study, layers)
        findings += [("Mechanism", words.replace(f" ({setting.name})", "")) for words in told]
    slot = (known["quantity"] == _SLOT).any()
    return (
        *([Text(" ".join(setting.stages), "lead")] if setting.stages else []),
        *([_table(known, present, setting.study)] if present else []),
        Findings(tuple(findings)),
        *([_slot(known, setting.study)] if slot else []),
    )


def _range(stats: pd.DataFrame, setting: SettingData, tested: str | None) -> str:
    """The smallest and the largest delta; of one that is not tested, which differ all the same."""
    quantity = str(stats["quantity"].iloc[0])
    rows = sorted(records(stats[stats["ranked"]]), key=lambda row: (row["mean"], row["key"]))
    if not rows:
        return "No activation can be ranked."
    ends = " to ".join(
        f"{plus_minus(row['mean'], row['half_width'], signed=True)} ({row['label']})"
        for row in (rows[:1] if len(rows) == 1 else (rows[0], rows[-1]))
    )
    described = "" if quantity == tested else f" {_described(quantity, setting.study)}"
    return f"{ends} bits per byte.{described}"


def _described(quantity: str, study: Study) -> str:
    rows = records(compare(study.derive(with_deltas), quantity))
    if not rows or isinstance(rows[0]["unjudged"], str):
        why = rows[0]["unjudged"] if rows else "none is compared"
        return f"Differences between activations: {why}."
    labels = study.labels
    told = [
        f"{labels[row['key']]} ({plus_minus(row['difference'], row['half_width'], signed=True)})"
        for row in sorted(rows, key=lambda row: row["difference"])
        if row["resolved"]
    ]
    who = f"{'differs' if len(told) < 2 else 'differ'} from {labels[study.reference]} in it"
    return (
        f"{listed(told) if told else 'None'} {who} (simultaneous {percent(rows[0]['level'])}"
        f" intervals over {counted(len(rows), 'comparison')}; described, not tested)."
    )


def _table(stats: pd.DataFrame, present: list[str], study: Study) -> Table:
    measured = study.derive(with_deltas)
    level = percent(stats["level"].iloc[0])
    headings = [word for name in present for word in (CHANGES[name], "less the reference's")]
    return Table(
        caption="Change of the score in bits per byte: mean over n seeds, and how far it is from"
        " the reference's. Above zero is a loss.",
        headings=("activation", "n", *headings),
        rows=seed_rows(
            stats,
            study.sweep.keys,
            dict.fromkeys(present, 4),
            signed=True,
            beside={name: gap_entries(measured, name) for name in present},
        ),
        note=f"± of a mean: half width of the {level} t interval, no narrower than that of the"
        " spread over seeds that all activations share; it compares no two of them. ± of a"
        f" difference: simultaneous {level} over all comparisons. "
        + ". ".join(
            f"{capital(CHANGES[name])}: {_stages_of(name)}, {scoring_words(study.cells, name)}"
            for name in present
        )
        + ".",
    )


def _stages_of(name: str) -> str:
    """Which score less which, without their windows, which the note names."""
    after, before = (STAGES[stage].name for stage in (DELTAS[name].after, DELTAS[name].before))
    return f"{after} − {before}"


def _slot(stats: pd.DataFrame, study: Study) -> Table:
    legal = is_legal(study.cells, _SLOT)
    mark = "" if legal else " NOT A LEGAL SCORE: fitted on the targets that it scores."
    return Table(
        caption=f"SLOT, apart from everything above.{mark} Change of the score in bits per byte:"
        f" mean ± half width of the {percent(stats['level'].iloc[0])} t interval over n seeds, no"
        " narrower than that of the spread that all activations share.",
        headings=("activation", "n", "SLOT" if legal else "SLOT (not legal)"),
        rows=seed_rows(stats, study.sweep.keys, {_SLOT: 4}, signed=True),
        note=f"SLOT: {_stages_of(_SLOT)}, {scoring_words(study.cells, _SLOT)}.",
    )
