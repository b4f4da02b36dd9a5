"""A driver's share of a cluster: what it claims beside other sweeps, and what follows from all."""

import time
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace

import psutil

from sweep.cluster.interface import Node, Pool
from sweep.cluster.sharing import Claim, Division, divide
from sweep.spec.sweep_file import SweepSpec

WAITS_AFTER_S = 10.0  # Ray takes seconds to grant what is free
GROWS_WITHIN_S = 300.0  # a cluster that grows is given the time to
ON_ITS_WAY_S = 120.0  # from giving a lease back until another sweep's agent has started


@dataclass
class Share:
    """The share of the driver with the id ``driver``."""

    sweep: SweepSpec
    pool: Pool
    driver: str
    division: Division = field(default_factory=Division)
    _given: dict[str, tuple[int, float]] = field(default_factory=dict)  # and until when, by node
    _asks_since_s: float | None = None
    _started_at: float = field(default_factory=lambda: psutil.Process().create_time())

    def update(
        self,
        held: Iterable[str],
        *,
        wants: int,
        nodes: Collection[Node],
        usable: frozenset[str],
        asks: bool,
    ) -> None:
        """Tell the others how it stands, and see what follows.

        ``held``: the node of each lease; ``usable``: the nodes on which it would take another;
        ``asks``: requests are open.
        """
        now_s, shape = time.monotonic(), self.sweep.node
        if not asks:
            self._asks_since_s = None
        elif self._asks_since_s is None:
            self._asks_since_s = now_s
        patience_s = GROWS_WITHIN_S if shape.autoscale else WAITS_AFTER_S
        since_s = self._asks_since_s
        self._forget_what_has_arrived(now_s)
        claim = Claim(
            driver=self.driver,
            name=self.sweep.name,
            share=shape.share,
            started_at=self._started_at,
            unit="GPU" if shape.gpus else "CPU",
            size=shape.gpus or shape.cpus,
            held=Counter(held),
            given={node: count for node, (count, _) in self._given.items()},
            wants=wants,
            waits=since_s is not None and now_s - since_s >= patience_s,
            usable=usable,
        )
        capacity = {node.name: node.gpus if shape.gpus else node.cpus for node in nodes}
        self.division = divide(claim, self.pool.exchange(self.driver, claim), capacity)

    def gives_back(self, node: str) -> bool:
        """Whether a lease on ``node`` is to be given back when its cell has ended."""
        return self.division.surplus > 0 and node in self.division.nodes

    def gave_back(self, node: str) -> None:
        """A lease on ``node`` has just been given back for others."""
        count, _ = self._given.get(node, (0, 0.0))
        self._given[node] = (count + 1, time.monotonic() + ON_ITS_WAY_S)
        self.division = replace(self.division, surplus=self.division.surplus - 1)

    def leave(self) -> None:
        """Claim nothing any more."""
        self.pool.exchange(self.driver, None)

    def _forget_what_has_arrived(self, now_s: float) -> None:
        """By its time; where more is to follow on a node, what is there already waits for that."""
        for node, (count, _) in self._given.items():
            if self.gives_back(node):
                self._given[node] = (count, now_s + ON_ITS_WAY_S)
        self._given = {node: given for node, given in self._given.items() if given[1] > now_s}
