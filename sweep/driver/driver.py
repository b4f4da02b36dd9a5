"""Run a plan: hand cells to leases, keep every answer, lose none when anything dies.

The scheduler decides, this module does. Everything that happens elsewhere arrives as an event on
one queue and is handled by one thread; no wait is without a deadline. Only the driver writes to the
store.
"""

import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

from sweep.cluster.interface import Lease, LeaseLost, Pool
from sweep.driver.attempt_row import Outcome, judge
from sweep.driver.attempts import Record
from sweep.driver.display import Display, Ending, LeaseView, SweepView, what_follows
from sweep.driver.interrupts import Interruption
from sweep.driver.leases import Event, Heart, Holding
from sweep.driver.orders import Code, order_for, requirements_for
from sweep.messages import Delivery
from sweep.schedule.plan import Plan, Task
from sweep.schedule.scheduler import Rules, Scheduler
from sweep.spec.sweep_file import SweepSpec
from sweep.store.files import StoreError
from sweep.store.history import History
from sweep.store.store import Attempt
from sweep.store.table import ended_of
from trainer.config.config_errors import ConfigError

TICK_S = 0.25
LOOK_EVERY_S = 0.2
STOP_DEADLINE_S = 20.0
FETCH_DEADLINE_S = 20.0


@dataclass(slots=True, eq=False)
class _Running:
    """An attempt under way. Once ``lost_because`` is set its answer is no longer waited for."""

    lease: Lease
    task: Task
    attempt: Attempt
    since_s: float
    lost_because: str | None = None
    lost_at_s: float | None = None
    lost_as: str | None = None
    stopped_at_s: float | None = None


@dataclass
class Driver:
    """One run of one plan, until nothing is left to do or the user has had enough.

    ``limit`` says how many leases may be held now on nodes other than those that are left alone;
    ``code`` are the hashes that nodes must have.
    """

    sweep: SweepSpec
    pool: Pool
    record: Record
    display: Display
    interruption: Interruption
    limit: Callable[[frozenset[str]], int]
    code: Code
    set_aside: list[Task] = field(default_factory=list)
    _running: dict[int, _Running] = field(default_factory=dict)
    _events: "SimpleQueue[Event]" = field(default_factory=SimpleQueue)
    _durations_s: list[float] = field(default_factory=list)
    _ended: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _busy_s: float = field(default_factory=time.monotonic)
    _looked_s: float = 0.0

    def run(self, plan: Plan, history: History) -> str | None:
        """Try every cell of ``plan`` until it is settled or final; why it paused, None if not."""
        self._plan = plan
        waiting = [task.cell for task in plan.todo]
        requirements = requirements_for(self.sweep, waiting, self.code)
        self._scheduler = Scheduler(
            plan.todo,
            history,
            Rules(
                retries=self.sweep.retries,
                pairing=self.sweep.pairing,
                reference=self.sweep.reference,
                trainer_hash=self.code.trainer_hash,
            ),
            plan.settled,
        )
        self._holding = Holding(
            self.sweep, self.pool, self._scheduler, self._events, requirements, self._say
        )
        try:
            with Heart(self._holding):
                while self._scheduler.is_open or self._running:
                    self._turn()
        except BaseException as error:
            if not isinstance(error, StoreError):  # which has been asked for long enough
                self._give_up(f"its driver gave up: {error or type(error).__name__}")
            raise
        finally:
            self._holding.close()
        self._show()
        return self._scheduler.paused

    def _turn(self) -> None:
        """One round: hand out, notice, show, and wait for news for at most a tick."""
        # Before the look, which gives back leases that have nothing to do.
        self._holding.idle[:] = [a for a in self._holding.idle if not self._hand_out(a)]
        now_s = time.monotonic()
        if now_s - self._looked_s > LOOK_EVERY_S:
            self._looked_s = now_s
            self._look()
            self._show()
        try:
            self._events.get(timeout=TICK_S)()
        except Empty:
            return
        for _ in range(self._events.qsize()):  # what they bring about waits for the next round
            self._events.get()()

    def _look(self) -> None:
        if self.interruption.requests:
            self._scheduler.stop()
        self._holding.look(self.limit(frozenset(self._scheduler.shunned)))
        for lease, reason in self._holding.failing():
            self._lose(lease, reason)
        self._hurry()
        self._require_reach()
        if self.set_aside:
            self.record.watch_others()

    def _hurry(self) -> None:
        """End what is to end, and give up what does not."""
        now_s = time.monotonic()
        over = self.interruption.is_over(self.sweep.limits.grace_s)
        for running in list(self._running.values()):
            if running.lost_at_s is not None:
                if now_s - running.lost_at_s > FETCH_DEADLINE_S:
                    self._bury(running, None)
            elif over:
                running.stopped_at_s = running.stopped_at_s or now_s
                running.lease.stop()  # at every look: the first may come before the attempt begins
                if now_s - running.stopped_at_s > STOP_DEADLINE_S:
                    self._lose(running.lease, "it was told to stop and did not", "user")

    def _require_reach(self) -> None:
        """Do not wait for ever for nodes; ConfigError where there is nothing to wait for."""
        limits, holding = self.sweep.limits, self._holding
        if self.pool.unresponsive_s > limits.agent_silence_s:
            raise ConfigError(
                f"Ray's head has not answered for {self.pool.unresponsive_s:.0f} s. What is "
                f"stored is safe; `make sweep` goes on when the cluster is back."
            )
        if self._running or holding.idle or holding.num_preparing or not self._scheduler.is_open:
            self._busy_s = time.monotonic()
            return
        shunned = self._scheduler.shunned
        reasons = " ".join(f"{node}: {reason}" for node, reason in sorted(shunned.items()))
        if shunned and holding.seen <= set(shunned) and not self.sweep.node.autoscale:
            raise ConfigError(f"no node can run this sweep's cells. {reasons}")
        waited_s = time.monotonic() - self._busy_s
        if waited_s > limits.lease_wait_s / 2:
            self._scheduler.avoid_nothing()  # rather a retry on the same node than none
        if waited_s > limits.lease_wait_s:
            why = self.pool.pending_reason() or "none was asked for"
            raise ConfigError(
                f"no lease was granted for {limits.lease_wait_s:g} s while nothing ran "
                f"({why}). `make sweep` goes on when nodes are back; "
                f"limits.lease_wait_s waits longer. {reasons}".rstrip()
            )

    def _hand_out(self, lease: Lease) -> bool:
        """Start the next cell on ``lease``; False if there is nothing for it."""
        while (task := self._scheduler.assign(lease.node)) is not None:
            attempt = self.record.announce(task, lease)
            if attempt is not None:
                self._begin(lease, task, attempt)
                return True
            self._scheduler.set_aside(task, lease.node)
            self.set_aside.append(task)
        return False

    def _begin(self, lease: Lease, task: Task, attempt: Attempt) -> None:
        running = _Running(lease, task, attempt, time.monotonic())
        self._running[id(lease)] = running
        future = lease.submit(
            order_for(self.sweep, task.cell, attempt, self.code, self.record.store.place)
        )
        future.add_done_callback(lambda done: self._events.put(lambda: self._finish(running, done)))

    def _finish(self, running: _Running, done: "Future[Delivery]") -> None:
        """Keep what an attempt has delivered, and let its lease go on."""
        if running.lost_because is not None:
            return  # given up; what comes now comes too late
        error = done.exception()
        if isinstance(error, LeaseLost):
            self._lose(running.lease, f"its lease was lost ({error})")
            return
        del self._running[id(running.lease)]
        if error is not None:
            text = f"its agent failed ({type(error).__name__}: {error})"
            outcome, delivery = Outcome("failed", text, None, "infrastructure", None), None
        else:
            delivery = done.result()
            outcome = judge(running.task.cell, delivery)
        self._close(running, outcome, delivery)
        if not self._hand_out(running.lease):
            self._holding.idle.append(running.lease)

    def _lose(self, lease: Lease, reason: str, failure: str = "infrastructure") -> None:
        """Give a lease up; if an attempt ran on it, fetch its log first."""
        running = self._running.get(id(lease))
        if running is None:
            self._holding.give_up(lease, reason)
            return
        if running.lost_because is not None:
            return
        running.lost_because, running.lost_at_s = reason, time.monotonic()
        running.lost_as = failure
        fetched = self.pool.fetch_log(lease, running.attempt.stem)
        fetched.add_done_callback(
            lambda done: self._events.put(lambda: self._bury(running, done.result()))
        )

    def _bury(self, running: _Running, log: str | None) -> None:
        if self._running.pop(id(running.lease), None) is None:
            return
        self._holding.lose(running.lease)
        reason, delivery = str(running.lost_because), None
        if log is None:
            reason += "; its log could not be fetched"
        else:
            delivery = Delivery(
                state="lost", reason=None, report=None, curve=None, artifact=None, log=log
            )
        self._close(running, Outcome("lost", reason, None, running.lost_as, None), delivery)

    def _close(self, running: _Running, outcome: Outcome, delivery: Delivery | None) -> None:
        task = running.task
        row = self.record.close(running.attempt, task, running.lease, outcome, delivery)
        follows = self._scheduler.ended(task, running.lease.node, ended_of(row))
        duration_s = time.monotonic() - running.since_s
        if outcome.state == "succeeded":
            self._durations_s.append(duration_s)
        is_done = follows.kind != "again" and not task.is_companion
        self._ended[outcome.state] += is_done
        self.display.ended(
            Ending(
                cell=task.cell.name,
                state=outcome.state,
                reason=what_follows(row, follows, goes_on=self._scheduler.is_open),
                wall_s=duration_s,
                row=row,
                done=sum(self._ended.values()) if is_done else None,
                total=len(self._plan.todo),
            )
        )

    def _give_up(self, reason: str) -> None:
        """Close what runs as lost, as far as the store lets us: the agents end with this driver."""
        for running in list(self._running.values()):
            outcome = Outcome("lost", running.lost_because or reason, None, "driver", None)
            try:
                self.record.close(running.attempt, running.task, running.lease, outcome, None)
            except Exception:  # the next driver closes it
                return

    def _say(self, text: str) -> None:
        self.display.say(text)

    def _show(self) -> None:
        idle = len(self._holding.idle)
        note = self.pool.pending_reason() if self._holding.num_asked else None
        for running in self._running.values():
            self.record.follow(running.task.cell, running.attempt, running.lease.last_progress)
        self.display.show(
            SweepView(
                name=self.sweep.name,
                total=len(self._plan.todo),
                settled_before=len(self._plan.settled),
                ended=dict(self._ended),
                waiting=self._scheduler.num_waiting,
                leases=[_view(running) for running in self._running.values()],
                idle=idle,
                durations_s=self._durations_s,
                interrupted=self.interruption.requests > 0,
                note=note,
            )
        )


def _view(running: _Running) -> LeaseView:
    return LeaseView(
        name=running.lease.name,
        node=running.lease.node,
        cell=running.task.cell.name,
        attempt=running.attempt.number,
        elapsed_s=time.monotonic() - running.since_s,
        progress=running.lease.last_progress,
    )
