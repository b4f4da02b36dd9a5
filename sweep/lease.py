"""What does the driver ask of whatever runs its cells? The seam between deciding and doing.

``sweep/pools/ray.py`` is the implementation; tests put doubles behind the same interface. A lease
answers with ordinary ``concurrent.futures``: there is nothing new to learn.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from sweep.provenance import Software
from sweep.spec import NodeShape

if TYPE_CHECKING:
    from sweep.preflight.finding import Result


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
class CheckpointPlace:
    """Where the ranks of a cell keep their checkpoint: a folder of the node, and maybe a copy.

    ``copy_to`` is a folder or URI beside the results, None if none is to be kept there.
    """

    folder: str | None
    every_s: float
    copy_to: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One attempt to make: the trainer's specification and how to start and watch it.

    ``stem`` names the attempt and its scratch folder; ``checkpoint`` is None where the cell starts
    from zero; ``trainer_hash`` is the driver's, and a node with other code refuses.
    """

    stem: str
    cell_id: str
    spec_json: str
    ranks: int
    threads: int
    no_progress_s: float
    slow_phase_s: float
    trainer_hash: str
    checkpoint: CheckpointPlace | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What an agent hands back. ``report`` is unparsed text, None where the trainer wrote none.

    ``layers`` are of a success alone. ``failure`` and ``signature`` are the columns of that name,
    None for a success. ``telemetry`` has the columns of "Timing of the node" that the agent
    measured.
    """

    state: str
    reason: str | None
    report: str | None
    curve: bytes | None
    artifact: bytes | None
    log: str
    layers: bytes | None = None
    failure: str | None = None
    signature: str | None = None
    telemetry: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """What a node is checked against before its first cell; see ``sweep/preflight``.

    ``driver_software`` and ``asked_at`` (of time.time) are what the driver says of itself.
    ``threads`` are those of every rank, None where cells differ in them.
    """

    shape: NodeShape
    supplies: Sequence[Supply]
    trainer_hash: str
    lockfile_hash: str | None
    checkpoint_folder: str | None
    timed: bool
    driver_software: Software | None = None
    asked_at: float | None = None
    threads: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Whether a node may run cells: the reason why not, and what it was warned of."""

    refusal: str | None = None
    warnings: tuple[str, ...] = ()


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

    @property
    def name(self) -> str: ...

    @property
    def node(self) -> str:
        """The node's lasting name."""
        ...

    @property
    def node_id(self) -> str: ...

    @property
    def silent_s(self) -> float:
        """How long the agent has owed an answer to ``beat``; 0 where it has answered."""
        ...

    @property
    def is_gone(self) -> bool:
        """Whether the agent is known to be dead."""
        ...

    @property
    def last_progress(self) -> Mapping[str, Any] | None:
        """The latest content of the trainer's progress file; None if none yet."""
        ...

    def prepare(self, requirements: Requirements) -> "Future[Readiness]":
        """Check the node, and see that it has the data."""
        ...

    def submit(self, order: Order) -> "Future[Delivery]":
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

    @property
    def version(self) -> str:
        """The version of what runs the cells."""
        ...

    @property
    def silent_s(self) -> float:
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

    def waiting(self) -> str | None:
        """Why requests are not granted, busy or impossible, and who holds the GPUs; None if none
        are open."""
        ...

    def release(self, lease: Lease) -> None: ...

    def fetch_log(self, lease: Lease, stem: str) -> "Future[str | None]":
        """What the attempt ``stem`` left on the node of a lost lease; None where it cannot be had.

        Ends within seconds, whatever has become of the node.
        """
        ...

    def inspect(self, requirements: Requirements) -> Mapping[str, "Sequence[Result] | None"]:
        """What the preflight finds on every node, by name; None where a node did not answer."""
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
