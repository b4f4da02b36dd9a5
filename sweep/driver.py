"""Run a plan: hand cells to leases, keep every answer, lose none when anything dies.

The plan has decided what to run; this module does it. A cell that fails becomes a row and stops no
other. Only the driver writes to the store.
"""

import os
import socket
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from sweep.grid import Cell
from sweep.lease import Delivery, Lease, LeaseLost, Order, Pool, Supply
from sweep.plan import Plan, Task
from sweep.progress import Display, LeaseView, SweepView
from sweep.provenance import Revision
from sweep.rows import Outcome, Versions, attempt_row, identity_columns, judge, lost_row
from sweep.spec import DataPlace, SweepSpec
from sweep.store import Attempt, Store
from trainer.data.manifest import read_manifest
from trainer.strict import ConfigError

TICK_S = 0.25


@dataclass(slots=True)
class Interruption:
    """What the user has asked for: once to finish what runs, twice to end it now."""

    requests: int = 0
    first_at_s: float | None = None

    def request(self) -> None:
        self.requests += 1
        if self.first_at_s is None:
            self.first_at_s = time.monotonic()

    def is_over(self, grace_s: float) -> bool:
        """Running cells are to end now."""
        waited_s = time.monotonic() - self.first_at_s if self.first_at_s is not None else 0.0
        return self.requests > 1 or (self.requests == 1 and waited_s > grace_s)


def close_lost(store: Store, sweep: str, cells: Sequence[Cell], revision: Revision) -> int:
    """Close what an earlier driver announced and could not finish; returns how many.

    To be called by the holder of the store's lock: then whoever announced them is gone.
    """
    by_id = {cell.id: cell for cell in cells}
    unfinished = store.unfinished()
    for attempt, note in unfinished:
        store.commit(attempt, lost_row(sweep, by_id, attempt, note, datetime.now(UTC), revision))
    return len(unfinished)


@dataclass(slots=True)
class _Running:
    lease: Lease
    cell: Cell
    attempt: Attempt
    since_s: float


@dataclass
class Driver:
    """One run of one plan, until nothing is left to do or the user has had enough."""

    sweep: SweepSpec
    store: Store
    pool: Pool
    versions: Versions
    display: Display
    interruption: Interruption
    num_leases: int
    _running: dict["Future[Delivery]", _Running] = field(default_factory=dict)
    _preparing: dict["Future[str | None]", Lease] = field(default_factory=dict)
    _refused: list[str] = field(default_factory=list)
    _asked_for: int = 0
    _idle: list[Lease] = field(default_factory=list)
    _durations_s: list[float] = field(default_factory=list)
    _ended: dict[str, int] = field(default_factory=dict)

    def run(self, plan: Plan) -> None:
        """Make one attempt at every cell of ``plan``."""
        todo = deque(plan.todo)
        self._asked_for = min(self.num_leases, len(todo))
        self.pool.request(self.sweep.node, self._asked_for)
        busy_s = time.monotonic()
        while todo or self._running:
            self._take_leases(todo)
            self._welcome()
            if self._running or self._idle or self._preparing:
                busy_s = time.monotonic()
            self._require_patience(time.monotonic() - busy_s)
            if self.interruption.requests:
                todo.clear()
            while todo and self._idle:
                self._start(self._idle.pop(0), todo.popleft())
            self._stop_if_over()
            self._show(plan, len(todo))
            done, _ = wait(list(self._running), timeout=TICK_S, return_when=FIRST_COMPLETED)
            if not self._running:
                time.sleep(TICK_S)
            for future in done:
                self._finish(future, still_needed=bool(todo))
        self._show(plan, 0)

    def _require_patience(self, waited_s: float) -> None:
        limit_s = self.sweep.limits.lease_wait_s
        if waited_s > limit_s:
            raise ConfigError(
                f"no lease was granted for {limit_s:g} s while nothing ran: the nodes are busy or "
                f"gone. `make sweep` goes on when they are back; limits.lease_wait_s waits longer."
            )

    def _take_leases(self, todo: Sequence[Task]) -> None:
        for lease in self.pool.ready():
            if todo:
                self._preparing[lease.prepare(_supplies(todo, self.sweep.data))] = lease
            else:
                self.pool.release(lease)

    def _welcome(self) -> None:
        """Take the leases whose nodes have the data, give back those whose nodes cannot have it."""
        for future in [future for future in self._preparing if future.done()]:
            lease = self._preparing.pop(future)
            error = future.exception()
            reason = future.result() if error is None else f"{type(error).__name__}: {error}"
            if reason is None:
                self._idle.append(lease)
                continue
            self.pool.release(lease)
            self._refused.append(f"{lease.node}: {reason}")
        nothing_left = not self._running and not self._idle and not self._preparing
        if nothing_left and self._refused and len(self._refused) >= self._asked_for:
            raise ConfigError(
                "no node can run this sweep's cells. " + " ".join(sorted(set(self._refused)))
            )

    def _start(self, lease: Lease, task: Task) -> None:
        cell = task.cell
        note = {
            "driver": f"process {os.getpid()} on {socket.gethostname()}",
            "node": lease.node,
            "identity": identity_columns(self.sweep.name, cell),
        }
        attempt = self.store.announce(cell.id, note)
        order = Order(
            spec_json=cell.spec.model_dump_json(),
            ranks=self.sweep.node.ranks,
            threads=cell.spec.threads,
            no_progress_s=self.sweep.limits.no_progress_s,
        )
        self._running[lease.submit(order)] = _Running(lease, cell, attempt, time.monotonic())

    def _finish(self, future: "Future[Delivery]", *, still_needed: bool) -> None:
        running = self._running.pop(future)
        error = future.exception()
        if error is None:
            delivery = future.result()
            self._idle.append(running.lease)
            outcome = judge(running.cell, delivery)
            self._commit(running, outcome, delivery)
        elif isinstance(error, LeaseLost):
            self.pool.release(running.lease)
            if still_needed:
                self.pool.request(self.sweep.node, 1)
            self._commit(running, Outcome("lost", f"its lease was lost ({error})", None), None)
        else:
            self._idle.append(running.lease)
            text = f"its agent failed ({type(error).__name__}: {error})"
            self._commit(running, Outcome("failed", text, None), None)

    def _commit(self, running: _Running, outcome: Outcome, delivery: Delivery | None) -> None:
        stem, log = running.attempt.stem, None
        if delivery is not None:
            log = self.store.keep("logs", f"{stem}.log", delivery.log.encode())
            if outcome.report is not None and delivery.curve is not None:
                self.store.keep("curves", f"{stem}.parquet", delivery.curve)
            if outcome.report is not None and delivery.artifact and self.sweep.keep_artifacts:
                self.store.keep("artifacts", f"{stem}.bin", delivery.artifact)
        row = attempt_row(
            self.sweep.name,
            running.cell,
            running.attempt,
            outcome,
            node=delivery.node if delivery is not None else running.lease.node,
            ended_at=datetime.now(UTC),
            log=log,
            versions=self.versions,
        )
        self.store.commit(running.attempt, row)
        duration_s = time.monotonic() - running.since_s
        if outcome.state == "succeeded":
            self._durations_s.append(duration_s)
        self._ended[outcome.state] = self._ended.get(outcome.state, 0) + 1
        self.display.ended(running.cell.name, outcome.state, outcome.reason, duration_s, row)

    def _stop_if_over(self) -> None:
        if self.interruption.is_over(self.sweep.limits.grace_s):
            for running in self._running.values():
                running.lease.stop()  # at every tick: the first may come before the attempt begins

    def _show(self, plan: Plan, waiting: int) -> None:
        leases = [
            LeaseView(
                name=running.lease.name,
                node=running.lease.node,
                cell=running.cell.name,
                elapsed_s=time.monotonic() - running.since_s,
                progress=running.lease.progress(),
            )
            for running in self._running.values()
        ]
        self.display.show(
            SweepView(
                name=self.sweep.name,
                total=len(plan.todo),
                settled_before=len(plan.settled),
                ended=dict(self._ended),
                waiting=waiting,
                leases=leases,
                idle=len(self._idle),
                durations_s=self._durations_s,
                interrupted=self.interruption.requests > 0,
            )
        )


def _supplies(todo: Sequence[Task], place: DataPlace) -> tuple[Supply, ...]:
    """The datasets that the cells of ``todo`` read, each once."""
    found: dict[str, Supply] = {}
    for spec in (task.cell.spec for task in todo):
        if spec.data_dir not in found:
            found[spec.data_dir] = Supply(
                data_dir=spec.data_dir,
                dataset=spec.recipe.data.dataset,
                vocab_size=spec.recipe.model.vocab_size,
                corpus_sha256=spec.corpus_sha256,
                tokenizer_sha256=spec.tokenizer_sha256,
                train_shards=_train_shards(spec.data_dir),
                cache=place.cache,
                missing=place.missing,
            )
    return tuple(found.values())


def _train_shards(data_dir: str) -> int | None:
    """How many the driver's copy has; None if it has none."""
    try:
        return len(read_manifest(Path(data_dir)).train)
    except ConfigError:
        return None
