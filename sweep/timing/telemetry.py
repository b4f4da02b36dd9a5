"""GPU telemetry of a cell: a sampler reads the GPUs once a second and sums them up as columns.

Clocks, power, heat and the two fractions are of readings in the training phase alone. What was not
told is None: a fraction is of those readings that told it. The sampler may fail or hang and never
disturbs the cell.
"""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, TypeVar

from sweep.deadline import call_with_deadline
from sweep.environment import visible_gpus
from sweep.timing.nvml import Nvml, Reading, Unreadable, open_nvml, sees_host_pids

EVERY_S = 1.0
DEADLINE_S = 5.0  # for a library that does not answer, when a GPU falls off its bus
TRAINING = "train"  # as the trainer's progress file calls it

T = TypeVar("T")
Pids = Callable[[], set[int]]  # which processes are ours
Phase = Callable[[], str | None]  # what the trainer is doing
SamplerFactory = Callable[[Pids, Phase], "Sampler"]


@contextlib.contextmanager
def sample_telemetry(
    factory: SamplerFactory | None, pids: Pids, phase: Phase, say: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    """The columns, which are there once the block has ended; {} without a factory."""
    columns: dict[str, Any] = {}
    sampler = _in_time(lambda: factory(pids, phase).start(), say) if factory else None
    try:
        yield columns
    finally:
        if sampler is not None:
            columns |= _in_time(sampler.stop, say) or {}


def gpu_sampler(pids: Pids, phase: Phase) -> "Sampler":
    """Reads the GPUs that this process may see."""
    return Sampler(open_nvml(visible_gpus()), pids, phase)


class Sampler:
    """Reads the GPUs from ``start`` to ``stop``, in a thread of its own.

    ``pids`` gives the processes that are ours, ``phase`` what the trainer says it is doing. Without
    NVML nothing is started and there is no column. ``host_pids``: whether the process numbers
    that NVML tells mean something here; in most containers they do not.
    """

    def __init__(
        self,
        nvml: Nvml | Unreadable,
        pids: Pids,
        phase: Phase,
        *,
        every_s: float = EVERY_S,
        host_pids: bool | None = None,
    ) -> None:
        self._nvml = nvml if isinstance(nvml, Nvml) else None
        self._pids, self._phase, self._every_s = pids, phase, every_s
        self._host_pids = sees_host_pids() if host_pids is None else host_pids
        self._tally = _Tally()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)

    def start(self) -> "Sampler":
        if self._nvml is not None:
            self._thread.start()
        return self

    def stop(self) -> dict[str, Any]:
        """End the reading and sum it up; never waits long, whatever the GPUs do."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(DEADLINE_S / 2)
        return self.summary()

    def sample(self) -> None:
        """Take one reading now."""
        if self._nvml is None:
            return
        phase, own = self._phase(), self._pids()
        readings = self._nvml.readings()
        with self._lock:
            self._tally.samples += 1
            if phase == TRAINING:
                self._tally.add(readings, own if self._host_pids else None)

    def summary(self) -> dict[str, Any]:
        """The columns of "Timing of the node" that telemetry fills."""
        if self._nvml is None:
            return {}
        driver = self._nvml.driver
        with self._lock:
            return self._tally.columns() | {
                "gpu_uuids": ",".join(self._nvml.uuids),
                "gpu_driver": None if isinstance(driver, Unreadable) else driver,
            }

    def _run(self) -> None:
        due_s = time.monotonic()
        while not self._stopped.wait(max(0.0, due_s - time.monotonic())):
            self.sample()
            due_s = max(due_s + self._every_s, time.monotonic())  # a late one is not made up for


def _in_time(work: Callable[[], T], say: Callable[[str], None]) -> T | None:
    """What ``work`` gives, if it does so before a broken driver would hold up the attempt."""
    try:
        return call_with_deadline(DEADLINE_S, work)
    except Exception as error:  # no telemetry is no reason for no result
        say(f"the node's telemetry: {type(error).__name__}: {error}")
        return None


@dataclass(slots=True)
class _Tally:
    """What is kept of the readings: its size does not grow with the length of the cell."""

    samples: int = 0
    clocks_mhz: Counter[int] = field(default_factory=Counter)
    watts: float = 0.0
    num_watts: int = 0
    hottest_c: int | None = None
    throttled: Counter[bool | None] = field(default_factory=Counter)
    foreign: Counter[bool | None] = field(default_factory=Counter)

    def add(self, readings: Sequence[Reading], own: set[int] | None) -> None:
        """One reading in training; ``own`` is None where process numbers mean nothing."""
        for reading in readings:
            if not isinstance(reading.sm_clock_mhz, Unreadable):
                self.clocks_mhz[reading.sm_clock_mhz] += 1
            if not isinstance(reading.power_w, Unreadable):
                self.watts += reading.power_w
                self.num_watts += 1
            if not isinstance(reading.temperature_c, Unreadable):
                self.hottest_c = max(self.hottest_c or 0, reading.temperature_c)
        self.throttled[_any_slowed(readings)] += 1
        self.foreign[None if own is None else _any_foreign(readings, own)] += 1

    def columns(self) -> dict[str, Any]:
        clocks = self.clocks_mhz
        return {
            "telemetry_samples": self.samples,
            "sm_clock_mhz_p50": float(median(clocks.elements())) if clocks else None,
            "sm_clock_mhz_min": float(min(clocks)) if clocks else None,
            "power_w_mean": self.watts / self.num_watts if self.num_watts else None,
            "temperature_c_max": None if self.hottest_c is None else float(self.hottest_c),
            "throttled_fraction": _fraction(self.throttled),
            "foreign_fraction": _fraction(self.foreign),
        }


def _fraction(told: Counter[bool | None]) -> float | None:
    """Of the readings that told something, in how many it was true."""
    num_told = told[True] + told[False]
    return told[True] / num_told if num_told else None


def _any_slowed(readings: Sequence[Reading]) -> bool | None:
    """Whether any GPU is slowed; None where none is known to be and some do not tell."""
    if any(reading.slowed for reading in readings if not isinstance(reading.slowed, Unreadable)):
        return True
    return None if any(isinstance(reading.slowed, Unreadable) for reading in readings) else False


def _any_foreign(readings: Sequence[Reading], own: set[int]) -> bool | None:
    """Whether a process that is not ours is on a GPU; None where the list may not be ours.

    A list without any of our ranks, while they train, is not of this machine's process numbers.
    """
    lists = [reading.pids for reading in readings]
    seen = {pid for pids in lists if not isinstance(pids, Unreadable) for pid in pids}
    if not seen & own:
        return None
    if seen - own:
        return True
    return None if any(isinstance(pids, Unreadable) for pids in lists) else False
