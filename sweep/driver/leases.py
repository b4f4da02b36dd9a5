"""The leases of a driver: requested, prepared, polled, and given back."""

import contextlib
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from queue import SimpleQueue

from sweep.cluster.interface import Lease, Pool, capacity
from sweep.driver.share import Share
from sweep.messages import PrepareResult, Requirements
from sweep.schedule.scheduler import Scheduler
from sweep.spec.sweep_file import SweepSpec
from trainer.config.config_errors import ConfigError

POLL_EVERY_S = 1.0

Event = Callable[[], None]


@dataclass
class Leases:
    """The leases of one driver. ``requirements`` says what a node is checked against.

    ``nodes_seen`` are the nodes on which a lease fits that have ever been there. The next request
    leaves out those of ``_avoid_next``; the open ones leave out ``_avoided_now``.
    """

    sweep: SweepSpec
    pool: Pool
    scheduler: Scheduler
    events: "SimpleQueue[Event]"
    requirements: Requirements
    say: Callable[[str], None]
    share: Share
    idle: list[Lease] = field(default_factory=list)
    held: dict[int, Lease] = field(default_factory=dict)
    num_requested: int = 0
    nodes_seen: set[str] = field(default_factory=set)
    _preparing: dict[int, float] = field(default_factory=dict)
    _avoid_next: frozenset[str] = frozenset()
    _avoided_now: frozenset[str] = frozenset()
    _warned: set[str] = field(default_factory=set)
    _busy_s: float = field(default_factory=time.monotonic)

    @property
    def num_nodes(self) -> int:
        """On how many nodes a lease is held."""
        return len({lease.node for lease in self.held.values()})

    def update(self, limit: int) -> None:
        """Take what has been granted; ask for what is missing, up to ``limit``; return the rest."""
        nodes = self.pool.nodes()
        fitting = [node.name for node in nodes if capacity([node], self.sweep.node)[0]]
        self.nodes_seen.update(fitting)
        self.scheduler.set_reachable(fitting)
        for lease in self.pool.ready():
            self.num_requested -= 1
            self._accept(lease)
        useful = min(limit, self.scheduler.useful_leases())
        avoided = self._avoided_now if self.num_requested else frozenset()
        self.share.update(
            [lease.node for lease in self.held.values()],
            wants=useful,
            nodes=nodes,
            usable=frozenset(fitting) - self.scheduler.quarantined.keys() - avoided,
            asks=self.num_requested > 0,
        )
        self._balance(useful)

    def release(self, lease: Lease) -> None:
        """``lease`` is of no use any more; it is never used again."""
        self._preparing.pop(id(lease), None)
        if self.held.pop(id(lease), None) is not None:
            self.scheduler.remove_lease(lease.node)
            self.pool.release(lease)

    def prepare(self, lease: Lease) -> None:
        """Check the node of ``lease``; it is idle when that has been passed."""
        self._preparing[id(lease)] = time.monotonic()
        ready = lease.prepare(replace(self.requirements, sent_at=time.time()))
        ready.add_done_callback(
            lambda done: self.events.put(lambda: self._finish_preparing(lease, done))
        )

    def give_up(self, lease: Lease, reason: str) -> None:
        """Lose a lease that runs nothing; one that never got ready speaks against its node, unless
        that was taken away."""
        if lease.is_preempted:
            self.say(f"{lease.node}: {reason}.")
        elif id(lease) in self._preparing:
            self.say(f"{lease.node}: lost while it was made ready ({reason}).")
            self.scheduler.lost_while_preparing(lease.node, reason)
        if lease in self.idle:
            self.idle.remove(lease)
        self.release(lease)

    def failing(self) -> list[tuple[Lease, str]]:
        """Leases to give up, and why."""
        reasons = ((lease, self._why_failing(lease)) for lease in self.held.values())
        return [(lease, reason) for lease, reason in reasons if reason is not None]

    def require_nodes(self, *, at_work: bool) -> None:
        """Do not wait for ever for nodes; ConfigError where there is nothing to wait for."""
        limits, scheduler = self.sweep.limits, self.scheduler
        if self.pool.unresponsive_s > limits.agent_silence_s:
            raise ConfigError(
                f"Ray's head has not answered for {self.pool.unresponsive_s:.0f} s. What is "
                f"stored is safe; `make sweep` goes on when the cluster is back."
            )
        if at_work or self.idle or self._preparing or not scheduler.is_open:
            self._busy_s = time.monotonic()
            return
        quarantined = scheduler.quarantined
        reasons = " ".join(f"{node}: {reason}" for node, reason in sorted(quarantined.items()))
        if quarantined and self.nodes_seen <= set(quarantined) and not self.sweep.node.autoscale:
            raise ConfigError(f"no node can run this sweep's cells. {reasons}")
        now_s, half_s = time.monotonic(), limits.lease_wait_s / 2
        waited_s = now_s - self._busy_s
        if waited_s > half_s:
            scheduler.retry_anywhere()  # rather a retry on the same node than none
        if self.share.division.is_kept_waiting:  # its turn comes when another sweep has ended
            self._busy_s = max(self._busy_s, now_s - half_s)
        elif waited_s > limits.lease_wait_s:
            why = self.pool.pending_reason() or "none was requested"
            raise ConfigError(
                f"no lease was granted for {limits.lease_wait_s:g} s while nothing ran "
                f"({why}). `make sweep` goes on when nodes are back; "
                f"limits.lease_wait_s waits longer. {reasons}".rstrip()
            )

    def beat(self) -> None:
        """Ask every agent for its progress, which it takes as a sign of life."""
        for lease in list(self.held.values()):
            with contextlib.suppress(Exception):  # no lease may stop the asking of the others
                lease.beat()

    def close(self) -> None:
        """Give everything back: who drives next with this pool asks anew."""
        self.num_requested -= self.pool.withdraw(self.num_requested)
        self.idle.clear()
        for lease in list(self.held.values()):
            self.release(lease)
        self.share.leave()

    def _why_failing(self, lease: Lease) -> str | None:
        limits = self.sweep.limits
        if lease.is_gone:
            return "its agent died"
        if lease.unresponsive_s > limits.agent_silence_s:
            return f"its agent has not answered for {lease.unresponsive_s:.0f} s"
        since_s = self._preparing.get(id(lease))
        if lease.is_preempted and (lease in self.idle or since_s is not None):
            return "it is being taken away (preempted)"
        if since_s is not None and time.monotonic() - since_s > limits.prepare_s:
            return f"it was not ready within {limits.prepare_s:g} s"
        return None

    def _accept(self, lease: Lease) -> None:
        self.held[id(lease)] = lease
        self.scheduler.add_lease(lease.node)
        if lease.node in self.scheduler.quarantined or not self.scheduler.is_open:
            self.release(lease)
        else:
            self.prepare(lease)

    def _finish_preparing(self, lease: Lease, done: "Future[PrepareResult]") -> None:
        """Use the lease if its node is fit for the sweep; if not, leave that node alone."""
        if id(lease) not in self._preparing:
            return  # given up meanwhile
        error = done.exception()
        if error is not None:
            self.give_up(lease, str(error))
            return
        del self._preparing[id(lease)]
        readiness = done.result()
        for text in [f"warning: {lease.node}: {warning}" for warning in readiness.warnings]:
            if text not in self._warned:
                self._warned.add(text)
                self.say(text)
        if readiness.refusal is not None:
            self.say(f"{lease.node} is in quarantine: {readiness.refusal}")
            self.scheduler.quarantine(lease.node, readiness.refusal)
            self.release(lease)
        else:
            self.idle.append(lease)

    def _balance(self, useful: int) -> None:
        """``useful`` leases have something to do, but other sweeps may leave room for fewer."""
        share = self.share.division.limit
        allowed = useful if share is None else min(useful, share)
        self._return_surplus(useful, allowed)
        quarantined = frozenset(self.scheduler.quarantined)
        for_a_task = self._avoided_now - quarantined
        outdated = any(self.scheduler.avoided_by_retry(node) is None for node in for_a_task)
        if self.num_requested and (outdated or not self._avoided_now >= quarantined):
            self.num_requested -= self.pool.withdraw(self.num_requested)
        missing = allowed - len(self.held) - self.num_requested
        if missing > 0 and self.scheduler.is_open:
            avoid = self._avoid_next | quarantined
            self.pool.request(
                self.sweep.node,
                missing,
                driver_silence_s=self.sweep.limits.driver_silence_s,
                avoid=avoid,
            )
            self._avoided_now = self._avoided_now | avoid if self.num_requested else avoid
            self._avoid_next = frozenset()
            self.num_requested += missing

    def _return_surplus(self, useful: int, allowed: int) -> None:
        surplus = len(self.held) + self.num_requested - useful
        too_many = min(len(self.held) + self.num_requested - allowed, self.num_requested)
        if too_many > 0:
            surplus -= (taken := self.pool.withdraw(too_many))
            self.num_requested -= taken
        for lease in list(self.idle):
            gives_back = self.share.gives_back(lease.node)
            quarantined = lease.node in self.scheduler.quarantined
            avoid = self.scheduler.avoided_by_retry(lease.node)
            if surplus > 0 or quarantined or avoid is not None or gives_back:
                if gives_back:
                    self.share.gave_back(lease.node)
                surplus -= 1
                self._avoid_next |= avoid or frozenset()
                self.idle.remove(lease)
                self.release(lease)
