"""The nodes of a Ray cluster: which are alive, their lasting names, and why a lease is not granted.

Ray is asked on a thread of its own: a head that is gone answers nothing for a minute.
"""

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweep.cluster.awake_clock import AwakeClock
from sweep.cluster.interface import Node, capacity
from sweep.spec.sweep_file import NodeShape

EVERY_S = 1.0
GPU_MODEL = "accelerator_type:"
NODE_LABEL = "activation-sweep-node"


class NodeWatch:
    """Asks once a second, from a thread: ``list_nodes``, which is ``ray.nodes``, for all nodes,
    ``list_leaving`` for the ids of those that are warned of their end."""

    def __init__(
        self,
        list_nodes: Callable[[], Sequence[Mapping[str, Any]]],
        list_leaving: Callable[[], Collection[str]],
        clock: AwakeClock,
    ) -> None:
        self._list_nodes, self._list_leaving, self.clock = list_nodes, list_leaving, clock
        self._names: dict[str, str] = {}
        self._leaving: Collection[str] = ()
        self._closed = threading.Event()
        self.nodes: list[Node] = []
        self._update()
        self._answered_s = self.clock.now_s
        threading.Thread(target=self._run, name="nodes", daemon=True).start()

    @property
    def unresponsive_s(self) -> float:
        """How long ago the head last answered."""
        return self.clock.now_s - self._answered_s

    def name_of(self, node_id: str) -> str | None:
        """The lasting name of a node; None until it has been listed."""
        return self._names.get(node_id)

    def is_leaving(self, node_id: str) -> bool:
        """Whether a node was warned: on SIGTERM Ray drains it for some seconds before it ends."""
        return node_id in self._leaving

    def close(self) -> None:
        self._closed.set()

    def _run(self) -> None:
        while not self._closed.wait(EVERY_S):
            try:
                self._update()
            except Exception:  # whatever is raised: the head has not answered
                continue
            self._answered_s = self.clock.now_s

    def _update(self) -> None:
        found, self._leaving = self._list_nodes(), frozenset(self._list_leaving())
        self._names |= {node["NodeID"]: _lasting_name(node) for node in found}
        staying = (node for node in found if node["NodeID"] not in self._leaving)
        self.nodes = [_node(node) for node in staying if node["Alive"]]


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """What a lease shall be: its shape, on no node of ``avoid``."""

    shape: NodeShape
    driver_silence_s: float
    avoid: frozenset[str]


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


def _node(entry: Mapping[str, Any]) -> Node:
    resources = entry["Resources"]
    models = (key.removeprefix(GPU_MODEL) for key in resources if key.startswith(GPU_MODEL))
    return Node(
        name=_lasting_name(entry),
        cpus=int(resources.get("CPU", 0)),
        gpus=int(resources.get("GPU", 0)),
        gpu_models=frozenset(models),
        id=entry["NodeID"],
    )


def _lasting_name(entry: Mapping[str, Any]) -> str:
    return str(entry.get("Labels", {}).get(NODE_LABEL) or entry["NodeManagerHostname"])
