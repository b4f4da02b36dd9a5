"""Is a sweep's folder what it would be had nothing gone wrong?

Said of a store on a disk: who started what is read from file names, not from the code under test.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from sweep.spec.grid import Cell, DataFound, expand
from sweep.spec.sweep_file import SweepSpec, load_sweep
from tests.support.tiny import DATASET, answer, read_curve, run_cell
from trainer.config import load_recipe
from trainer.contract import ARTIFACT_FILE, LAYERS_FILE, RunSpec, spec_hash
from trainer.data.manifest import read_manifest
from trainer.distributed.world import open_world

Question = str


@dataclass(frozen=True, slots=True)
class Answer:
    """All of one run that must not depend on the machine or the moment."""

    columns: Mapping[str, Any]
    train_loss: Sequence[float]
    artifact: bytes
    layers: bytes


def cells_of_file(file: Path, data: Path) -> list[Cell]:
    """The grid of a sweep file over the tiny dataset in ``data``."""
    sweep: SweepSpec = load_sweep(str(file))
    folder = data / DATASET
    manifest = read_manifest(folder)
    found = DataFound(
        folder=str(folder),
        corpus_sha256=manifest.corpus_sha256,
        tokenizer_sha256=manifest.tokenizer_sha256,
    )
    return expand(sweep, lambda overrides: load_recipe(sweep.recipe, overrides), lambda _: found)


def question(spec: RunSpec) -> Question:
    """What replicates have in common."""
    return spec_hash(spec.model_copy(update={"replicate": 0}))


def undisturbed(cells: Sequence[Cell], folder: Path) -> dict[Question, Answer]:
    """Every question of ``cells`` answered once, here, with the ranks' single thread."""
    result: dict[Question, Answer] = {}
    for spec in (cell.spec for cell in cells):
        if question(spec) in result:
            continue
        out = folder / question(spec)
        with open_world("cpu", spec.threads):
            report = run_cell(spec, out)
        assert report.state == "succeeded"
        files = [(out / name).read_bytes() for name in (ARTIFACT_FILE, LAYERS_FILE)]
        result[question(spec)] = Answer(answer(report), read_curve(out)["train_loss"], *files)
    return result


def open_attempts(folder: Path) -> set[str]:
    """Stems of the attempts that were announced and are not closed."""
    return _stems(folder, "start") - closed_attempts(folder)


def closed_attempts(folder: Path) -> set[str]:
    """Stems of the attempts that have a row."""
    return _stems(folder, "parquet")


def started_cells(folder: Path) -> set[str]:
    """Ids of the cells that were attempted."""
    return {stem.rpartition("-")[0] for stem in _stems(folder, "start")}


def attempt_row(folder: Path, stem: str) -> dict[str, Any]:
    (row,) = pq.read_table(folder / "attempts" / f"{stem}.parquet", partitioning=None).to_pylist()
    return dict(row)


def assert_settled(
    folder: Path, cells: Sequence[Cell], expected: Mapping[Question, Answer]
) -> list[dict[str, Any]]:
    """Every cell has one row with the undisturbed answer, and every start is closed.

    Returns all attempts. Successes that came too late are held to the same answer.
    """
    stems = closed_attempts(folder)
    assert stems == _stems(folder, "start"), "an announcement without a row, or a row without one"
    attempts = [attempt_row(folder, stem) | {"stem": stem} for stem in sorted(stems)]
    numbers = defaultdict(list)
    for row in attempts:
        assert row["stem"] == f"{row['cell_id']}-{row['attempt']}"
        numbers[row["cell_id"]].append(row["attempt"])
    for cell_id, taken in numbers.items():
        assert sorted(taken) == list(range(1, len(taken) + 1)), f"{cell_id}: attempts {taken}"

    settled = pq.read_table(folder / "cells.parquet", partitioning=None).to_pylist()
    by_id = {cell.id: cell for cell in cells}
    assert sorted(row["cell_id"] for row in settled) == sorted(by_id)
    successes = [row for row in attempts if row["state"] == "succeeded"]
    for row in settled:
        assert row["state"] == "succeeded", f"{row['cell']} {row['state']}: {row['reason']}"
        first = min(r["attempt"] for r in successes if r["cell_id"] == row["cell_id"])
        assert row["attempt"] == first
    for row in successes:
        spec = by_id[row["cell_id"]].spec
        asked = (spec.activation.name, spec.seed, spec.replicate)
        assert (row["activation"], row["seed"], row["replicate"]) == asked
        _assert_answer(folder, row, expected[question(spec)])
    for path in folder.rglob("[!.]*.parquet"):
        pq.read_table(path, partitioning=None)
    return attempts


def _assert_answer(folder: Path, row: Mapping[str, Any], expected: Answer) -> None:
    wanted = {k: v for k, v in expected.columns.items() if k in row and k != "reason"}
    assert {k: row[k] for k in wanted} == wanted, f"attempt {row['stem']}"
    curve = pq.read_table(folder / "curves" / f"{row['stem']}.parquet", partitioning=None)
    assert curve.column("train_loss").to_pylist() == list(expected.train_loss), row["stem"]
    artifact = (folder / "artifacts" / f"{row['stem']}.bin").read_bytes()
    assert artifact == expected.artifact, row["stem"]
    layers = (folder / "layers" / f"{row['stem']}.parquet").read_bytes()
    assert layers == expected.layers, row["stem"]


def _stems(folder: Path, suffix: str) -> set[str]:
    return {path.stem for path in (folder / "attempts").glob(f"[!.]*.{suffix}")}
