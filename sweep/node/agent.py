"""The agent of a lease on its node: makes attempts, watches their ranks, delivers what they leave.

Knows nothing of Ray. Whatever happens, no process stays behind: the kernel kills the ranks when
this process dies, and this process ends itself when its driver falls silent.
"""

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sweep.messages import Delivery, Order, PrepareResult, Requirements
from sweep.node.checkpoints import lock_checkpoint
from sweep.node.data import NotStaged, stage
from sweep.node.failures import (
    PREEMPTED,
    STOPPED,
    Failure,
    classify,
    hung,
    unable,
    unreported,
)
from sweep.node.liveness import DeadManSwitch, HangWatch
from sweep.node.memory_use import MemoryWatch
from sweep.node.ranks import RankLauncher, attempt_ends, dump_stacks
from sweep.node.scratch import append_agent_log, log_end, read_logs, scratch
from sweep.preflight import refusal, run_checks, warnings
from sweep.processes.process_tree import Processes
from sweep.timing.telemetry import SamplerFactory, sample_telemetry
from trainer.contract import (
    ARTIFACT_FILE,
    CURVE_FILE,
    KEPT_FOLDER,
    LAYERS_FILE,
    PROGRESS_FILE,
    REPORT_FILE,
    SPEC_FILE,
)
from trainer.source import trainer_source

POLL_S = 0.05
SETTLE_S = 0.1  # in which ranks that fail together are seen to have
DYING_S = 2.0
SAVE_S = 8.0  # for a last checkpoint: with its copy, less than a driver waits for a stopped attempt
EXIT_DRIVER_GONE = 70


class Agent:
    """The agent of one lease. ``run`` is called by one thread; the other methods by any.

    Every call is a sign of life of the driver. Without one for ``driver_silence_s`` the
    agent kills its ranks and its process; None: it waits for ever, as a test does.
    """

    def __init__(
        self,
        driver_silence_s: float | None = None,
        sampler_factory: SamplerFactory | None = None,
    ) -> None:
        self._stop = threading.Event()
        self._stopped_as = STOPPED
        self._folder: Path | None = None
        self._ranks = Processes()
        self._launcher = RankLauncher()
        self._data: dict[str, str] = {}
        self._sampler_factory = sampler_factory
        self._silence_s = driver_silence_s
        self._switch = DeadManSwitch(driver_silence_s, self._die) if driver_silence_s else None

    def stop(self, *, preempted: bool = False) -> None:
        """End the running attempt, at a checkpoint if it keeps one; it is delivered as interrupted.

        ``preempted``: since the node is being taken away, not since somebody wants it.
        """
        self._reset_switch()
        if not self._stop.is_set():
            self._stopped_as = PREEMPTED if preempted else STOPPED
            self._stop.set()

    def progress(self) -> Mapping[str, Any] | None:
        """What the trainer last said of itself, and the end of its log."""
        self._reset_switch()
        folder = self._folder
        said = _progress(folder) if folder is not None else None
        return {**said, **log_end(folder)} if folder is not None and said is not None else None

    def prepare(self, requirements: Requirements) -> PrepareResult:
        """Check the node and see to the data, before any attempt."""
        self._reset_switch()
        differs = _code_differs(requirements.trainer_hash)
        if differs is not None:
            return PrepareResult(refusal=differs)
        results = run_checks(requirements)
        result = PrepareResult(refusal=refusal(results), warnings=warnings(results))
        if result.refusal is not None:
            return result
        if requirements.threads is not None:
            self._launcher.start_server(requirements.trainer_hash, requirements.threads)
        try:
            for dataset in requirements.datasets:
                self._data[dataset.data_dir] = stage(dataset)
        except NotStaged as error:
            return PrepareResult(refusal=str(error), warnings=result.warnings)
        return result

    def run(self, order: Order) -> Delivery:
        """Make one attempt and wait for its end; a rank that says nothing is not waited for."""
        self._reset_switch()
        self._stop.clear()
        differs = _code_differs(order.trainer_hash)
        if differs is not None:
            return _undone(unable(differs))
        try:
            with scratch(order.stem) as folder:
                self._folder = folder
                return self._attempt(order, folder)
        except OSError as error:  # no room, no more processes, a folder that cannot be written
            return _undone(unable(f"the attempt could not be made on this node: {error}"))
        finally:
            self._folder = None

    def close(self) -> None:
        """End what is kept from one attempt to the next; as the end of this process does."""
        self._launcher.close()

    def _attempt(self, order: Order, folder: Path) -> Delivery:
        say = partial(append_agent_log, folder)
        self._ranks, memory = Processes(), MemoryWatch()
        with lock_checkpoint(order.checkpoint, order.cell_id, say, self._stop) as checkpoint:
            (folder / SPEC_FILE).write_text(self._with_data_here(order), encoding="utf-8")
            try:
                arguments = checkpoint.arguments if checkpoint else ()
                self._launcher.launch(
                    self._ranks, order, folder, arguments, stop=self._stop, say=say
                )
                with sample_telemetry(
                    self._sampler_factory,
                    lambda: set(self._pids(order)),
                    lambda: (_progress(folder) or {}).get("phase"),
                    say,
                ) as telemetry:
                    look = partial(memory.look, partial(self._pids, order))
                    end = _watch(self._ranks, folder, order, self._stop_asked, look)
                    if checkpoint is not None and end.decided in (STOPPED, PREEMPTED):
                        _let_save(self._ranks)
                    self._ranks.kill_now()  # before anything else, whatever it waits for
            finally:
                stuck = self._ranks.kill()
            failure = _judge(end, order, folder, memory, stuck)
            if checkpoint is not None and failure is None:
                checkpoint.is_settled = True
        return _collect(folder, order, failure, telemetry)

    def _stop_asked(self) -> Failure | None:
        return self._stopped_as if self._stop.is_set() else None

    def _pids(self, order: Order) -> list[int]:
        """The ranks' processes; those of a script are children of its own."""
        return self._ranks.family() if order.program == "script" else self._ranks.pids

    def _with_data_here(self, order: Order) -> str:
        """The specification with the folder that this node reads; it is no part of the question."""
        if not self._data:
            return order.spec_json
        spec = json.loads(order.spec_json)
        return json.dumps(spec | {"data_dir": self._data.get(spec["data_dir"], spec["data_dir"])})

    def _reset_switch(self) -> None:
        if self._switch is not None:
            self._switch.reset()

    def _die(self) -> None:
        """Nobody waits for this any more: leave no process, whatever state the disk is in."""
        self._ranks.kill_now()
        threading.Timer(DYING_S, os._exit, [EXIT_DRIVER_GONE]).start()
        folder = self._folder
        if folder is not None:
            append_agent_log(
                folder, f"no word from the driver for {self._silence_s:g} s: the agent ended itself"
            )
        os._exit(EXIT_DRIVER_GONE)


@dataclass(frozen=True, slots=True)
class _End:
    """How watching ended: what was decided on, or else the statuses of the ranks at that time."""

    codes: Sequence[int | None]
    decided: Failure | None = None


def _watch(
    ranks: Processes,
    folder: Path,
    order: Order,
    stop_asked: Callable[[], Failure | None],
    look_at_memory: Callable[[], None],
) -> _End:
    """Until every rank has ended well, or one thing has gone wrong."""
    watch = HangWatch(
        no_progress_s=order.no_progress_s,
        slow_phase_s=order.slow_phase_s,
        now_s=time.monotonic(),
    )
    sign, phase = None, "start"
    while True:
        codes = ranks.codes()
        if any(codes):
            if len(codes) > 1:
                time.sleep(SETTLE_S)
            return _End(ranks.codes())
        if all(code == 0 for code in codes):
            return _End(codes)
        if (stopped := stop_asked()) is not None:
            return _End(codes, stopped)
        if (latest := _modified_at(folder / PROGRESS_FILE)) != sign:
            sign, phase = latest, (_progress(folder) or {}).get("phase", phase)
        if watch.look(sign, phase, time.monotonic()):
            dump_stacks(ranks, folder)
            return _End(codes, hung(phase, watch.stalled_s))
        look_at_memory()
        ranks.wait(POLL_S)


def _let_save(ranks: Processes) -> None:
    """Ask ranks that train to leave a checkpoint, and wait for their end, but not for long.

    In any other phase they end of it at once.
    """
    ranks.signal(signal.SIGTERM)
    deadline_s = time.monotonic() + SAVE_S
    while None in ranks.codes() and time.monotonic() < deadline_s:
        ranks.wait(POLL_S)


def _judge(
    end: _End, order: Order, folder: Path, memory: MemoryWatch, stuck: Sequence[int]
) -> Failure | None:
    """What the end amounts to, once no rank runs any more; None for an answer."""
    if stuck:
        names = ", ".join(f"rank {rank}" for rank in stuck)
        why = f" after: {end.decided.reason}" if end.decided else ""
        return unable(f"{names} could not be killed: the node's disk or driver hangs{why}")
    if end.decided is not None:
        return end.decided
    if any(end.codes):
        return classify(
            attempt_ends(order, end.codes, folder),
            killed_by_kernel=memory.kernel_has_killed,
            memory=str(memory),
        )
    return None if (folder / REPORT_FILE).exists() else unreported(REPORT_FILE)


def _collect(
    folder: Path, order: Order, failure: Failure | None, telemetry: Mapping[str, Any]
) -> Delivery:
    kept = folder / KEPT_FOLDER
    report = _read(folder / REPORT_FILE)
    outcome = asdict(failure) if failure else {"state": "succeeded", "reason": None}
    return Delivery(
        **outcome,
        report=report.decode(errors="replace") if report is not None else None,
        curve=_read(folder / CURVE_FILE),
        artifact=_read(folder / ARTIFACT_FILE),
        layers=_read(folder / LAYERS_FILE),
        kept={path.name: path.read_bytes() for path in sorted(kept.glob("*"))},
        log=read_logs(folder, whole=order.program == "script"),
        telemetry=telemetry,
    )


def _undone(failure: Failure) -> Delivery:
    """An attempt that came to nothing before any rank could speak."""
    return Delivery(**asdict(failure), log=f"{failure.reason}\n")


def _code_differs(wanted: str) -> str | None:
    """Why this node's trainer, as it lies there now, may not answer for the driver's."""
    trainer_source.cache_clear()
    here = trainer_source().sha256
    if here == wanted:
        return None
    return (
        f"the trainer's code on {socket.gethostname()} is {here[:12]}, the driver's is "
        f"{wanted[:12]}: bring the same checkout to both (a shared folder, an image, or Ray's "
        f"working_dir)."
    )


def _progress(folder: Path) -> Mapping[str, Any] | None:
    try:
        value: Mapping[str, Any] = json.loads((folder / PROGRESS_FILE).read_bytes())
    except (OSError, ValueError):
        return None
    return value


def _modified_at(path: Path) -> tuple[int, int] | None:
    """What changes when the file is replaced or written to."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_mtime_ns, stat.st_ino


def _read(path: Path) -> bytes | None:
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    return None
