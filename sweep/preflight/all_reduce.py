"""Test whether the ranks of this node reach one another: they are started once and sum a tensor.

The trainer's side is ``trainer/distributed/all_reduce_check.py``; here its processes are started,
as for a cell, and are all ended at a deadline.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from sweep.environment import rank_environment
from sweep.preflight.finding import Finding
from sweep.processes.process_tree import Processes
from sweep.provenance import PROJECT

COMMAND = (sys.executable, "-m", "trainer.distributed.all_reduce_check")
DEADLINE_S = 180.0  # torch is read from a cold disk by every rank, then NCCL looks at the machine
POLL_S = 0.05


def all_reduce(
    ranks: int,
    device: str = "cuda",
    *,
    deadline_s: float = DEADLINE_S,
    command: Sequence[str] = COMMAND,
) -> Finding:
    """Sum a tensor over ``ranks`` processes of this node; every one is gone when this returns."""
    processes = Processes()
    with tempfile.TemporaryDirectory(prefix="activation-sweep-all-reduce-") as name:
        folder = Path(name)
        try:
            for rank in range(ranks):
                options = ["--rank", str(rank), "--ranks", str(ranks), "--device", device]
                options += ["--rendezvous", str(folder / "rendezvous")]
                with _log(folder, rank).open("wb") as log:
                    processes.start(
                        [*command, *options],
                        cwd=folder,
                        environment=rank_environment(PROJECT, 1),
                        stdout=log,
                        stderr=subprocess.STDOUT,
                    )
            failed = _first_failure(processes, deadline_s)
        finally:
            processes.kill()
        return _failure(folder, *failed) if failed else _measurement(_log(folder, 0))


def _first_failure(processes: Processes, deadline_s: float) -> tuple[int, str] | None:
    """(rank, what became of it) of the first rank that did not end well; None if all did."""
    deadline_at_s = time.monotonic() + deadline_s
    while True:
        codes = processes.codes()
        for rank, code in enumerate(codes):
            if code:
                return rank, f"ended with status {code}"
        if None not in codes:
            return None
        if time.monotonic() > deadline_at_s:
            return codes.index(None), f"had no answer after {deadline_s:g} s and was ended"
        processes.wait(POLL_S)


def _failure(folder: Path, rank: int, fate: str) -> Finding:
    log = _log(folder, rank).read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    said = f": {lines[-1][:300]}" if lines else ""
    return Finding("refuse", f"rank {rank} {fate}{said}")


def _measurement(log: Path) -> Finding:
    found = json.loads(log.read_text(encoding="utf-8", errors="replace").splitlines()[-1])
    named = f"{found['backend']} {found['version'] or ''}".strip()
    return Finding("pass", f"{found['ranks']} ranks, {named}, {found['bus_gb_s']:.3g} GB/s")


def _log(folder: Path, rank: int) -> Path:
    return folder / f"rank{rank}.log"
