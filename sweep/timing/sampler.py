"""How are the GPUs looked at while the ranks run? By a sampler that may fail and never disturbs."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, TypeVar

from sweep.deadline import call_with_deadline
from sweep.environment import visible_gpus
from sweep.timing import telemetry
from sweep.timing.nvml import open_nvml

PATIENCE_S = 5.0
T = TypeVar("T")


class Sampler(Protocol):
    """Reads the node from a thread of its own between ``start`` and ``stop``."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def summary(self) -> Mapping[str, Any]:
        """The columns of "Timing of the node" that it measured."""
        ...


Pids = Callable[[], set[int]]  # which processes are ours
Phase = Callable[[], str | None]  # what the trainer is doing
SamplerFactory = Callable[[Pids, Phase], Sampler]


def gpu_sampler(pids: Pids, phase: Phase) -> Sampler:
    """Reads the GPUs that this process may see."""
    return telemetry.Sampler(open_nvml(visible_gpus()), pids, phase)


@contextlib.contextmanager
def sampled(
    factory: SamplerFactory | None,
    pids: Pids,
    phase: Phase,
    say: Callable[[str], None],
) -> Iterator[dict[str, Any]]:
    """The columns, which are there once the block has ended; {} without a factory."""
    columns: dict[str, Any] = {}
    sampler = _in_time(lambda: _started(factory, pids, phase), say) if factory else None
    try:
        yield columns
    finally:
        if sampler is not None:
            columns |= _in_time(lambda: _finished(sampler), say) or {}


def _started(factory: SamplerFactory, pids: Pids, phase: Phase) -> Sampler:
    sampler = factory(pids, phase)
    sampler.start()
    return sampler


def _finished(sampler: Sampler) -> Mapping[str, Any]:
    sampler.stop()
    return sampler.summary()


def _in_time(work: Callable[[], T], say: Callable[[str], None]) -> T | None:
    """What ``work`` gives, if it does so before a broken driver would hold up the attempt."""
    try:
        return call_with_deadline(PATIENCE_S, work)
    except Exception as error:  # no telemetry is no reason for no result
        say(f"the node's telemetry: {type(error).__name__}: {error}")
        return None
