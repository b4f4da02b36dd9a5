"""A cluster that exists in simulated time: nodes that go and come back, and leases on them.

It is a :class:`sweep.cluster.interface.Pool`, so that the holding and the scheduler that run are
the ones that are simulated. All chance comes from one seed, and what becomes of a node does not
depend on what is scheduled there.
"""

import heapq
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from sweep.cluster.interface import Node
from sweep.cluster.sharing import Claim
from sweep.messages import CheckResult, Delivery, Order, PrepareResult, Requirements
from sweep.spec.sweep_file import NodeShape

Bad = Literal["oom", "hang", "crash", "slow", "not finite"]
SLOW = 0.7  # speed of a node that is slow


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """How large the cluster is and what goes wrong in it. Rates are per attempt.

    ``speed_spread`` and ``cell_spread`` are standard deviations, relative. A wave takes
    ``wave_fraction`` of the nodes at once. ``notice_s``: until a death is known. ``bad``: how the
    first nodes fail at every cell. ``says_preempted``: every death is said to be a preemption.
    """

    seed: int = 0
    num_nodes: int = 1000
    slots: int = 1
    speed_spread: float = 0.02
    cell_spread: float = 0.05
    mtbf_s: float = 20 * 86400.0
    outage_s: float = 1800.0
    wave_every_s: float = 4 * 3600.0
    wave_fraction: float = 0.02
    notice_s: float = 30.0
    lease_s: float = 15.0
    prepare_s: float = 45.0
    handover_s: float = 2.0
    infrastructure: float = 0.002
    hang: float = 0.001
    hang_notice_s: float = 60.0
    tainted: float = 0.003
    broken: float = 0.0005
    bad: tuple[Bad, ...] = ()
    says_preempted: bool = False

    def chance(self, *of: object) -> random.Random:
        """Random numbers that depend on the seed and on what they are for."""
        return random.Random(":".join(map(str, (self.seed, *of))))


@dataclass
class Clock:
    """Events in the order of their times; those of one time in the order of their making."""

    now_s: float = 0.0
    _heap: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _count: Iterator[int] = field(default_factory=itertools.count)

    def after(self, delay_s: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.now_s + delay_s, next(self._count), event))

    def step(self) -> None:
        self.now_s, _, event = heapq.heappop(self._heap)
        event()


@dataclass(slots=True)
class SimulatedNode:
    """``up`` are the times from and until which it was there; None: it still is."""

    name: str
    speed: float
    chance: random.Random
    slots: int
    up: list[tuple[float, float | None]] = field(default_factory=list)
    bad: Bad | None = None
    leases: "dict[int, SimulatedLease]" = field(default_factory=dict)
    seen: Node = field(init=False)

    def __post_init__(self) -> None:
        self.seen = Node(self.name, cpus=self.slots, gpus=0)

    @property
    def is_up(self) -> bool:
        return bool(self.up) and self.up[-1][1] is None


class SimulatedLease:
    """Exclusive use of a slot of a node, until that goes or it is released."""

    node_id, unresponsive_s, last_progress, is_preempted = "", 0.0, None, False

    def __init__(
        self, number: int, place: SimulatedNode, later: Callable[[Callable[[], None]], None]
    ) -> None:
        self.name, self.node, self.place = f"lease {number}", place.name, place
        self.number, self.is_gone = number, False
        self._later = later

    def prepare(self, requirements: Requirements) -> "Future[PrepareResult]":
        ready: Future[PrepareResult] = Future()
        self._later(lambda: None if self.is_gone else ready.set_result(PrepareResult()))
        return ready

    def submit(self, order: Order) -> "Future[Delivery]":
        raise NotImplementedError("attempts are the simulation's")

    def beat(self) -> None:
        pass

    def stop(self) -> None:
        pass


class Cluster:
    """Grants leases on nodes that are up; tells ``lost`` of a lease some time after it has gone."""

    version = "simulated"
    unresponsive_s = 0.0

    def __init__(self, world: World, clock: Clock, lost: Callable[[SimulatedLease], None]) -> None:
        self.world, self._clock, self._lost = world, clock, lost
        self.sites = [self._site(index) for index in range(world.num_nodes)]
        self._free: dict[str, SimulatedNode] = {}
        self._asked: list[tuple[float, frozenset[str]]] = []
        self._granted: list[SimulatedLease] = []
        self.num_granted = self.num_released = 0
        self.changed = True  # since somebody last looked
        for site in self.sites:
            self._rise(site)
        clock.after(world.wave_every_s, lambda: self._wave(1))

    def nodes(self) -> Sequence[Node]:
        return [site.seen for site in self.sites if site.is_up]

    def request(
        self,
        shape: NodeShape,
        count: int,
        *,
        driver_silence_s: float,
        avoid: frozenset[str] = frozenset(),
    ) -> None:
        self._asked += [(self._clock.now_s + self.world.lease_s, avoid)] * count
        self._clock.after(self.world.lease_s, self._grant)

    def ready(self) -> "Sequence[Any]":
        granted, self._granted = self._granted, []
        return granted

    def withdraw(self, count: int) -> int:
        count = min(count, len(self._asked))
        del self._asked[len(self._asked) - count :]
        return count

    def pending_reason(self) -> str | None:
        return None

    def release(self, lease: Any) -> None:
        self.num_released += 1
        if lease.place.leases.pop(lease.number, None) is not None and lease.place.is_up:
            self._free[lease.node] = lease.place
            self._clock.after(0.0, self._grant)

    def fetch_log(self, lease: Any, stem: str) -> "Future[str | None]":
        raise NotImplementedError("nothing is logged")

    def inspect(self, requirements: Requirements) -> "dict[str, list[CheckResult] | None]":
        return {}

    def exchange(self, driver: str, claim: Claim | None) -> Sequence[Claim]:
        return ()

    def close(self) -> bool:
        return True

    def _site(self, index: int) -> SimulatedNode:
        name = f"node-{index:04}"
        chance = self.world.chance("node", name)
        speed = max(0.5, chance.gauss(1.0, self.world.speed_spread))
        bad = self.world.bad[index] if index < len(self.world.bad) else None
        speed *= SLOW if bad == "slow" else 1.0
        return SimulatedNode(name, speed, chance, self.world.slots, bad=bad)

    def _rise(self, site: SimulatedNode) -> None:
        self.changed = True
        site.up.append((self._clock.now_s, None))
        self._free[site.name] = site
        life = len(site.up)
        self._clock.after(
            site.chance.expovariate(1 / self.world.mtbf_s), lambda: self._fall(site, life)
        )
        self._clock.after(0.0, self._grant)

    def _fall(self, site: SimulatedNode, life: int) -> None:
        if not site.is_up or len(site.up) != life:
            return  # a wave was earlier
        self.changed = True
        site.up[-1] = (site.up[-1][0], self._clock.now_s)
        self._free.pop(site.name, None)
        for lease in site.leases.values():
            lease.is_gone = True
            self._clock.after(self.world.notice_s, partial(self._lost, lease))
        site.leases.clear()
        outage_s = self.world.notice_s + site.chance.expovariate(1 / self.world.outage_s)
        self._clock.after(outage_s, lambda: self._rise(site))

    def _wave(self, number: int) -> None:
        chance = self.world.chance("wave", number)
        for site in chance.sample(self.sites, round(self.world.wave_fraction * len(self.sites))):
            self._fall(site, len(site.up))
        self._clock.after(self.world.wave_every_s, lambda: self._wave(number + 1))

    def _grant(self) -> None:
        """Give the oldest requests what is free for them."""
        if not self._asked or self._asked[0][0] > self._clock.now_s:
            return
        kept = []
        for at_s, avoid in self._asked:
            name = next((name for name in self._free if name not in avoid), None)
            if at_s > self._clock.now_s or name is None:
                kept.append((at_s, avoid))
                continue
            self._give(self._free[name])
        self._asked = kept

    def _give(self, site: SimulatedNode) -> None:
        later = partial(self._clock.after, self.world.prepare_s)
        lease = SimulatedLease(self.num_granted, site, later)
        site.leases[lease.number] = lease
        if len(site.leases) == site.slots:
            del self._free[site.name]
        self._granted.append(lease)
        self.num_granted += 1
        self.changed = True
