"""Cells in processes of their own that are killed or stopped at a moment that a test chooses.

The processes are forks of one server that has imported everything, so that a death costs no more
than a cell.
"""

import os
import pkgutil
import secrets
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.forked import forked_from
from trainer.cell import run
from trainer.contract import EXIT_STOPPED, RunSpec
from trainer.distributed.world import open_world
from trainer.fork_server.server import import_everything
from trainer.training.checkpoint import CheckpointSettings, Stopped

import_everything()
PROCESSES = forked_from(__name__)


@dataclass(frozen=True)
class Death:
    """Rank ``rank`` is sent ``number`` as it calls ``function`` for the ``nth`` time.

    ``torn``: half of the file that it was about to flush is lost.
    """

    function: str
    nth: int
    rank: int = 0
    torn: bool = False
    number: signal.Signals = signal.SIGKILL

    def install(self) -> None:
        place, _, name = self.function.rpartition(".")
        module = pkgutil.resolve_name(place)
        function = getattr(module, name)
        calls: list[None] = []

        def deadly(*arguments: Any, **options: Any) -> Any:
            calls.append(None)
            if len(calls) == self.nth:
                if self.torn:
                    os.ftruncate(arguments[0], os.fstat(arguments[0]).st_size // 2)
                os.kill(os.getpid(), self.number)
            return function(*arguments, **options)

        setattr(module, name, deadly)


def statuses(
    spec: RunSpec,
    out: Path,
    checkpoint: CheckpointSettings | None,
    *,
    num_ranks: int = 1,
    death: Death | None = None,
) -> list[int | None]:
    """``spec`` in ``num_ranks`` processes; how each ended, −9 if it was killed."""
    return ended(group(spec, out, checkpoint, num_ranks=num_ranks, death=death))


def group(
    spec: RunSpec,
    out: Path,
    checkpoint: CheckpointSettings | None,
    *,
    num_ranks: int = 1,
    death: Death | None = None,
) -> list[Any]:
    """The processes, not started yet, of one attempt; they meet in a file of their own."""
    out.mkdir(parents=True, exist_ok=True)
    place = {
        "RENDEZVOUS_FILE": str(out / f"ranks {secrets.token_hex(4)}"),
        "WORLD_SIZE": str(num_ranks),
    }
    processes = []
    for rank in range(num_ranks):
        own = place | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        fatal = death if death is not None and death.rank == rank else None
        processes.append(PROCESSES.Process(target=_cell, args=(spec, out, checkpoint, own, fatal)))
    return processes


def ended(processes: Sequence[Any]) -> list[int | None]:
    """Start them, wait for all, and leave none behind."""
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join()  # the suite's own limit ends what hangs
        return [process.exitcode for process in processes]
    finally:
        for process in processes:
            if process.pid is not None:
                process.kill()
                process.join()


def _cell(
    spec: RunSpec,
    out: Path,
    checkpoint: CheckpointSettings | None,
    place: Mapping[str, str],
    death: Death | None,
) -> None:
    os.environ.update(place)
    if death is not None:
        death.install()
    with open_world(spec.device, spec.threads) as world:
        try:
            run(spec, out, world, checkpoint)
        except Stopped:
            sys.exit(EXIT_STOPPED)
