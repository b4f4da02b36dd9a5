"""How do the ranks of one attempt come to run, and what do they say when they are at their end?"""

import contextlib
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from signal import SIGCONT, SIGUSR1

from sweep.environment import rank_environment
from sweep.failure import RankEnd
from sweep.lease import Order
from sweep.processes import Processes
from sweep.scratch import log_of, tail
from trainer.contract import SPEC_FILE

PROJECT = Path(__file__).resolve().parents[1]
TRAINER = (sys.executable, "-m", "trainer", "--spec", SPEC_FILE, "--out", ".")
RENDEZVOUS_FILE = "rendezvous"
STACKS_MARK = "\n--- stacks when it hung ---\n"
STACKS_S, STACKS_POLL_S = 2.0, 0.05


def start_ranks(
    ranks: Processes, order: Order, folder: Path, arguments: Sequence[str] = ()
) -> None:
    """The trainer, once a rank, in ``folder``; what it prints goes to a log per rank."""
    shared = rank_environment(PROJECT, order.threads) | {
        "RENDEZVOUS_FILE": str(folder / RENDEZVOUS_FILE),
        "WORLD_SIZE": str(order.ranks),
    }
    for rank in range(order.ranks):
        with log_of(folder, rank).open("ab") as log:  # the agent may write in between
            ranks.start(
                [*TRAINER, *arguments],
                cwd=folder,
                environment=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=log,
                stderr=subprocess.STDOUT,
            )


def ask_for_stacks(ranks: Processes, folder: Path) -> None:
    """Have every rank write where it is to its log; give it a moment, and not more.

    The trainer registers faulthandler on SIGUSR1. A rank that was stopped has to be continued
    first, and one that has not come as far as registering dies of the signal, as it is about to.
    """
    logs = [log_of(folder, rank) for rank, code in enumerate(ranks.codes()) if code is None]
    for log in logs:
        with contextlib.suppress(OSError), log.open("ab") as file:
            file.write(STACKS_MARK.encode())
    before = [_size(log) for log in logs]
    ranks.signal(SIGCONT)
    ranks.signal(SIGUSR1)
    deadline_s, seen = time.monotonic() + STACKS_S, before
    while time.monotonic() < deadline_s:
        time.sleep(STACKS_POLL_S)
        last, seen = seen, [_size(log) for log in logs]
        if seen == last and all(now > then for now, then in zip(seen, before, strict=True)):
            return


def rank_ends(codes: Sequence[int | None], folder: Path) -> list[RankEnd]:
    """What the ranks left, which had ended with ``codes`` before the rest of them was killed."""
    logs = [log_of(folder, rank) for rank in range(len(codes))]
    return [
        RankEnd(code=code, log=tail(log), wrote_at=log.stat().st_mtime)
        for code, log in zip(codes, logs, strict=True)
    ]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
