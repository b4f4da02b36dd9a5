"""Launch the ranks of an attempt, forked or started, dump their stacks, and read how they ended."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from signal import SIGCONT, SIGUSR1

from sweep.environment import rank_environment
from sweep.messages import Order
from sweep.node.failures import RankEnd
from sweep.node.scratch import AGENT_LOG, rank_log, scratch_root, tail
from sweep.processes.fork_server_client import ForkServerManager, NotForked, ServerSpec
from sweep.processes.process_tree import Processes
from sweep.provenance import PROJECT
from trainer.contract import ENDS_FILE, SPEC_FILE
from trainer.fork_server.fork import Request

TRAINER = (sys.executable, "-m", "trainer", "--spec", SPEC_FILE, "--out", ".")
SCRIPT = (sys.executable, "-m", "trainer.script", "--spec", SPEC_FILE, "--out", ".")
FORK_SERVER: tuple[str, ...] | None = (sys.executable, "-m", "trainer.fork_server.server")
RENDEZVOUS_FILE = "rendezvous"
COMPILED = "compiled"
STACKS_MARK = "\n--- stacks when it hung ---\n"
STACKS_S, STACKS_POLL_S = 2.0, 0.05


class RankLauncher:
    """Launches the ranks of one attempt after the other: by forking, where that can be."""

    def __init__(self) -> None:
        self._servers = ForkServerManager()

    def start_server(self, trainer_hash: str, threads: int) -> None:
        """Have a fork server ready by and by; waits for nothing."""
        with contextlib.suppress(OSError):  # of the scratch folders' place: an attempt will tell
            if (spec := _server_spec(trainer_hash, threads)) is not None:
                self._servers.start(spec)

    def launch(
        self,
        ranks: Processes,
        order: Order,
        folder: Path,
        arguments: Sequence[str] = (),
        *,
        stop: threading.Event,
        say: Callable[[str], None],
    ) -> None:
        """The trainer, once a rank, in ``folder``; what it prints goes to a log per rank.

        Where ``stop`` is set nothing is waited for. A script's one process starts the ranks.
        """
        if order.program == "script":
            with (folder / AGENT_LOG).open("ab") as log:
                ranks.start(
                    SCRIPT,
                    cwd=folder,
                    environment=_shared_environment(order.threads),
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            return
        spec = _server_spec(order.trainer_hash, order.threads)
        server = None if spec is None else self._servers.ready(spec, stop, say)
        command = [*TRAINER, *arguments]
        for rank, environment in enumerate(_environments(order, folder)):
            with rank_log(folder, rank).open("ab") as log:  # the agent may write in between
                if server is not None:
                    try:
                        request = Request(
                            command=command,
                            cwd=str(folder),
                            environment=environment,
                            parent=os.getpid(),
                        )
                        server.fork(request, log, ranks.adopt)
                    except NotForked as error:
                        self._servers.failed(error, say)
                        server = None
                if server is None:
                    ranks.start(
                        command,
                        cwd=folder,
                        environment=environment,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                    )
        if server is not None:
            self._servers.succeeded()

    def close(self) -> None:
        """End what was begun; ranks go on."""
        self._servers.close()


def _environments(order: Order, folder: Path) -> list[dict[str, str]]:
    """That of every rank."""
    shared = _shared_environment(order.threads) | {
        "RENDEZVOUS_FILE": str(folder / RENDEZVOUS_FILE),
        "WORLD_SIZE": str(order.ranks),
    }
    return [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(order.ranks)]


def _shared_environment(threads: int) -> dict[str, str]:
    return rank_environment(PROJECT, threads, compiled=scratch_root() / COMPILED)


def _server_spec(trainer_hash: str, threads: int) -> ServerSpec | None:
    """What a server has to be; what programs read when they are imported is the ranks' own."""
    if FORK_SERVER is None:
        return None
    return ServerSpec(
        program=FORK_SERVER, code=trainer_hash, environment=_shared_environment(threads)
    )


def dump_stacks(ranks: Processes, folder: Path) -> None:
    """Have every rank write where it is to its log; give it a moment, and not more.

    The trainer registers faulthandler on SIGUSR1. A rank that was stopped has to be continued
    first, and one that has not come as far as registering dies of the signal, as it is about to.
    """
    logs = [rank_log(folder, rank) for rank, code in enumerate(ranks.codes()) if code is None]
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


def attempt_ends(order: Order, codes: Sequence[int | None], folder: Path) -> list[RankEnd]:
    """What the ranks left. Those of a script are told by the process that started them.

    Where it tells none it has failed itself: it refused the recipe, or what the script printed.
    """
    if order.program == "trainer":
        return rank_ends(codes, folder)
    with contextlib.suppress(OSError, ValueError):
        return rank_ends(json.loads((folder / ENDS_FILE).read_bytes()), folder)
    return [RankEnd(code=code, log=tail(folder / AGENT_LOG)) for code in codes]


def rank_ends(codes: Sequence[int | None], folder: Path) -> list[RankEnd]:
    """What the ranks left, which had ended with ``codes`` before the rest of them was killed."""
    logs = [rank_log(folder, rank) for rank in range(len(codes))]
    return [
        RankEnd(code=code, log=tail(log), wrote_at=log.stat().st_mtime)
        for code, log in zip(codes, logs, strict=True)
    ]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
