"""How long does a grid take on a cluster that fails? The real scheduler, in simulated time.

What is real: ``sweep.schedule.scheduler``, ``sweep.driver.leases`` and ``sweep.schedule.retry``,
driven in the order in which ``sweep.driver.driver`` drives them. What is not: time, nodes and what
becomes of an attempt.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from queue import SimpleQueue
from typing import Any

from benchmarks.cluster import Clock, Cluster, SimulatedLease, SimulatedNode, World
from sweep.driver.leases import Event, Leases
from sweep.driver.share import Share
from sweep.messages import Requirements
from sweep.schedule.plan import Task
from sweep.schedule.scheduler import Scheduler
from sweep.spec.grid import Cell
from sweep.spec.sweep_file import SweepSpec
from sweep.store.history import EndedAttempt
from sweep.store.schema import TERMINAL_STATES


@dataclass(slots=True, eq=False)
class Attempted:
    """One attempt: when it ran, where, and what became of it."""

    task: Task
    node: str
    number: int
    from_s: float
    until_s: float | None = None
    state: str | None = None
    tainted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What becomes of an attempt if its node lives: after ``wall_s``, in the columns' words."""

    wall_s: float
    state: str
    failure: str | None = None
    reason: str | None = None
    tainted: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a simulated sweep went. ``bound_s``: see :func:`lower_bound_s`.

    ``quarantines`` are the times from and until which a node was in quarantine; None: it still is.
    """

    makespan_s: float
    bound_s: float
    attempts: Sequence[Attempted]
    settled: frozenset[str]
    final: dict[str, str]
    quarantined: dict[str, str]
    quarantines: dict[str, list[tuple[float, float | None]]]
    paused: str | None
    num_granted: int
    num_released: int
    decisions: int
    deciding_s: float
    sites: Sequence[SimulatedNode] = field(repr=False)

    @property
    def ratio(self) -> float:
        return self.bound_s / self.makespan_s


class Stalled(Exception):  # noqa: N818  (it is what happened)
    """Nothing ran for as long as the sweep waits for a lease: the driver ends with an error."""


class Simulation:
    """One sweep of ``cells``, which take ``work_s(cell)`` on a node of speed 1.

    ``is_broken``: which fail everywhere; by default some, by chance.
    """

    def __init__(
        self,
        sweep: SweepSpec,
        cells: Sequence[Cell],
        world: World,
        work_s: Callable[[Cell], float],
        is_broken: Callable[[Cell], bool] | None = None,
    ) -> None:
        self._cells, self._world, self._work_s = cells, world, work_s
        self._is_broken = is_broken or (
            lambda cell: world.chance("broken", cell.id).random() < world.broken
        )
        self.history: dict[str, list[EndedAttempt]] = {}
        self._clock = Clock()
        self._cluster = Cluster(world, self._clock, self._lose)
        self._scheduler = Scheduler(
            [Task(cell, "new") for cell in cells],
            {},
            retries=sweep.retries,
            pairing=sweep.pairing,
            reference=sweep.reference,
        )
        requirements = Requirements(
            shape=sweep.node,
            datasets=(),
            trainer_hash="",
            lockfile_hash=None,
            checkpoint_folder=None,
            timed=True,
        )
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._leases = Leases(
            sweep,
            self._cluster,
            self._scheduler,
            self._events,
            requirements,
            lambda text: None,
            Share(sweep, self._cluster, "simulated"),
        )
        self._running: dict[int, Attempted] = {}
        self._attempts: list[Attempted] = []
        self._numbers: dict[str, int] = {}
        self._settled: set[str] = set()
        self._final: dict[str, str] = {}
        self._quarantines: dict[str, list[tuple[float, float | None]]] = {}
        self._decisions, self._deciding_s = 0, 0.0
        self._busy_s, self._patience_s = 0.0, sweep.limits.lease_wait_s

    def run(self) -> Outcome:
        """Until nothing is left to do."""
        while self._scheduler.is_open or self._running:
            leases = self._leases
            leases.idle[:] = [lease for lease in leases.idle if not self._hand_out(lease)]
            if leases.idle or self._cluster.changed:
                self._cluster.changed = False
                leases.update(self._world.num_nodes * self._world.slots)
            self._clock.step()
            self._require_reach()
            while not self._events.empty():
                self._events.get()()
            self._watch_quarantine()
        makespan_s = self._clock.now_s
        work_s = [self._work_s(cell) for cell in self._cells if cell.id in self._settled]
        return Outcome(
            makespan_s=makespan_s,
            bound_s=lower_bound_s(work_s, self._cluster.sites, self._world.slots),
            attempts=self._attempts,
            settled=frozenset(self._settled),
            final=self._final,
            quarantined=dict(self._scheduler.quarantined),
            quarantines=self._quarantines,
            paused=self._scheduler.paused,
            num_granted=self._cluster.num_granted,
            num_released=self._cluster.num_released,
            decisions=self._decisions,
            deciding_s=self._deciding_s,
            sites=self._cluster.sites,
        )

    def _watch_quarantine(self) -> None:
        now_s, inside = self._clock.now_s, self._scheduler.quarantined
        before = {node for node, spans in self._quarantines.items() if spans[-1][1] is None}
        for node in inside.keys() - before:
            self._quarantines.setdefault(node, []).append((now_s, None))
        for node in before - inside.keys():
            self._quarantines[node][-1] = (self._quarantines[node][-1][0], now_s)
        self._cluster.changed |= before != inside.keys()

    def _require_reach(self) -> None:
        if self._running or not self._scheduler.is_open:
            self._busy_s = self._clock.now_s
        elif self._clock.now_s - self._busy_s > self._patience_s:
            waiting, quarantined = self._scheduler.num_waiting, sorted(self._scheduler.quarantined)
            raise Stalled(f"{waiting} cells wait; nodes in quarantine: {quarantined}")

    def _hand_out(self, lease: Any) -> bool:
        task = self._timed(partial(self._scheduler.assign, lease.node))
        if task is None:
            return False
        number = self._numbers[task.cell.id] = self._numbers.get(task.cell.id, 0) + 1
        attempt = Attempted(task, lease.node, number, self._clock.now_s)
        self._attempts.append(attempt)
        self._running[lease.number] = attempt
        fate = self._fate(task.cell, number, lease.place)
        self._clock.after(fate.wall_s, lambda: self._finish(lease, attempt, fate))
        return True

    def _finish(self, lease: SimulatedLease, attempt: Attempted, fate: Fate) -> None:
        if lease.is_gone or self._running.pop(lease.number, None) is None:
            return
        self._close(attempt, fate)
        if fate.state not in TERMINAL_STATES:
            self._leases.prepare(lease)
        elif not self._hand_out(lease):
            self._leases.idle.append(lease)

    def _lose(self, lease: SimulatedLease) -> None:
        attempt = self._running.pop(lease.number, None)
        if lease in self._leases.idle:
            self._leases.idle.remove(lease)
        self._leases.release(lease)
        self._cluster.changed = True
        if attempt is not None:
            reason = f"its agent on {lease.node} died"
            failure = "preemption" if self._world.says_preempted else "infrastructure"
            wall_s = self._clock.now_s - attempt.from_s
            self._close(attempt, Fate(wall_s=wall_s, state="lost", failure=failure, reason=reason))

    def _close(self, attempt: Attempted, fate: Fate) -> None:
        attempt.until_s, attempt.state = self._clock.now_s, fate.state
        attempt.tainted = fate.tainted
        task, to_confirm = attempt.task, None
        if fate.state == "diverged":
            to_confirm = self._scheduler.is_to_confirm(task, attempt.node)
        ended = EndedAttempt(
            attempt=attempt.number,
            state=fate.state,
            tainted=fate.tainted,
            reason=fate.reason,
            wall_s=fate.wall_s,
            ended_at_s=self._clock.now_s,
            failure=fate.failure,
            signature=fate.reason if fate.failure == "cell" else None,
            node=attempt.node,
            is_timed=task.cell.spec.parsed_budget.kind == "seconds",
            to_confirm=to_confirm,
        )
        self.history.setdefault(task.cell.id, []).append(ended)
        follows = self._timed(partial(self._scheduler.record_end, task, attempt.node, ended))
        if task.is_reference_rerun:
            return
        self._final.pop(task.cell.id, None)
        if follows.kind == "settled":
            self._settled.add(task.cell.id)
        elif follows.kind == "final":
            self._final[task.cell.id] = follows.why

    def _fate(self, cell: Cell, number: int, place: SimulatedNode) -> Fate:
        """Chance that depends on the cell and the number of its attempt alone."""
        world, whole_s = self._world, self._work_s(cell) / place.speed
        early = Fate(wall_s=world.handover_s + 0.05 * whole_s, state="failed", failure="cell")
        if self._is_broken(cell):
            return replace(early, reason=f"broken: {cell.id}")
        chance = world.chance("fate", cell.id, number)
        kind, part_s = chance.random(), world.handover_s + chance.random() * whole_s
        match place.bad:
            case "oom":
                return replace(early, state="oom", failure="memory", reason="CUDA out of memory")
            case "hang":
                wall_s = part_s + world.hang_notice_s
                return Fate(wall_s=wall_s, state="hung", failure="hang", reason="no progress")
            case "crash":
                return replace(early, reason="killed by SIGSEGV")
            case "not finite":
                return replace(early, state="diverged", failure=None, reason="loss is nan")
        if kind < world.infrastructure:
            reason = f"unhandled NCCL error ({number})"
            return Fate(wall_s=part_s, state="failed", failure="infrastructure", reason=reason)
        kind -= world.infrastructure
        if kind < world.hang:
            wall_s = part_s + world.hang_notice_s
            return Fate(wall_s=wall_s, state="hung", failure="hang", reason="no progress")
        tainted = place.bad == "slow" or kind - world.hang < world.tainted
        return Fate(wall_s=world.handover_s + whole_s, state="succeeded", tainted=tainted)

    def _timed(self, decide: Callable[[], Any]) -> Any:
        start_s = time.thread_time()  # what others do on this machine counts nothing
        answer = decide()
        self._deciding_s += time.thread_time() - start_s
        self._decisions += 1
        return answer


def lower_bound_s(work_s: Sequence[float], sites: Sequence[SimulatedNode], slots: int) -> float:
    """No schedule, even one that knows what will fail, settles the cells earlier than this.

    With w_c the work of cell c (its time on a node of speed 1), counted only for cells that were
    settled, and S(t) the sum of the speeds of the min(number of cells, slots that are up at t)
    fastest slots that are up at t, it is

        max( least T with ∫₀ᵀ S(t) dt ≥ Σ w_c,  max w_c / fastest speed ).

    Attempts that fail, cells that are given up, leases, hand-overs and companions count nothing.
    """
    if not work_s:
        return 0.0
    changes = sorted(
        (at_s, sign, site.speed)
        for site in sites
        for from_s, until_s in site.up
        for at_s, sign in ((from_s, 1), (until_s, -1))
        if at_s is not None
    )
    left, now_s = sum(work_s), 0.0
    up: list[float] = []
    for at_s, sign, speed in [*changes, (float("inf"), 0, 0.0)]:
        rate = sum(sorted(up, reverse=True)[: len(work_s)]) if up else 0.0
        if rate * (at_s - now_s) >= left:
            now_s += left / rate
            break
        left, now_s = left - rate * (at_s - now_s), at_s
        if sign > 0:
            up += [speed] * slots
        else:
            for _ in range(slots):
                up.remove(speed)
    return max(now_s, max(work_s) / max(site.speed for site in sites))
