"""Load the rows of a sweep, its description, and say which rows carry a score.

Reads the derived files of a sweep, ``cells.parquet``, ``replicates.parquet`` and ``sweep.json``,
from a folder or a bucket. The frame has every column of ``sweep.store.schema`` and the readable
ones of ``analysis.rows.names``. What no sweep can have written is refused here, once for every
command (``analysis.rows.parquet_table``, ``analysis.rows.checks``).
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from analysis.rows.checks import check_cells
from analysis.rows.names import natural_order, with_names
from analysis.rows.parquet_table import read_rows, to_frame
from analysis.rows.stages import PRIMARY, tested_stage
from analysis.rows.sweep_description import read_description
from sweep.schedule.stopping import Standing, standing_told
from sweep.spec.sweep_file import RECORD_RULE, RecordRule
from sweep.store.files import Files, open_files
from sweep.store.schema import SCHEMA
from sweep.store.store import SWEEP_FILE, Store
from trainer.config.config_errors import ConfigError, did_you_mean

CELLS_FILE = "cells.parquet"
REPLICATES_FILE = "replicates.parquet"
FALLBACK_REFERENCES = ("leaky_relu2-s0.5", "relu2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What a reader of the rows needs to know of the sweep: its order, its reference, its size."""

    name: str
    reference: str
    keys: tuple[str, ...]  # of the activations, in grid order
    num_cells: int | None  # None where sweep.json is absent
    screened_in: str | None = None  # the sweep that it is a second stage of
    pairing: Literal["seed", "node"] = "seed"  # what a block was: a seed, or a seed on a node
    primary: str = PRIMARY  # the one stage that is tested
    record_rule: RecordRule = RECORD_RULE
    # One named row per cell that is asked for; None where sweep.json does not tell.
    grid: pd.DataFrame | None = field(default=None, compare=False, repr=False)
    # Where a sweep stands that stops when it knows; what nobody needs is not asked for.
    standing: Standing | None = field(default=None, repr=False)


def sweep_place(results: str | Path, sweep: str) -> str:
    """Where a sweep leaves its results, by the sweep's name or by the path of its file.

    >>> sweep_place("s3://bucket/results", "configs/sweeps/slopes.toml")
    's3://bucket/results/slopes'

    ConfigError where no name is left.
    """
    name = Path(sweep).stem if sweep.endswith(".toml") else Path(sweep).name
    if not name:
        raise ConfigError(f"--sweep {sweep!r}: give the name of a sweep, or the path of its file.")
    return f"{str(results).rstrip('/')}/{name}"


def parts_of(place: str) -> tuple[str, str]:
    """The results that ``place`` is in, and the name of its sweep."""
    results, _, name = place.rstrip("/").rpartition("/")
    return results or ".", name


def load_cells(place: str | Path) -> pd.DataFrame:
    """One row per cell of the sweep in ``place``, in order of execution."""
    files = open_files(place)
    path = files.where(CELLS_FILE)
    try:
        data = files.read(CELLS_FILE)
    except FileNotFoundError:
        raise ConfigError(_no_store(files)) from None
    frame = read_rows(data, path)
    if frame.empty:
        raise ConfigError(f"{path} holds no cell yet; `make sweep` runs them.")
    named = with_names(frame)
    check_cells(named, path)
    return named


def load_replicates(place: str | Path) -> pd.DataFrame:
    """Successes that repeat a cell's row and are not it, in the columns of ``load_cells``.

    Companions, late successes, and tainted successes that ran again: ``is_scored`` tells the latter
    apart. No rows where the sweep has none, or where an older driver wrote no such file.
    """
    files = open_files(place)
    try:
        frame = read_rows(files.read(REPLICATES_FILE), files.where(REPLICATES_FILE))
    except FileNotFoundError:
        frame = to_frame(SCHEMA.empty_table())
    return with_names(frame)


def load_sweep(place: str | Path, frame: pd.DataFrame) -> Sweep:
    """What ``sweep.json`` says; where it is absent, what the rows of ``frame`` let one infer."""
    files = open_files(place)
    told = read_description(files)
    keys = (*told.activations, *(k for k in natural_order(frame) if k not in told.activations))
    fallback = next((key for key in FALLBACK_REFERENCES if key in keys), keys[0])
    reference = told.reference or fallback
    if reference not in keys:
        raise ConfigError(
            f"{files.where(SWEEP_FILE)}: reference {reference!r} is no activation of this sweep."
            f"{did_you_mean(reference, list(keys))} Known: {', '.join(keys)}."
        )
    grid, num_cells, standing = told.grid(), told.num_cells, None
    if told.until is not None and grid is not None:
        standing = standing_told(told.until, Store(place).read().history())
        wanted = standing.next_ids | standing.later_ids | set(frame["cell_id"])
        grid = grid[grid["cell_id"].isin(wanted)].reset_index(drop=True)
        num_cells = len(grid)
    return Sweep(
        name=told.name or parts_of(files.place)[1],
        reference=reference,
        keys=keys,
        num_cells=num_cells,
        screened_in=told.screened_in,
        pairing=told.pairing,
        record_rule=told.record_rule,
        primary=tested_stage(frame),
        grid=grid,
        standing=standing,
    )


def is_scored(frame: pd.DataFrame) -> "pd.Series[bool]":
    """Which rows carry scores to be averaged: succeeded, and in undisturbed time."""
    tainted = frame["tainted"].astype("boolean").to_numpy(dtype=bool, na_value=False)
    return (frame["state"] == "succeeded") & ~tainted


def including_tainted(frame: pd.DataFrame) -> pd.DataFrame:
    """``frame`` in which tainted successes count; ``was_tainted`` keeps which they are.

    What the results are then is found by the same functions: taint is an input.
    """
    was = frame["tainted"].astype("boolean").fillna(False).astype(bool)
    return frame.assign(
        was_tainted=was,
        tainted=frame["tainted"].astype("boolean").mask(frame["state"] == "succeeded", False),
    )


def succeeded(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that carry scores; a ConfigError if there is none."""
    scored = frame[is_scored(frame)]
    if scored.empty:
        raise ConfigError(
            f"None of the {len(frame)} cells has an untainted success ({count_states(frame)});"
            " `make status` says why."
        )
    return scored


def count_states(frame: pd.DataFrame) -> str:
    """How many cells ended how: ``30 succeeded, 2 diverged``; a tainted success is ``tainted``."""
    tainted = (frame["state"] == "succeeded") & ~is_scored(frame)
    ended = frame["state"].mask(tainted, "tainted").value_counts()
    return ", ".join(f"{count} {state}" for state, count in ended.items())


def settings(frame: pd.DataFrame) -> list[str]:
    """The settings in ``frame``, small budgets first."""
    columns = ["recipe", "budget_kind", "budget_value", "setting"]
    ordered = frame[columns].drop_duplicates().sort_values(columns)
    return [str(setting) for setting in ordered["setting"]]


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of ``frame`` as dictionaries."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _no_store(files: Files) -> str:
    results, name = parts_of(files.place)
    others = open_files(results)
    known = [other for other in others.folders() if others.exists(f"{other}/{CELLS_FILE}")]
    return (
        f"{files.where(CELLS_FILE)}: there is no such file, so sweep {name!r} has left no row"
        f" here; `make sweep` makes it.{did_you_mean(name, known)}"
        f" Sweeps in {results}: {', '.join(known) or 'none'}."
    )
