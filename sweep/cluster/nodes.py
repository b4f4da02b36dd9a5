"""The nodes of a Ray cluster: which are alive, and their lasting names.

Ray is asked on a thread of its own: a head that is gone answers nothing for a minute.
"""

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from sweep.cluster.awake_clock import AwakeClock
from sweep.cluster.interface import Node
from sweep.cluster.lease_requests import GPU_MODEL

EVERY_S = 1.0
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
