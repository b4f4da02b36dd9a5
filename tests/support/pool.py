"""A pool without Ray: leases are threads, and what an attempt gives is up to the test."""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from sweep.lease import Delivery, Lease, Node, Order, Supply
from sweep.spec import NodeShape

Work = Callable[[Order, threading.Event], Delivery]
Prepare = Callable[[Sequence[Supply]], str | None]


class FakeLease:
    """Runs ``work`` on a thread of its own; ``stop`` sets the event that ``work`` is given."""

    def __init__(self, name: str, work: Work, prepare: Prepare) -> None:
        self.name, self.node = name, "fake-node"
        self._work, self._stop = work, threading.Event()
        self._prepare = prepare
        self._thread = ThreadPoolExecutor(max_workers=1)

    def prepare(self, supplies: Sequence[Supply]) -> "Future[str | None]":
        return self._thread.submit(self._prepare, supplies)

    def submit(self, order: Order) -> "Future[Delivery]":
        self._stop.clear()
        return self._thread.submit(self._work, order, self._stop)

    def progress(self) -> Mapping[str, Any] | None:
        return {"phase": "train", "step": 3, "remaining_steps": 4.0, "step_ms": 5.0}

    def stop(self) -> None:
        self._stop.set()


class FakePool:
    """Grants every lease that is asked for, at once."""

    version = "fake"

    def __init__(
        self, work: Work, cpus: int = 2, gpus: int = 0, prepare: Prepare = lambda supplies: None
    ) -> None:
        self._work, self._prepare = work, prepare
        self._nodes = [Node("fake-node", cpus=cpus, gpus=gpus)]
        self._waiting: list[FakeLease] = []
        self.granted = self.released = 0
        self.closed = False

    def nodes(self) -> Sequence[Node]:
        return self._nodes

    def request(self, shape: NodeShape, count: int) -> None:
        for _ in range(count):
            self._waiting.append(FakeLease(f"lease {self.granted}", self._work, self._prepare))
            self.granted += 1

    def ready(self) -> Sequence[Lease]:
        leases, self._waiting = self._waiting, []
        return leases

    def release(self, lease: Lease) -> None:
        self.released += 1

    def close(self) -> None:
        self.closed = True
