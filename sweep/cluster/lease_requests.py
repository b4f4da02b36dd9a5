"""Requests for leases: what is asked of Ray, and why it is not granted."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from sweep.cluster.interface import Node, capacity
from sweep.spec.sweep_file import NodeShape

GPU_MODEL = "accelerator_type:"  # by which Ray marks a node of a GPU model


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """What a lease shall be: its shape, on no node of ``avoid``."""

    shape: NodeShape
    driver_silence_s: float
    avoid: frozenset[str]


@dataclass(frozen=True, slots=True)
class StartingAgent:
    """A placement group that was asked for, its agent, and the agent's first answer."""

    group: Any
    agent: Any
    introduction: Any


@dataclass(frozen=True, slots=True, eq=False)
class PendingLease:
    """A request, and the agent that starts for it as soon as Ray's head has heard of it."""

    request: LeaseRequest
    agent: "Future[StartingAgent]"

    @property
    def has_failed(self) -> bool:
        return self.agent.done() and self.agent.exception() is not None

    @property
    def starting(self) -> StartingAgent | None:
        return self.agent.result() if self.agent.done() and not self.has_failed else None


def bundle(shape: NodeShape) -> dict[str, float]:
    """What a lease of ``shape`` asks Ray for; Ray marks a node of a GPU model by a resource."""
    wanted: dict[str, float] = {"CPU": shape.cpus}
    if shape.gpus:
        wanted["GPU"] = shape.gpus
    if shape.gpu_model is not None:
        wanted[f"{GPU_MODEL}{shape.gpu_model}"] = 0.001
    return wanted


def pending_reason(
    request: LeaseRequest,
    count: int,
    nodes: Sequence[Node],
    groups: Iterable[Mapping[str, Any]],
) -> str:
    """Why ``count`` leases are not granted, for people.

    Busy and impossible are told apart, and who holds the GPUs is named. ``groups`` are the others
    of Ray's table of placement groups.
    """
    shape, avoid = request.shape, request.avoid
    wanted = f"{shape.gpus} GPUs and {shape.cpus} CPUs" if shape.gpus else f"{shape.cpus} CPUs"
    if shape.gpu_model is not None:
        wanted += f" of model {shape.gpu_model}"
    allowed = [node for node in nodes if node.name not in request.avoid]
    fits, _ = capacity(allowed, shape)
    if fits == 0:
        have = ", ".join(f"{n.name}: {n.gpus} GPUs, {n.cpus} CPUs" for n in allowed) or "no node"
        left_out = f" ({', '.join(sorted(avoid))} left out)" if avoid else ""
        return f"impossible for now: no node has {wanted}; there are {have}{left_out}"
    holders = _holders(nodes, groups)
    who = "; ".join(f"{node}: {', '.join(names)}" for node, names in sorted(holders.items()))
    return f"busy: {count} × {wanted} wanted; held on {who or 'no node by a lease of Ray'}"


def _holders(nodes: Sequence[Node], groups: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """By node, who holds how much of it."""
    names = {node.id: node.name for node in nodes}
    held: dict[str, Counter[str]] = {}
    for group in groups:
        if group.get("state") != "CREATED":
            continue
        for index, node_id in group["bundles_to_node_id"].items():
            bundle = group["bundles"][index]
            gpus, cpus = bundle.get("GPU"), bundle.get("CPU", 0)
            amount = f"{gpus:g} GPUs" if gpus else f"{cpus:g} CPUs"
            who = f"{amount} by {group['name'] or 'a placement group without a name'}"
            held.setdefault(names.get(node_id, node_id), Counter())[who] += 1
    return {
        node: [who if n == 1 else f"{n} × {who}" for who, n in counts.items()]
        for node, counts in held.items()
    }
