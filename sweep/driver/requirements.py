"""The messages from a driver to a node: what it must be (requirements), what to run (order)."""

from collections.abc import Sequence
from pathlib import Path

from sweep.messages import CheckpointPlace, Order, RequiredDataset, Requirements
from sweep.provenance import Code
from sweep.spec.grid import Cell
from sweep.spec.sweep_file import DataPlace, SweepSpec
from sweep.store.store import Attempt
from trainer.budget import parse_budget
from trainer.config.config_errors import ConfigError
from trainer.contract import RunSpec, ScriptSpec
from trainer.data.manifest import read_manifest


def requirements_for(sweep: SweepSpec, cells: Sequence[Cell], code: Code) -> Requirements:
    """What a node must be for ``cells``."""
    threads = {cell.spec.threads for cell in cells if isinstance(cell.spec, RunSpec)}
    return Requirements(
        shape=sweep.node,
        datasets=_datasets(cells, sweep.data),
        trainer_hash=code.trainer_hash,
        lockfile_hash=code.lockfile_hash,
        checkpoint_folder=sweep.checkpoints.folder,
        timed=any(parse_budget(budget).kind == "seconds" for budget in sweep.budgets),
        driver_software=code.software,
        sweep_hash=code.sweep_hash,
        threads=threads.pop() if len(threads) == 1 else None,
    )


def order_for(
    sweep: SweepSpec, cell: Cell, attempt: Attempt, code: Code, results_place: str
) -> Order:
    """One attempt at ``cell``. Only our trainer at fixed steps is given a checkpoint's place."""
    return Order(
        stem=attempt.stem,
        cell_id=cell.id,
        program="script" if isinstance(cell.spec, ScriptSpec) else "trainer",
        spec_json=cell.spec.model_dump_json(),
        ranks=sweep.node.ranks,
        threads=cell.spec.threads,
        no_progress_s=sweep.limits.no_progress_s,
        slow_phase_s=sweep.limits.slow_phase_s,
        trainer_hash=code.trainer_hash,
        checkpoint=_checkpoint(sweep, cell, results_place),
    )


def is_run_from_zero(cell: Cell) -> bool:
    """Whether every attempt starts anew: a script's, and whatever is timed."""
    return isinstance(cell.spec, ScriptSpec) or cell.spec.parsed_budget.kind == "seconds"


def resumes_anywhere(sweep: SweepSpec, cell: Cell) -> bool:
    """An attempt at ``cell`` that is stopped leaves what any node can go on from."""
    return sweep.checkpoints.keep == "results" and not is_run_from_zero(cell)


def _checkpoint(sweep: SweepSpec, cell: Cell, results_place: str) -> CheckpointPlace | None:
    policy = sweep.checkpoints
    if policy.keep == "no" or is_run_from_zero(cell):
        return None
    copy_to = f"{results_place}/checkpoints" if policy.keep == "results" else None
    return CheckpointPlace(folder=policy.folder, every_s=policy.every_s, copy_to=copy_to)


def _datasets(cells: Sequence[Cell], place: DataPlace) -> tuple[RequiredDataset, ...]:
    """The datasets that ``cells`` read, each once."""
    found: dict[str, RequiredDataset] = {}
    for spec in (cell.spec for cell in cells):
        if spec.data_dir not in found:
            found[spec.data_dir] = RequiredDataset(
                data_dir=spec.data_dir,
                dataset=spec.recipe.data.dataset,
                vocab_size=spec.recipe.vocab_size,
                corpus_sha256=spec.corpus_sha256,
                tokenizer_sha256=spec.tokenizer_sha256,
                train_shards=_train_shards(spec.data_dir),
                cache=place.cache,
                missing=place.missing,
            )
    return tuple(found.values())


def _train_shards(data_dir: str) -> int | None:
    """How many the driver's copy has; None if it has none."""
    try:
        return len(read_manifest(Path(data_dir)).train)
    except ConfigError:
        return None
