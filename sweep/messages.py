"""Messages between a driver and its nodes: requirements, order, delivery, results of checks.

They are plain values that cross processes; neither side imports the other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sweep.provenance import Software
from sweep.spec.sweep_file import NodeShape

Program = Literal["trainer", "script"]
Status = Literal["pass", "warn", "refuse", "unknown", "n/a"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequiredDataset:
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
    """One attempt to make: the specification, which program answers it, how to start and watch it.

    ``stem`` names the attempt and its scratch folder; ``checkpoint`` is None where the cell starts
    from zero; ``trainer_hash`` is the driver's, and a node with other code refuses.
    """

    stem: str
    cell_id: str
    program: Program = "trainer"
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

    ``layers`` are of a success alone; ``kept`` are the files of a script as it ran, by name.
    ``failure`` and ``signature`` are the columns of that name, None for a success. ``telemetry``
    has the columns of "Timing of the node" that the agent measured.
    """

    state: str
    reason: str | None
    log: str
    report: str | None = None
    curve: bytes | None = None
    artifact: bytes | None = None
    layers: bytes | None = None
    kept: Mapping[str, bytes] = field(default_factory=dict)
    failure: str | None = None
    signature: str | None = None
    telemetry: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """What a node is checked against before its first cell; see ``sweep/preflight``.

    ``driver_software`` and ``sweep_hash`` are the driver's, and ``sent_at`` its ``time.time()``;
    None if it tells none. ``threads`` are those of every rank, None where cells differ in them.
    ``gpus_are_leased``: somebody works on the node's GPUs, so that nothing is asked of them.
    """

    shape: NodeShape
    datasets: Sequence[RequiredDataset]
    trainer_hash: str
    lockfile_hash: str | None
    checkpoint_folder: str | None
    timed: bool
    driver_software: Software | None = None
    sweep_hash: str | None = None
    sent_at: float | None = None
    threads: int | None = None
    gpus_are_leased: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareResult:
    """Whether a node may run cells: the reason why not, and what it was warned of."""

    refusal: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a check found on one node; plain, so that an agent can send it."""

    name: str
    status: Status
    detail: str
    remedy: str
