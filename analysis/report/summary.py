"""The summary of a sweep: a line per activation, then the sentences that say how sure that is."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.conclusions.choice import choices
from analysis.conclusions.decision import decide
from analysis.conclusions.sensitivity import sensitivity_sentences
from analysis.conclusions.slope_curve import slope_curves
from analysis.conclusions.stage_interaction import stage_sentences
from analysis.models.interval import LEVEL
from analysis.number_format import DASH, listed, number, percent, plus_minus
from analysis.planning.optional_stopping import stopping_sentences
from analysis.planning.pairing import pairing_sentences
from analysis.planning.second_stage import second_stage_sentences
from analysis.report.missing_cells import reason_words, state_word, unlike_sentences
from analysis.report.report_data import by_activation, gap_entries
from analysis.rows.completeness import completeness_sentences
from analysis.rows.read import (
    Sweep,
    is_scored,
    records,
    succeeded,
)
from analysis.rows.scoring import script_windows
from analysis.rows.stages import PANELS, is_legal
from analysis.stats.aa_control import aa_sentences
from analysis.stats.quantization import with_deltas
from analysis.stats.seed_intervals import seed_intervals
from analysis.study import Study
from analysis.text_table import Summary, TextTable, markdown
from sweep.store.files import open_files

SUMMARY_FILE = "summary.md"
HEADINGS = {
    "pre_quant_bpb": "pre-quant",
    "post_quant_bpb": "post-quant",
    "post_quant_sliding_bpb": "sliding",
    "ttt_bpb": "TTT",
    "slot_bpb": "SLOT",
    "quant_delta": "quant delta",
    "artifact_kB": "artifact kB",
}
DIVERGED_MARK = "†"
_WINDOWS = "Pre-quant and post-quant in contiguous windows, sliding and TTT in sliding ones"
_GAP = "vs ref."
_BY_NODE = (
    "Nodes were blocks: the means and sds of this table hold what nodes add to them, its"
    " differences do not."
)


def summarize(study: Study) -> Summary:
    """The whole of what ``study`` says, in strings; a ConfigError where no cell succeeded."""
    frame, sweep = study.cells, study.sweep
    succeeded(frame)
    measured = with_deltas(frame).assign(artifact_kB=frame["artifact_bytes"] / 1000)
    stats = seed_intervals(measured, tuple(HEADINGS))
    tables = [
        _table(here, stats[stats["setting"] == setting], sweep.keys)
        for setting, here in study.settings.items()
    ]
    sentences = [
        f"Means over n seeds; at the tested stage with the sd over seeds, and the difference from"
        f" {study.labels.get(study.reference, study.reference)} within seeds ({_GAP}), ±"
        f" simultaneous {percent(LEVEL)} over all; of a fixed slope along the curve of the slopes"
        " where that says more. The quant delta's ± is its own t interval, no narrower than that of"
        " the spread that all share."
        f" {script_windows(frame, PANELS) or _WINDOWS}.",
        *([_BY_NODE] if sweep.pairing == "node" else []),
        *second_stage_sentences(study),
        *stopping_sentences(study),
        *(decision.sentence for decision in decide(study)),
        *(curve.sentence() for curve in slope_curves(study, study.primary)),
        *(_of(setting, choice.sentence(), study) for setting, choice in choices(study).items()),
        *pairing_sentences(study),
        *sensitivity_sentences(study),
        *stage_sentences(study),
        *aa_sentences(study),
        *_without_score(frame, sweep),
        *_not_legal(frame),
        *unlike_sentences(frame),
    ]
    return Summary(sweep.name, tuple(tables), tuple(sentences))


def _of(setting: str, sentence: str, study: Study) -> str:
    return sentence if len(study.settings) == 1 else f"{setting}: {sentence}"


def _not_legal(frame: pd.DataFrame) -> list[str]:
    if is_legal(frame, "slot_bpb"):
        return []
    return ["SLOT was fitted on the targets that it scores: not a legal score, and not ranked."]


def write_summary(study: Study) -> tuple[Summary, str]:
    """The summary of ``study``, and the file beside its rows that it was written to."""
    summary = summarize(study)
    files = open_files(study.place_of("summary"))
    files.replace(SUMMARY_FILE, markdown(summary).encode())
    return summary, files.where(SUMMARY_FILE)


def _table(here: Study, stats: pd.DataFrame, keys: Sequence[str]) -> TextTable:
    """A line per activation; the tested stage with its sd and the difference, which compares."""
    present = [name for name in HEADINGS if (stats["quantity"] == name).any()]
    gaps = gap_entries(here, here.primary)
    lines = []
    for found in by_activation(stats, keys):
        rows = [found[quantity] for quantity in present]
        most = max(int(row["n"]) for row in rows)
        entries = []
        for row in rows:
            is_tested = row["quantity"] == here.primary
            entries.append(_entry(row, most, with_sd=is_tested))
            entries += [gaps.get(row["key"], DASH)] if is_tested else []
        mark = DIVERGED_MARK if rows[0]["n_diverged"] else ""
        lines.append((f"{rows[0]['label']}{mark}", str(most), *entries))
    headings = [
        heading
        for name in present
        for heading in (
            [f"{HEADINGS[name]} (sd)", _GAP] if name == here.primary else [HEADINGS[name]]
        )
    ]
    windows = "" if script_windows(here.cells, ()) is not None else _scoring(stats)
    title = f"{here.cells['setting'].iloc[0]}{windows}"
    return TextTable(title, ("activation", "n", *headings), tuple(lines))


def _scoring(stats: pd.DataFrame) -> str:
    windows = stats.dropna(subset=["window"])
    if windows.empty:
        return ""
    window, stride = windows["window"].max(), windows["stride"].min()
    return f"; windows of {window} tokens, sliding stride {stride}"


def _entry(row: Mapping[str, Any], most: int, *, with_sd: bool) -> str:
    """The mean, of a delta with its interval, and n where it is less than the n of the line."""
    if row["quantity"] == "quant_delta":
        text = plus_minus(row["mean"], row["half_width"], signed=True)
    else:
        text = number(row["mean"], decimals=1 if row["quantity"] == "artifact_kB" else 4)
    text += f" ({number(row['sd'])})" if with_sd and not pd.isna(row["sd"]) else ""
    return text if row["n"] in (0, most) else f"{text} (n={row['n']})"


def _without_score(frame: pd.DataFrame, sweep: Sweep) -> list[str]:
    """Which cells carry no score and why; nothing if every cell of the sweep has one."""
    absent = frame[["cell", "label", "state", "reason", "taint_reason"]][~is_scored(frame)]
    sentences = completeness_sentences(frame, sweep)
    for row in records(absent.sort_values("cell")):
        why = reason_words(row)
        sentences.append(f"{row['cell']}: {state_word(row)}{f', {why}' if why else ''}.")
    diverged = sorted(set(absent.loc[absent["state"] == "diverged", "label"]))
    if diverged:
        sentences.append(
            f"{DIVERGED_MARK} {listed(diverged)}: a seed diverged, so the mean is over its"
            " survivors and is not ranked."
        )
    return sentences
