"""Run a plan: hand cells to leases, keep every answer, and go on when leases or nodes are lost.

The scheduler decides, this module does. Everything that happens elsewhere arrives as an event on
one queue and is handled by one thread; no wait is without a deadline. Only the driver writes to the
store, by other threads: a cell begins when its announcement is there, and what follows from its end
follows when its row is.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import TypeVar

from sweep.cluster.interface import Lease, LeaseLost, Pool
from sweep.deadline import repeated
from sweep.driver.attempt_row import Outcome, check_delivery
from sweep.driver.attempts import Attempts
from sweep.driver.control import Control
from sweep.driver.display import Display, EndedView, Listener, SweepView, describe_outcome
from sweep.driver.durations import Durations, kind_of
from sweep.driver.leases import POLL_EVERY_S, Event, Leases
from sweep.driver.progress_file import ProgressFile
from sweep.driver.requirements import order_for, requirements_for, resumes_anywhere
from sweep.driver.running import Running
from sweep.driver.share import Share
from sweep.driver.writers import Writers
from sweep.messages import Delivery
from sweep.provenance import Code
from sweep.schedule.plan import Plan, Task
from sweep.schedule.scheduler import Scheduler
from sweep.spec.sweep_file import SweepSpec
from sweep.store.files import StoreError
from sweep.store.history import History
from sweep.store.schema import TERMINAL_STATES
from sweep.store.store import Attempt
from sweep.store.table import Row, ended_attempt

TICK_S = 0.25
LOOK_EVERY_S, LOOK_AT_LEAST_EVERY_S = 0.2, 2.0
STOP_DEADLINE_S = 20.0
FETCH_DEADLINE_S, HURRIED_FETCH_S = 20.0, 5.0  # Slurm kills 30 s after its SIGTERM
WRITE_DEADLINE_S = 20.0  # of a driver that gives up
WATCH_EVERY_S = 10.0

T = TypeVar("T")


@dataclass
class Driver:
    """One run of one plan, until nothing is left to do or the user has had enough.

    ``lease_limit`` says how many leases may be held now on other nodes than those given, which are
    in quarantine, if no more than a number are wanted; ``code`` are the hashes that nodes must
    have. Cells that another driver runs are ``skipped``; those that cannot end before the job does
    are ``too_long``, by id, with the time that they may take.
    """

    sweep: SweepSpec
    pool: Pool
    attempts: Attempts
    display: Display
    control: Control
    lease_limit: Callable[[frozenset[str], int | None], int]
    code: Code
    skipped: list[Task] = field(default_factory=list)
    listeners: Sequence[Listener] = ()
    too_long: dict[str, float] = field(default_factory=dict)
    has_begun: bool = False
    _running: dict[int, Running] = field(default_factory=dict)
    _events: "SimpleQueue[Event]" = field(default_factory=SimpleQueue)
    _durations_s: list[float] = field(default_factory=list)
    _ended: dict[str, str] = field(default_factory=dict)  # by cell, which may be open again
    _checked_s: float = field(default_factory=time.monotonic)
    _pause_s: float = 0.0
    _node_s: float = 0.0

    def run(self, plan: Plan, history: History) -> str | None:
        """Try every cell of ``plan`` until it is settled or final; why it paused, None if not."""
        self._plan = plan
        waiting = [task.cell for task in plan.todo]
        requirements = requirements_for(self.sweep, waiting, self.code)
        self._scheduler = Scheduler(
            plan.todo,
            history,
            retries=self.sweep.retries,
            pairing=self.sweep.pairing,
            reference=self.sweep.reference,
            trainer_hash=self.code.trainer_hash,
            settled=plan.settled,
            now_s=time.time(),
        )
        self._leases = Leases(
            self.sweep,
            self.pool,
            self._scheduler,
            self._events,
            requirements,
            self.display.say,
            Share(self.sweep, self.pool, self.attempts.versions.driver),
        )
        cells = [*plan.settled, *waiting]
        self._durations = Durations(self.sweep.estimate_cell_s, cells, history)
        self._writers = Writers(self.attempts.store.files.at_once)
        self._progress = ProgressFile(self.attempts.store, self.attempts.versions.driver)
        self._show()
        try:
            with (
                repeated(POLL_EVERY_S, self._leases.beat),
                repeated(WATCH_EVERY_S, self._watch_others),
                self._progress.kept(),
            ):
                while self._scheduler.is_open or self._running:
                    self._step()
        except BaseException as error:
            if not isinstance(error, StoreError):  # which has been tried for long enough
                self._give_up(error)
                self._writers.close(WRITE_DEADLINE_S)
            raise
        finally:
            self._writers.close(0.0)
            self._leases.close()
        self._show()
        return self._scheduler.paused

    def _step(self) -> None:
        """One round: hand out, notice, show, and wait for news for at most a tick."""
        # Before the look, which gives back leases that have nothing to do.
        self._leases.idle[:] = [a for a in self._leases.idle if not self._start_next(a)]
        now_s = time.monotonic()
        if now_s - self._checked_s > self._pause_s:
            self._node_s += self._leases.num_nodes * (now_s - self._checked_s)
            self._checked_s = now_s
            self._check()
            self._show()
            took_s = time.monotonic() - now_s  # at 1,000 leases 30 ms, and more beside other work
            self._pause_s = min(max(LOOK_EVERY_S, 10 * took_s), LOOK_AT_LEAST_EVERY_S)
        try:
            self._events.get(timeout=TICK_S)()
        except Empty:
            return
        for _ in range(self._events.qsize()):  # what they bring about waits for the next round
            self._events.get()()

    def _check(self) -> None:
        if self.control.drains:
            self._scheduler.stop()
        quarantined = frozenset(self._scheduler.quarantined)
        self._leases.update(self.lease_limit(quarantined, self.control.max_leases))
        for lease, reason in self._leases.failing():
            self._lose_lease(lease, reason)
        self._stop_attempts()
        self._leases.require_nodes(at_work=bool(self._running))

    def _watch_others(self) -> None:
        """Without locks the death of another driver shows over several looks."""
        if self.skipped:
            self.attempts.store.drivers()

    def _stop_attempts(self) -> None:
        """End what is to end, and give up what does not."""
        now_s = time.monotonic()
        fetch_s = FETCH_DEADLINE_S if self.control.reason is None else HURRIED_FETCH_S
        for running in [each for each in self._running.values() if each.is_at_work]:
            if running.lost_because is not None:
                if now_s - running.lost_at_s > fetch_s:
                    self._close_lost(running, None)
                continue
            if running.stopped_as is None:
                expected_s = self._durations.expected_s(running.kind)
                most_s = self.sweep.limits.attempt_s
                running.stopped_as = running.must_stop_as(self.control, expected_s, most_s)
                running.stopped_at_s = now_s
            if (ending := running.stopped_as) is not None:
                running.lease.stop()  # at every look: the first may come before the attempt begins
                if now_s - running.stopped_at_s > STOP_DEADLINE_S:
                    reason = f"{ending.reason}; it was told to stop and did not"
                    self._lose_lease(running.lease, reason, str(ending.failure))

    def _start_next(self, lease: Lease) -> bool:
        """Start the next cell on ``lease``; False if there is nothing for it."""
        most = self.control.max_leases
        is_surplus = most is not None and len(self._leases.held) > most
        if lease.is_preempted or is_surplus or self.control.drains:
            return False
        gives_back = self._leases.share.gives_back(lease.node)
        while (task := self._scheduler.assign(lease.node, own_only=gives_back)) is not None:
            if self._is_too_long(task):
                self._scheduler.skip(task, lease.node)
                continue
            self._announce(lease, task)
            return True
        return False

    def _is_too_long(self, task: Task) -> bool:
        """Whether it can neither end before the job does nor leave what can be gone on from."""
        left_s = self.control.time_left_s
        expected_s = self._durations.expected_s(kind_of(task.cell))
        if resumes_anywhere(self.sweep, task.cell):
            expected_s = min(expected_s, 2 * self.sweep.checkpoints.every_s)
        if expected_s > left_s:
            self.too_long[task.cell.id] = expected_s
        return expected_s > left_s

    def _announce(self, lease: Lease, task: Task) -> None:
        running = Running(lease, task, kind_of(task.cell))
        self._running[id(lease)] = running
        running.announced = self._write(
            lambda: self.attempts.announce(task, lease),
            lambda attempt: self._begin(running, attempt),
        )

    def _write(self, write: Callable[[], T], then: Callable[[T], None]) -> "Future[T]":
        """Have another thread write, and go on with what it has written; a StoreError ends all."""
        written = self._writers.submit(write)
        written.add_done_callback(lambda done: self._events.put(lambda: then(done.result())))
        return written

    def _begin(self, running: Running, attempt: Attempt | None) -> None:
        """Give the order, now that the attempt is announced; unless something came between."""
        lease, task = running.lease, running.task
        if attempt is None:
            del self._running[id(lease)]
            self._scheduler.skip(task, lease.node)
            self.skipped.append(task)
            self._go_on(lease)
            return
        running.attempt, running.since_s = attempt, time.monotonic()
        if running.lost_because is not None:
            self._close_lost(running, None)
        elif self.control.drains:
            reason = f"stopped before it began: {self.control.reason or 'no cell was to begin'}"
            self._close(running, Outcome("interrupted", reason, None, "user"), None)
        else:
            self.has_begun = True
            order = order_for(self.sweep, task.cell, attempt, self.code, self.attempts.store.place)
            lease.submit(order).add_done_callback(
                lambda done: self._events.put(lambda: self._finish(running, done))
            )

    def _finish(self, running: Running, done: "Future[Delivery]") -> None:
        """Keep what an attempt has delivered."""
        if running.lost_because is not None:
            return  # given up; what comes now comes too late
        error = done.exception()
        if isinstance(error, LeaseLost):
            self._lose_lease(running.lease, f"its lease was lost ({error})")
            return
        if error is not None:
            text = f"its agent failed ({type(error).__name__}: {error})"
            outcome, delivery = Outcome("failed", text, None, "infrastructure", None), None
        else:
            delivery = done.result()
            outcome = check_delivery(running.task.cell, delivery)
            if outcome.state == "interrupted":
                outcome = running.stopped_as or outcome
        self._close(running, outcome, delivery)

    def _lose_lease(self, lease: Lease, reason: str, failure: str = "infrastructure") -> None:
        """Give a lease up; if an attempt ran on it, fetch its log first."""
        running = self._running.get(id(lease))
        if running is None or running.is_closing:
            self._leases.give_up(lease, reason)
            return
        if running.lost_because is not None:
            return
        if lease.is_preempted and failure == "infrastructure":
            reason, failure = f"its node was taken away (preempted; {reason})", "preemption"
        running.lost_because, running.lost_at_s = reason, time.monotonic()
        running.lost_as = failure
        if running.attempt is not None:
            fetched = self.pool.fetch_log(lease, running.attempt.stem)
            fetched.add_done_callback(
                lambda done: self._events.put(lambda: self._close_lost(running, done.result()))
            )

    def _close_lost(self, running: Running, log: str | None) -> None:
        if running.is_closing:
            return
        self._leases.release(running.lease)
        reason, delivery = str(running.lost_because), None
        if log is None:
            reason += "; its log could not be fetched"
        else:
            delivery = Delivery(state="lost", reason=None, log=log)
        state, failure = "lost", running.lost_as
        if failure == "infrastructure" and self.control.reason is not None:
            # Slurm tells every process of a job that it ends: Ray may go before the cells are told.
            state, failure = "interrupted", "user"
            reason = f"stopped before it ended: {self.control.reason}; {reason}"
        self._close(running, Outcome(state, reason, None, failure, None), delivery)

    def _close(self, running: Running, outcome: Outcome, delivery: Delivery | None) -> None:
        """Have the row written; until then neither the cell nor the lease goes on."""
        attempt, running.is_closing = running.attempt, True
        assert attempt is not None
        if outcome.state == "diverged":
            to_confirm = self._scheduler.is_to_confirm(running.task, running.lease.node)
            outcome = replace(outcome, to_confirm=to_confirm)
        self._write(
            lambda: self.attempts.close(attempt, running.task, running.lease, outcome, delivery),
            lambda row: self._go_on_after(running, row, delivery),
        )

    def _go_on_after(self, running: Running, row: Row, delivery: Delivery | None) -> None:
        """The row of an attempt is written: say so, and let cell and lease go on."""
        task, lease, state = running.task, running.lease, row["state"]
        del self._running[id(lease)]
        follows = self._scheduler.record_end(task, lease.node, ended_attempt(row))
        duration_s = time.monotonic() - running.since_s
        if state == "succeeded":
            self._durations_s.append(duration_s)
            self._durations.add(running.kind, duration_s)
        is_done = follows.kind != "again" and not task.is_reference_rerun
        if is_done:
            self._ended[task.cell.id] = state
        ending = EndedView(
            cell=task.cell.name,
            state=state,
            reason=describe_outcome(row, follows, goes_on=self._scheduler.is_open),
            wall_s=duration_s,
            row=row,
            done=len(self._ended) if is_done else None,
            total=len(self._plan.todo),
            curve=delivery.curve if delivery is not None and state in TERMINAL_STATES else None,
        )
        for listener in (self.display, *self.listeners):
            listener.ended(ending)
        if id(lease) not in self._leases.held:
            return  # it was given up
        if state in TERMINAL_STATES or not self._scheduler.is_open:
            self._go_on(lease)
        else:
            self._leases.prepare(lease)  # what the attempt failed of may be the node's

    def _go_on(self, lease: Lease) -> None:
        if not self._start_next(lease):
            self._leases.idle.append(lease)

    def _give_up(self, error: BaseException) -> None:
        """Close what runs as lost, as far as the store lets us: the agents end with this driver."""
        was_told, said = isinstance(error, KeyboardInterrupt), str(error) or type(error).__name__
        because = (
            "its driver was told to end at once" if was_told else f"its driver gave up: {said}"
        )
        for running in self._running.values():
            if not running.is_closing:
                outcome = Outcome("lost", running.lost_because or because, None, "driver", None)
                self._writers.submit(partial(self._close_once_announced, running, outcome))

    def _close_once_announced(self, running: Running, outcome: Outcome) -> None:
        """By a writer; that of the announcement has begun before, so this wait ends."""
        attempt = running.announced.result() if running.announced is not None else None
        if attempt is not None:
            self.attempts.close(attempt, running.task, running.lease, outcome, None)

    def _show(self) -> None:
        idle = len(self._leases.idle)
        note = self.pool.pending_reason() if self._leases.num_requested else None
        leases = [
            running.view(running.attempt, self._durations.expected_s(running.kind))
            for running in self._running.values()
            if running.attempt is not None
        ]
        view = SweepView(
            name=self.sweep.name,
            total=len(self._plan.todo),
            settled_before=len(self._plan.settled),
            ended=Counter(self._ended.values()),
            waiting=self._scheduler.num_waiting,
            leases=leases,
            idle=idle,
            durations_s=self._durations_s,
            stopping=self.control.sentence,
            node_hours=self._node_s / 3600,
            quarantined=dict(self._scheduler.quarantined),
            paused=self._scheduler.paused,
            note=note,
            sharing=self._leases.share.division.sentence,
        )
        self._progress.show(view)
        for listener in (self.display, *self.listeners):
            listener.show(view)
