"""Can the ranks of this node speak to one another? They are started once and sum a tensor.

The trainer's side is ``trainer/distributed/all_reduce_check.py``; here its processes are started,
as for a cell, and are all ended at a deadline.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sweep.environment import rank_environment
from sweep.processes import parent_death

PROJECT = Path(__file__).resolve().parents[2]
REACH = (sys.executable, "-m", "trainer.distributed.all_reduce_check")
DEADLINE_S = 180.0  # torch is read from a cold disk by every rank, then NCCL looks at the machine
POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Reach:
    """Whether every rank had the right sum, and what was measured or what went wrong."""

    ok: bool
    detail: str


def all_reduce(
    ranks: int,
    device: str = "cuda",
    *,
    deadline_s: float = DEADLINE_S,
    command: Sequence[str] = REACH,
) -> Reach:
    """Sum a tensor over ``ranks`` processes of this node; every one is gone when this returns."""
    with tempfile.TemporaryDirectory(prefix="activation-sweep-reach-") as name:
        folder = Path(name)
        started: list[subprocess.Popen[bytes]] = []
        try:
            for rank in range(ranks):
                options = ["--rank", str(rank), "--ranks", str(ranks), "--device", device]
                options += ["--rendezvous", str(folder / "rendezvous")]
                started.append(_start([*command, *options], folder / f"rank{rank}.log"))
            failed = _first_failure(started, deadline_s)
        finally:
            _kill(started)
        return _said_by(folder, failed) if failed else _measured(folder / "rank0.log")


def _start(command: Sequence[str], log: Path) -> "subprocess.Popen[bytes]":
    tethered = [sys.executable, "-S", parent_death.__file__, str(os.getpid()), *command]
    with log.open("wb") as stream:
        return subprocess.Popen(
            tethered,
            cwd=log.parent,
            env=rank_environment(PROJECT, 1),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _first_failure(
    started: "Sequence[subprocess.Popen[bytes]]", deadline_s: float
) -> tuple[int, str] | None:
    """(rank, what became of it) of the first rank that did not end well; None if all did."""
    patient_until_s = time.monotonic() + deadline_s
    while True:
        codes = [process.poll() for process in started]
        for rank, code in enumerate(codes):
            if code:
                return rank, f"ended with status {code}"
        if None not in codes:
            return None
        if time.monotonic() > patient_until_s:
            return codes.index(None), f"had no answer after {deadline_s:g} s and was ended"
        time.sleep(POLL_S)


def _kill(started: "Sequence[subprocess.Popen[bytes]]") -> None:
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    for process in started:
        process.wait()


def _said_by(folder: Path, failed: tuple[int, str]) -> Reach:
    rank, fate = failed
    log = (folder / f"rank{rank}.log").read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    said = f": {lines[-1][:300]}" if lines else ""
    return Reach(ok=False, detail=f"rank {rank} {fate}{said}")


def _measured(log: Path) -> Reach:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    found = json.loads(lines[-1])
    named = f"{found['backend']} {found['version'] or ''}".strip()
    return Reach(ok=True, detail=f"{found['ranks']} ranks, {named}, {found['bus_gb_s']:.3g} GB/s")
