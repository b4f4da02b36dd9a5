"""A pool without Ray: leases are threads, and what an attempt gives is up to the test.

Pools may be those of several drivers on one cluster: they share nodes, leases and a board.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from sweep.cluster.board import Board, BoardReader, Record
from sweep.cluster.interface import Lease, Node
from sweep.cluster.sharing import Claim
from sweep.messages import Delivery, Order, PrepareResult, Requirements
from sweep.spec.sweep_file import NodeShape

Work = Callable[[Order, threading.Event], Delivery]
Prepare = Callable[[Requirements], PrepareResult]


class FakeLease:
    """Runs ``work`` on a thread of its own; ``stop`` sets the event that ``work`` is given."""

    def __init__(self, name: str, node: str, work: Work, prepare: Prepare) -> None:
        self.name, self.node, self.node_id = name, node, f"id of {node}"
        self.unresponsive_s, self.is_gone, self.is_preempted = 0.0, False, False
        self.last_progress: Mapping[str, Any] | None = None
        self._work, self._stop = work, threading.Event()
        self._prepare = prepare
        self._thread = ThreadPoolExecutor(max_workers=1)

    def prepare(self, requirements: Requirements) -> "Future[PrepareResult]":
        return self._thread.submit(self._prepare, requirements)

    def submit(self, order: Order) -> "Future[Delivery]":
        self._stop.clear()
        return self._thread.submit(self._work, order, self._stop)

    def beat(self) -> None:
        self.last_progress = {"phase": "train", "step": 3, "remaining_steps": 4.0, "step_ms": 5.0}

    def stop(self) -> None:
        self._stop.set()


class FakePool:
    """Grants every lease that there is room for, at once: ``per_node`` on each of ``names``.

    ``work_of`` and ``prepare_of`` are those of single nodes. ``beside``: another driver's pool on
    the same cluster.
    """

    version = "fake"
    unresponsive_s = 0.0

    def __init__(
        self,
        work: Work,
        *,
        names: Sequence[str] = ("fake-node",),
        per_node: int = 2,
        prepare: Prepare = lambda requirements: PrepareResult(),
        work_of: Mapping[str, Work] | None = None,
        prepare_of: Mapping[str, Prepare] | None = None,
        lease: type[FakeLease] = FakeLease,
        beside: "FakePool | None" = None,
    ) -> None:
        self._work, self._prepare, self._lease = work, prepare, lease
        self._work_of, self._prepare_of = work_of or {}, prepare_of or {}
        self.names, self.per_node = list(names), per_node
        self._open: list[frozenset[str]] = []
        self.leases: list[FakeLease] = beside.leases if beside is not None else []
        self.board: Board = beside.board if beside is not None else Board()
        self._reader = BoardReader(self._put)
        self.granted = self.released = 0
        self.logs: dict[str, str] = {}

    def nodes(self) -> Sequence[Node]:
        return [Node(name, cpus=self.per_node, gpus=0) for name in self.names]

    def request(
        self,
        shape: NodeShape,
        count: int,
        *,
        driver_silence_s: float,
        avoid: frozenset[str] = frozenset(),
    ) -> None:
        self._open += [avoid] * count

    def ready(self) -> Sequence[Lease]:
        leases, still_open = [], []
        for avoid in self._open:
            node = self._room(avoid)
            if node is None:
                still_open.append(avoid)
                continue
            work = self._work_of.get(node, self._work)
            prepare = self._prepare_of.get(node, self._prepare)
            lease = self._lease(f"lease {self.granted}", node, work, prepare)
            self.granted += 1
            self.leases.append(lease)
            leases.append(lease)
        self._open = still_open
        return leases

    def withdraw(self, count: int) -> int:
        taken = min(count, len(self._open))
        self._open = self._open[: len(self._open) - taken]
        return taken

    def pending_reason(self) -> str | None:
        return "busy: the fake nodes are full" if self._open else None

    def release(self, lease: Lease) -> None:
        assert isinstance(lease, FakeLease)
        self.leases.remove(lease)
        self.released += 1

    def fetch_log(self, lease: Lease, stem: str) -> "Future[str | None]":
        fetched: Future[str | None] = Future()
        fetched.set_result(self.logs.get(lease.node))
        return fetched

    def exchange(self, driver: str, claim: Claim | None) -> Sequence[Claim]:
        return self._reader.exchange(driver, claim)

    def _put(self, driver: str, claim: Record | None) -> "Future[Mapping[str, Any]]":
        answer: Future[Mapping[str, Any]] = Future()
        answer.set_result(self.board.put(driver, claim))
        return answer

    def _room(self, avoid: frozenset[str]) -> str | None:
        for name in self.names:
            held = sum(lease.node == name for lease in self.leases)
            if name not in avoid and held < self.per_node:
                return name
        return None
