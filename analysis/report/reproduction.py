"""Section 5 of the report: what ran (code, machines, data), and the commands that repeat it."""

import pandas as pd

from analysis.number_format import DASH, counted
from analysis.report.document import Code, Row, Section, Table, Text
from analysis.rows.read import Sweep
from analysis.study import Study

_KINDS = (  # what is told, and the columns that tell it
    ("recipe", "recipe"),
    ("hash of the recipe", "recipe_hash"),
    ("revision", "revision"),
    ("hash of the trainer's code", "trainer_hash"),
    ("Python", "python"),
    ("torch", "torch"),
    ("Ray", "ray"),
    ("processor or GPU", "device_name"),
    ("number format", "dtype"),
    ("ranks in a cell", "world_size"),
    ("attention", "attention_backend"),
    ("MLP", "mlp_backend"),
    ("GPU driver", "gpu_driver"),
    ("nodes", "node"),
    ("hash of the corpus", "corpus_sha256"),
    ("hash of the tokenizer", "tokenizer_sha256"),
)


def reproduction(study: Study) -> Section:
    """The section, over all settings."""
    cells, sweep = study.cells, study.sweep
    rows = [Row((title, _values(cells, column))) for title, column in _KINDS]
    rows += [Row(("seeds", _values(cells, "seed"))), Row(("ran", _span(cells)))]
    table = Table(
        caption="What ran. A value with a number behind it is that of so many cells.",
        headings=("what", "value"),
        rows=tuple(row for row in rows if row.entries[1] != DASH),
        words=2,
    )
    blocks = (Text(_opening(cells, sweep), "lead"), Code(_commands(cells, sweep)), table)
    return Section(anchor="repeat", title="How to repeat it", blocks=blocks)


def revision_words(cells: pd.DataFrame) -> str:
    """The revisions that the rows come from, short, and whether a checkout had changes."""
    rows = cells[cells["revision"].notna()]
    if rows.empty:
        return "no revision recorded"
    short = sorted({str(revision)[:12] for revision in rows["revision"]})
    dirty = bool(rows["dirty"].fillna(False).any())
    return f"{', '.join(short)}{' with uncommitted changes' if dirty else ''}"


def _opening(cells: pd.DataFrame, sweep: Sweep) -> str:
    dirty = int(cells["dirty"].fillna(False).sum())
    change = (
        f" {counted(dirty, 'cell')} ran from a checkout with uncommitted changes, so the revision"
        " alone does not tell the code; the hash of the trainer's code does."
        if dirty
        else ""
    )
    size = "" if sweep.num_cells is None else f", a grid of {counted(sweep.num_cells, 'cell')}"
    return f"Sweep {sweep.name}{size}; revision {revision_words(cells)}.{change}"


def _commands(cells: pd.DataFrame, sweep: Sweep) -> str:
    revisions = sorted(set(cells["revision"].dropna().astype(str)))
    recipes = sorted(set(cells["recipe"].astype(str)))
    return "\n".join(
        [
            *(f"git checkout {revision}" for revision in revisions[-1:]),
            "make setup",
            *(f"make data RECIPE={recipe}" for recipe in recipes),
            f"make sweep SWEEP={sweep.name}",
            f"make report SWEEP={sweep.name}",
        ]
    )


def _values(cells: pd.DataFrame, column: str) -> str:
    """Every value, with its count where there are several."""
    counts = cells[column].dropna().value_counts().sort_index()
    if counts.empty:
        return DASH
    if len(counts) == 1:
        return str(counts.index[0])
    return ", ".join(f"{value} ({count})" for value, count in counts.items())


def _span(cells: pd.DataFrame) -> str:
    """First start and last end of the attempts that count."""
    start, end = cells["started_at"].min(), cells["ended_at"].max()
    if pd.isna(start) or pd.isna(end):
        return DASH
    return f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC"
