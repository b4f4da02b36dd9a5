"""Run the project's commands as a user does: other processes, real files, real Ray."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[2]

# What a row says of when, where and how often it was made, and not of the answer.
PHYSICAL = re.compile(
    r"_s$|_ms_|_ms$|_at$|^(foreign|gpu|power|sm_clock|telemetry|temperature|throttled)_"
    r"|^(node|node_id|driver|attempt|num_attempts|generation|why|resumed_from_step"
    r"|tainted|taint_reason|peak_memory_bytes|evidence|log|revision|dirty)$"
)

TINY_SWEEP = """
recipe = "tiny"
seeds = {seeds}
budgets = ["{budget}"]
reference = "relu2"
estimate_cell_s = {estimate_cell_s}
log_every = 1

[[activations]]
name = "relu2"

[[activations]]
name = "leaky_relu2"
slope = {slopes}

[node]
cpus = 1
max_leases = 2

[limits]
no_progress_s = {no_progress_s}
slow_phase_s = {no_progress_s}
grace_s = 60.0

[retries]
infrastructure = {infrastructure}
"""


def write_sweep(
    path: Path,
    *,
    seeds=(1, 2),
    slopes=(0.0, 0.5),
    budget="4steps",
    no_progress_s=60.0,
    infrastructure=8,
    estimate_cell_s=5.0,
):
    """A sweep file of a few cells over the tiny recipe."""
    text = TINY_SWEEP.format(
        seeds=list(seeds),
        slopes=list(slopes),
        budget=budget,
        no_progress_s=no_progress_s,
        infrastructure=infrastructure,
        estimate_cell_s=estimate_cell_s,
    )
    path.write_text(text, encoding="utf-8")
    return path


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without what would point a sweep at a cluster."""
    kept = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "YES", "MAKEFLAGS")}
    return kept | changes


def sweep(verb: str, *arguments: object, timeout: float = 240, **variables: str):
    """``python -m sweep verb …``, finished."""
    command = [sys.executable, "-m", "sweep", verb, *map(str, arguments)]
    return subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
    )


@contextmanager
def running_sweep(*arguments: object) -> Iterator["subprocess.Popen[str]"]:
    """``python -m sweep run …``, going on; nothing of it is left afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sweep", "run", *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            _kill_tree(process)


def poll(condition: Callable[[], object], timeout_s: float, every_s: float = 0.2) -> float | None:
    """Seconds until ``condition`` held; None if it did not.

    Looking takes a fifth of a core at most: who looks at all processes slows what is waited for.
    """
    start_s, asked_s = time.monotonic(), time.thread_time()
    while not condition():
        if time.monotonic() - start_s > timeout_s:
            return None
        time.sleep(max(every_s, 4 * (time.thread_time() - asked_s)))
        asked_s = time.thread_time()
    return time.monotonic() - start_s


def wait_until(condition: Callable[[], object], timeout_s: float = 240.0) -> None:
    """Wait for ``condition``, and fail if it does not come true."""
    assert poll(condition, timeout_s, 0.02) is not None, f"waited {timeout_s} s in vain"


def descendants(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def ranks(pid: int) -> list[psutil.Process]:
    """Trainer processes below ``pid``."""
    found = []
    for process in descendants(pid):
        try:
            if "trainer" in process.cmdline() and "--spec" in process.cmdline():
                found.append(process)
        except psutil.Error:
            continue
    return found


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; a zombie does not."""

    def runs(process: psutil.Process) -> bool:
        try:
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False

    return [process for process in processes if runs(process)]


def _kill_tree(process: "subprocess.Popen[str]") -> None:
    try:
        below = descendants(process.pid)
    except psutil.Error:
        below = []
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    for child in alive(below):
        child.kill()


def rows(folder: Path) -> list[dict[str, object]]:
    """The rows of ``cells.parquet``."""
    table: list[dict[str, object]] = pq.read_table(folder / "cells.parquet").to_pylist()
    return table
