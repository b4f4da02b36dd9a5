"""The interface of a cluster to the driver: nodes, leases and the pool that grants them.

``sweep/cluster/ray.py`` is the implementation; tests put doubles behind the same interface. A lease
answers with ordinary ``concurrent.futures``: there is nothing new to learn.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

from sweep.cluster.sharing import Claim
from sweep.messages import CheckResult, Delivery, Order, PrepareResult, Requirements
from sweep.spec.sweep_file import NodeShape


class LeaseLost(Exception):  # noqa: N818  (it is what happened, not a fault of the caller)
    """The lease's node or agent is gone; what it was running has no answer."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the cluster and what it has; ``gpu_models`` as Ray names them (H100).

    ``name`` outlives a restart of Ray, ``id`` does not.
    """

    name: str
    cpus: int
    gpus: int
    gpu_models: frozenset[str] = frozenset()
    id: str = ""


class Lease(Protocol):
    """Exclusive use of one bundle of one node."""

    name: str
    node: str  # its lasting name
    node_id: str
    is_gone: bool  # the agent is known to be dead
    is_preempted: bool  # its node is being taken away, or was; what runs is ended at a checkpoint
    last_progress: Mapping[str, Any] | None
    """The latest content of the trainer's progress file; None if none yet."""

    @property
    def unresponsive_s(self) -> float:
        """How long the agent has owed an answer to ``beat``; 0 where it has answered."""
        ...

    def prepare(self, requirements: Requirements) -> Future[PrepareResult]:
        """Check the node, and see that it has the data."""
        ...

    def submit(self, order: Order) -> Future[Delivery]:
        """Begin an attempt. The future raises LeaseLost if the lease goes before it ends."""
        ...

    def beat(self) -> None:
        """Ask for progress, without waiting: news for ``last_progress``.

        This is the heartbeat: an agent that is not asked for ``driver_silence_s`` ends itself.
        """
        ...

    def stop(self) -> None:
        """End the running attempt now; its future answers with state ``interrupted``."""
        ...


class Pool(Protocol):
    """Where leases come from."""

    version: str  # of what runs the cells

    @property
    def unresponsive_s(self) -> float:
        """How long ago the cluster last answered."""
        ...

    def nodes(self) -> Sequence[Node]: ...

    def request(
        self,
        shape: NodeShape,
        count: int,
        *,
        driver_silence_s: float,
        avoid: frozenset[str] = frozenset(),
    ) -> None:
        """Ask for ``count`` more leases on nodes that are not named in ``avoid``.

        They appear in ``ready`` when they are granted. Their agents end themselves when they have
        heard nothing for ``driver_silence_s``.
        """
        ...

    def ready(self) -> Sequence[Lease]:
        """Leases granted since the last call, without waiting."""
        ...

    def withdraw(self, count: int) -> int:
        """Take back up to ``count`` requests that were not granted yet; returns how many."""
        ...

    def pending_reason(self) -> str | None:
        """Why requests are not granted, busy or impossible, and who holds the GPUs; None if none
        are open."""
        ...

    def release(self, lease: Lease) -> None: ...

    def fetch_log(self, lease: Lease, stem: str) -> Future[str | None]:
        """What the attempt ``stem`` left on the node of a lost lease; None where it cannot be had.

        Ends within seconds, whatever has become of the node.
        """
        ...

    def inspect(self, requirements: Requirements) -> Mapping[str, Sequence[CheckResult] | None]:
        """What the preflight finds on every node, by name; None where a node did not answer."""
        ...

    def exchange(self, driver: str, claim: Claim | None) -> Sequence[Claim]:
        """Tell the claim of ``driver`` to other drivers on this cluster, and what they told last.

        Never waits. None takes the claim away. Nobody else is on a cluster of the driver's own.
        """
        ...

    def close(self) -> bool:
        """Leave; False if what is left would keep this process from ending by itself."""
        ...


def capacity(nodes: Sequence[Node], shape: NodeShape) -> tuple[int, int]:
    """(leases of ``shape`` that fit on ``nodes``, nodes that carry at least one).

    >>> capacity([Node("a", cpus=2, gpus=0)], NodeShape(cpus=1))
    (2, 1)
    """
    fits = [
        min(node.cpus // shape.cpus, node.gpus // shape.gpus if shape.gpus else node.cpus)
        for node in nodes
        if shape.gpu_model is None or shape.gpu_model in node.gpu_models
    ]
    return sum(fits), sum(fit > 0 for fit in fits)
