"""Why is a lease not granted? Busy and impossible are told apart, and who holds is named. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweep.cluster.interface import Node, capacity
from sweep.spec.sweep_file import NodeShape


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """``count`` leases of ``shape`` that were asked for, on no node of ``avoid``."""

    shape: NodeShape
    count: int
    avoid: frozenset[str]


def why_waiting(
    request: OpenRequest, nodes: Sequence[Node], groups: Iterable[Mapping[str, Any]]
) -> str:
    """A sentence for people. ``groups`` are the others of Ray's table of placement groups."""
    shape = request.shape
    wanted = f"{shape.gpus} GPUs and {shape.cpus} CPUs" if shape.gpus else f"{shape.cpus} CPUs"
    if shape.gpu_model is not None:
        wanted += f" of model {shape.gpu_model}"
    kept = [node for node in nodes if node.name not in request.avoid]
    fits, _ = capacity(kept, shape)
    if fits == 0:
        have = ", ".join(f"{n.name}: {n.gpus} GPUs, {n.cpus} CPUs" for n in kept) or "no node"
        left_out = f" ({', '.join(sorted(request.avoid))} left out)" if request.avoid else ""
        return f"impossible for now: no node has {wanted}; there are {have}{left_out}"
    holders = _holders(nodes, groups)
    who = "; ".join(f"{node}: {', '.join(names)}" for node, names in sorted(holders.items()))
    return f"busy: {request.count} × {wanted} wanted; held on {who or 'no node by a lease of Ray'}"


def _holders(nodes: Sequence[Node], groups: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    names = {node.id: node.name for node in nodes}
    held: dict[str, Counter[str]] = {}
    for group in groups:
        if group.get("state") != "CREATED":
            continue
        for index, node_id in group["bundles_to_node_id"].items():
            bundle = group["bundles"][index]
            what = (
                f"{bundle['GPU']:g} GPUs" if bundle.get("GPU") else f"{bundle.get('CPU', 0):g} CPUs"
            )
            who = f"{what} by {group['name'] or 'a placement group without a name'}"
            held.setdefault(names.get(node_id, node_id), Counter())[who] += 1
    return {
        node: [who if n == 1 else f"{n} × {who}" for who, n in counts.items()]
        for node, counts in held.items()
    }
