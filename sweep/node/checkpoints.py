"""The checkpoint file of a cell of fixed steps on this node, which one attempt at a time may write.

One file per cell on the node, ``<folder>/<cell id>.ckpt``, which the ranks replace as a whole. The
attempt that holds the file's lock uses it, any other runs without. Where a copy is kept beside the
results, a thread brings it there after every change; nothing that happens to it disturbs the run.
"""

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sweep.messages import CheckpointPlace
from sweep.node.checkpoint_sync import CheckpointSync
from sweep.node.scratch import scratch_root
from sweep.processes.process_lock import age_s, lock_path, try_lock

OLD_S = 7 * 24 * 3600.0
Say = Callable[[str], None]

_OURS = re.compile(r"\.?(?P<cell>[0-9a-f]{16})\.ckpt(?:\..+)?")


@dataclass
class Checkpoint:
    """A cell's file, while this attempt holds it; once the cell ``is_settled`` it is removed."""

    path: Path
    every_s: float
    is_settled: bool = False

    @property
    def arguments(self) -> list[str]:
        """What the trainer is told."""
        return ["--checkpoint", str(self.path), "--checkpoint-every-s", f"{self.every_s:g}"]


@contextlib.contextmanager
def lock_checkpoint(
    place: CheckpointPlace | None, cell_id: str, say: Say, stop: threading.Event
) -> Iterator[Checkpoint | None]:
    """The cell's checkpoint; None where none is asked for or another attempt holds it."""
    if place is None:
        yield None
        return
    folder = Path(place.folder) if place.folder is not None else scratch_root() / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    _remove_old(folder, cell_id)
    path = folder / f"{cell_id}.ckpt"
    with try_lock(path) as is_ours:
        if not is_ours:
            say(f"{path} is held by another attempt at this cell here: this one keeps none.")
            yield None
            return
        with _synced(Checkpoint(path, place.every_s), place.copy_to, say, stop) as checkpoint:
            yield checkpoint


@contextlib.contextmanager
def _synced(
    checkpoint: Checkpoint, copy_to: str | None, say: Say, stop: threading.Event
) -> Iterator[Checkpoint]:
    copy = CheckpointSync(checkpoint.path, copy_to, say) if copy_to is not None else None
    if copy is not None:
        if not checkpoint.path.exists():
            copy.fetch(stop)
        copy.start()
    try:
        yield checkpoint
    finally:
        if copy is not None:
            copy.close(remove=checkpoint.is_settled)
        if checkpoint.is_settled:
            _remove(checkpoint.path)


def _remove(path: Path) -> None:
    """The file, what a killed writer left half-written beside it, and the lock, which is held."""
    for file in (path, *path.parent.glob(f".{path.name}.*"), lock_path(path)):
        file.unlink(missing_ok=True)


def _remove_old(folder: Path, cell_id: str) -> None:
    """Remove checkpoints of other cells to which nobody has come back for a week."""
    for file in folder.iterdir():
        match = _OURS.fullmatch(file.name)
        if match is None or match["cell"] == cell_id or age_s(file) < OLD_S:
            continue
        path = folder / f"{match['cell']}.ckpt"
        if path.exists() and age_s(path) < OLD_S:
            continue
        with try_lock(path) as is_left:
            if is_left:
                _remove(path)
