"""Section 3 of the report: bytes under the cap, time of a step, steps, and hours of a node."""

import json

import pandas as pd

from analysis.costs.node_speed import node_effects, node_sentences
from analysis.figures.scores import CAP_BYTES
from analysis.number_format import DASH, capital, counted, number, percent, plus_minus
from analysis.report.document import Block, Bullets, Row, Table, Text
from analysis.report.report_data import SettingData, seed_rows
from analysis.rows.read import is_scored, records
from analysis.rows.scoring import title_and_windows
from analysis.stats.per_seed import seed_stats

SECONDS_IN_HOUR = 3600
# What names and order of the same tensors were seen to move, docs/recipes.md; 2.3 % at tiny sizes.
LAYOUT_SHARE = 0.005
_DECIMALS = {
    **{"artifact_kB": 1, "steps": 0, "step_ms_p50": 1, "train_s": 1},
    **{"peak_memory_MB": 0, "node_hours": 3},
}


def costs(setting: SettingData) -> tuple[Block, ...]:
    """The section for one setting."""
    cells = _measured(setting.cells)
    stats = seed_stats(cells, tuple(_DECIMALS))
    if not setting.has_scores:
        return (Text("No cell has an untainted success, so no cost is known."),)
    nodes = node_sentences(node_effects(setting.study))
    return (
        Text(size_sentence(cells), "lead"),
        *([Text(times)] if (times := limits_sentence(cells)) else []),
        _table(stats, setting.study.sweep.keys),
        Text(_hours(cells)),
        Bullets(tuple(nodes)),
        *([_splits(setting)] if len(setting.splits) else []),
    )


def _measured(cells: pd.DataFrame) -> pd.DataFrame:
    hours = (cells["ended_at"] - cells["started_at"]).dt.total_seconds() / SECONDS_IN_HOUR
    return cells.assign(
        artifact_kB=cells["artifact_bytes"] / 1000,
        peak_memory_MB=cells["peak_memory_bytes"] / 1e6,
        node_hours=hours.astype(float),
    )


def size_sentence(cells: pd.DataFrame) -> str:
    """Whether artifacts fit the cap, and whether the layout of a file could change the answer."""
    scored = cells[is_scored(cells)]
    sizes = scored["artifact_bytes"].dropna().astype(int)
    if sizes.empty:
        return "No artifact was measured."
    over, largest = int((sizes > CAP_BYTES).sum()), int(sizes.max())
    room = CAP_BYTES - largest
    sentence = (
        f"{'Every' if not over else f'{over} of {len(sizes)}'} artifact"
        f"{' fits' if not over else 's are above'} the cap of {CAP_BYTES:,} bytes. The largest has"
        f" {largest:,} bytes, {abs(room):,} {'below' if room >= 0 else 'above'} it"
        f" (n = {counted(len(sizes), 'artifact')}; weights and the size charged for code)."
        f"{_container(scored)}"
    )
    if abs(room) >= LAYOUT_SHARE * CAP_BYTES:
        return sentence
    return (
        f"{sentence} Names and order of the same tensors can move a size by"
        f" {percent(LAYOUT_SHARE)}, which is more than that: another container may end on the other"
        " side of the cap."
    )


def _container(scored: pd.DataFrame) -> str:
    ours = scored.loc[scored["script_sha256"].isna(), "config_json"].dropna()
    told = [json.loads(text)["recipe"]["quantization"] for text in ours]
    found = {f"{each['container']} at {each['compressor']} {each['preset']}" for each in told}
    return f" Written as {' and '.join(sorted(found))}." if found else ""


def limits_sentence(cells: pd.DataFrame) -> str:
    """How many cells kept the time limits of their recipe; empty where no row tells."""
    sentences = []
    for what, column in (("Training", "fits_train_cap"), ("Evaluation", "fits_eval_cap")):
        kept = cells.loc[is_scored(cells), column].dropna().astype(bool)
        if len(kept):
            among = f"every one of {len(kept)}" if kept.all() else f"{kept.sum()} of {len(kept)}"
            sentences.append(f"{what} kept the recipe's limit in {among} cells.")
    return " ".join(sentences)


def _table(stats: pd.DataFrame, keys: tuple[str, ...]) -> Table:
    known = stats[stats["n"] > 0]
    # What is alike in all seeds, and the one sum, have no interval.
    none = (known["half_width"] == 0) | (known["quantity"] == "node_hours")
    known = known.assign(half_width=known["half_width"].mask(none))
    return Table(
        caption="Cost of one cell: mean ± half width of the 95 % t interval over n seeds.",
        headings=(
            *("activation", "n", "artifact kB", "steps", "median step ms", "training s"),
            *("peak memory MB", "node-hours"),
        ),
        rows=seed_rows(known, keys, _DECIMALS, marked=False),
        note="1 kB = 1,000 bytes. Node-hours: from the start of the attempt to its end, set-up and"
        " scoring included.",
    )


def _splits(setting: SettingData) -> Table:
    """A difference at equal time, as what is made per step and what by taking more of them."""
    cells, splits = setting.cells, setting.splits
    first, parts = splits.iloc[0], ("total", "per_step", "from_steps")
    rows = []
    for row in records(splits.sort_values("total")):
        halves = [plus_minus(row[p], row[f"{p}_half_width"], signed=True) for p in parts]
        method = DASH if pd.isna(row["method"]) else str(row["method"])
        entries = (
            row["label"],
            method,
            *halves,
            number(row["steps_ratio"], decimals=3),
            str(row["n"]),
        )
        rows.append(Row(entries))
    methods = splits["method"].fillna("not told apart") + ": " + splits["detail"]
    tainted = int(splits["n_tainted"].max())
    left_out = f" {counted(tainted, 'tainted cell')} left out." if tainted else ""
    level = (
        f"no interval: {first['unjudged']}"
        if isinstance(first["unjudged"], str)
        else f"simultaneous {percent(first['level'])} over"
        f" {counted(first['comparisons'], 'comparison')}"
    )
    return Table(
        caption="Difference from the reference at equal time, in bits per byte: what is made per"
        " step, and what by taking more steps. Below zero is better.",
        headings=("activation", "method", "total", "per step", "from steps", "steps ratio", "n"),
        rows=tuple(rows),
        words=2,
        note=f"{capital(title_and_windows(cells, first['quantity']))}; {level};"
        f" n counts paired seeds. {capital('; '.join(sorted(set(methods))))}.{left_out}",
    )


def _hours(cells: pd.DataFrame) -> str:
    known = cells["node_hours"].dropna()
    if known.empty:
        return "How long the attempts took is not recorded."
    others = int((cells["num_attempts"].fillna(1) - 1).clip(lower=0).sum())
    more = f" {counted(others, 'further attempt')} at these cells not counted." if others else ""
    return (
        f"Together {known.sum():.3g} node-hours in {counted(len(known), 'attempt')}, one per"
        f" cell.{more}"
    )
