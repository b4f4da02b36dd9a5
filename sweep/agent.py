"""On the node: start the rank processes of one attempt, watch them, and bring back what they leave.

Knows nothing of Ray. The ranks are direct children that the kernel kills when this process dies
(sweep/tether.py), each in a session of its own, so that no signal of a terminal reaches them.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sweep import tether
from sweep.environment import rank_environment
from sweep.lease import Delivery, Order, Supply
from trainer.contract import (
    ARTIFACT_FILE,
    CURVE_FILE,
    EXIT_BAD_INPUT,
    EXIT_OUT_OF_MEMORY,
    PROGRESS_FILE,
    REPORT_FILE,
    SPEC_FILE,
)

POLL_S = 0.05
OOM_COUNTERS = (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat"))
LOG_TAIL_BYTES = 256 * 1024
PROJECT = Path(__file__).resolve().parents[1]
TRAINER = (sys.executable, "-m", "trainer", "--spec", SPEC_FILE, "--out", ".")


class Agent:
    """One lease's hands. ``run`` is called by one thread; the other methods by any."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._folder: Path | None = None
        self._data: dict[str, str] = {}

    def node(self) -> str:
        return socket.gethostname()

    def stop(self) -> None:
        """End the running attempt; it is delivered as interrupted."""
        self._stop.set()

    def progress(self) -> Mapping[str, Any] | None:
        """What the trainer last said of itself."""
        folder = self._folder
        if folder is None:
            return None
        try:
            value: Mapping[str, Any] = json.loads((folder / PROGRESS_FILE).read_bytes())
        except (OSError, ValueError):
            return None
        return value

    def prepare(self, supplies: Sequence[Supply]) -> str | None:
        """Make sure of the data, before any attempt; why it cannot be had here, None if it can."""
        for supply in supplies:
            done = subprocess.run(
                _stage_command(supply),
                env=rank_environment(PROJECT, 1),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                lines = done.stderr.strip().splitlines()
                return lines[0] if lines else f"staging ended with status {done.returncode}"
            self._data[supply.data_dir] = done.stdout.strip().splitlines()[-1]
        return None

    def run(self, order: Order) -> Delivery:
        """Make one attempt and wait for its end; a rank that says nothing is not waited for."""
        self._stop.clear()
        with _scratch() as folder:
            self._folder = folder
            try:
                (folder / SPEC_FILE).write_text(self._with_data_here(order), encoding="utf-8")
                ranks = _start(folder, order)
                try:
                    state, reason = self._watch(ranks, folder, order)
                finally:
                    _kill(ranks)
                return _collect(folder, order, state, reason)
            finally:
                self._folder = None

    def _with_data_here(self, order: Order) -> str:
        """The specification with the folder that this node reads; it is no part of the question."""
        if not self._data:
            return order.spec_json
        spec = json.loads(order.spec_json)
        return json.dumps(spec | {"data_dir": self._data.get(spec["data_dir"], spec["data_dir"])})

    def _watch(
        self, ranks: Sequence["subprocess.Popen[bytes]"], folder: Path, order: Order
    ) -> tuple[str, str | None]:
        """(state, reason) once every rank has ended well, or one thing has gone wrong."""
        out_of_memory = _oom_kills()
        last_sign, alive_s = None, time.monotonic()
        while True:
            codes = [rank.poll() for rank in ranks]
            bad = next(((i, code) for i, code in enumerate(codes) if code), None)
            if bad is not None:
                return _explain_exit(*bad, killed_by_kernel=_oom_kills() > out_of_memory)
            if all(code == 0 for code in codes):
                return "succeeded", None
            if self._stop.is_set():
                return "interrupted", "stopped by the user before it ended"
            sign = _modified_at(folder / PROGRESS_FILE)
            if sign != last_sign:
                last_sign, alive_s = sign, time.monotonic()
            if time.monotonic() - alive_s > order.no_progress_s:
                phase = (self.progress() or {}).get("phase", "start")
                return "hung", f"no progress for {order.no_progress_s:g} s in phase {phase}; killed"
            time.sleep(POLL_S)


def _stage_command(supply: Supply) -> list[str]:
    command = [sys.executable, "-m", "trainer.data", "stage", "--data", supply.data_dir]
    command += ["--dataset", supply.dataset, "--vocab-size", str(supply.vocab_size)]
    command += ["--corpus", supply.corpus_sha256, "--tokenizer", supply.tokenizer_sha256]
    command += ["--missing", supply.missing]
    options = {"--train-shards": supply.train_shards, "--cache": supply.cache}
    given = ((flag, str(value)) for flag, value in options.items() if value is not None)
    return [*command, *(part for pair in given for part in pair)]


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="activation-sweep-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path, order: Order) -> list["subprocess.Popen[bytes]"]:
    tethered = [sys.executable, "-S", tether.__file__, str(os.getpid()), *TRAINER]
    shared = rank_environment(PROJECT, order.threads)
    if order.ranks > 1:
        shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(order.ranks):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(order.ranks)}
            with (folder / f"rank{rank}.log").open("wb") as log:
                processes.append(
                    subprocess.Popen(
                        tethered,
                        cwd=folder,
                        env=shared | own,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
                )
    except BaseException:
        _kill(processes)
        raise
    return processes


def _kill(ranks: Sequence["subprocess.Popen[bytes]"]) -> None:
    for rank in ranks:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(rank.pid, signal.SIGKILL)
    for rank in ranks:
        rank.wait()


def _collect(folder: Path, order: Order, state: str, reason: str | None) -> Delivery:
    report = _read(folder / REPORT_FILE)
    if state == "succeeded" and report is None:
        state, reason = "failed", f"the trainer ended with status 0 and left no {REPORT_FILE}"
    logs = [_tail(folder / f"rank{rank}.log") for rank in range(order.ranks)]
    if order.ranks > 1:
        logs = [f"--- rank {rank} ---\n{text}" for rank, text in enumerate(logs)]
    return Delivery(
        state=state,
        reason=_with_last_line(reason, logs[0]) if state == "failed" else reason,
        node=socket.gethostname(),
        report=report.decode(errors="replace") if report is not None else None,
        curve=_read(folder / CURVE_FILE),
        artifact=_read(folder / ARTIFACT_FILE),
        log="\n".join(logs),
    )


def _explain_exit(rank: int, code: int, *, killed_by_kernel: bool) -> tuple[str, str]:
    if code == EXIT_OUT_OF_MEMORY:
        return "oom", f"rank {rank} ran out of memory"
    if code == EXIT_BAD_INPUT:
        return "failed", f"rank {rank} refused its input"
    if code >= 0:
        return "failed", f"rank {rank} ended with status {code}"
    name = signal.Signals(-code).name
    if -code == signal.SIGKILL and killed_by_kernel:
        return "oom", f"rank {rank} was killed by the kernel, which was out of memory"
    return "failed", f"rank {rank} was killed by {name}"


def _with_last_line(reason: str | None, log: str) -> str | None:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return f"{reason}: {lines[-1][:300]}" if reason is not None and lines else reason


def _oom_kills() -> int:
    """Processes that the kernel has killed for memory: in this container, else on this machine.

    0 where neither is told, which then cannot be told apart from any other SIGKILL.
    """
    for counters in OOM_COUNTERS:
        with contextlib.suppress(OSError):
            for line in counters.read_text(encoding="ascii").splitlines():
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count)
    return 0


def _modified_at(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _tail(path: Path) -> str:
    data = path.read_bytes()
    cut = data[-LOG_TAIL_BYTES:].decode(errors="replace")
    skipped = len(data) - LOG_TAIL_BYTES
    return f"[the first {skipped} bytes are left out]\n{cut}" if skipped > 0 else cut


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
