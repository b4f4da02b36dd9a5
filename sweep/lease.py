"""What does the driver ask of whatever runs its cells? The seam between deciding and doing.

``sweep/pools/ray.py`` is the implementation; tests put doubles behind the same interface. A lease
answers with ordinary ``concurrent.futures``: there is nothing new to learn.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

from sweep.spec import NodeShape


class LeaseLost(Exception):  # noqa: N818  (it is what happened, not a fault of the caller)
    """The lease's node or agent is gone; what it was running has no answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Supply:
    """A dataset that a node must have: where the driver has it, and what it must be."""

    data_dir: str
    dataset: str
    vocab_size: int
    corpus_sha256: str
    tokenizer_sha256: str
    train_shards: int | None
    cache: str | None
    missing: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One attempt to make: the trainer's specification and how to start and watch it."""

    spec_json: str
    ranks: int
    threads: int
    no_progress_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What an agent hands back. ``report`` is unparsed text, None where the trainer wrote none."""

    state: str
    reason: str | None
    node: str
    report: str | None
    curve: bytes | None
    artifact: bytes | None
    log: str


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the cluster and what it has; ``gpu_models`` as Ray names them (H100)."""

    name: str
    cpus: int
    gpus: int
    gpu_models: frozenset[str] = frozenset()


class Lease(Protocol):
    """Exclusive use of one bundle of one node."""

    @property
    def name(self) -> str: ...

    @property
    def node(self) -> str: ...

    def prepare(self, supplies: Sequence[Supply]) -> "Future[str | None]":
        """See that the node has the data. The future says why it cannot, None if it has."""
        ...

    def submit(self, order: Order) -> "Future[Delivery]":
        """Begin an attempt. The future raises LeaseLost if the lease goes before it ends."""
        ...

    def progress(self) -> Mapping[str, Any] | None:
        """The latest content of the trainer's progress file, without waiting; None if none yet."""
        ...

    def stop(self) -> None:
        """End the running attempt now; its future answers with state ``interrupted``."""
        ...


class Pool(Protocol):
    """Where leases come from."""

    @property
    def version(self) -> str:
        """The version of what runs the cells."""
        ...

    def nodes(self) -> Sequence[Node]: ...

    def request(self, shape: NodeShape, count: int) -> None:
        """Ask for ``count`` more leases; they appear in ``ready`` when they are granted."""
        ...

    def ready(self) -> Sequence[Lease]:
        """Leases granted since the last call, without waiting."""
        ...

    def release(self, lease: Lease) -> None: ...

    def close(self) -> None: ...


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
