"""Which nodes are alive, and what is each called for good?

Asked on a thread of its own: a head that is gone answers nothing for a minute.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sweep.cluster.awake_clock import AwakeClock
from sweep.cluster.interface import Node

EVERY_S = 1.0
GPU_MODEL = "accelerator_type:"
NODE_LABEL = "activation-sweep-node"


class Census:
    """The answers of ``ask``, which is ``ray.nodes``, once a second from a thread."""

    def __init__(self, ask: Callable[[], Sequence[Mapping[str, Any]]], clock: AwakeClock) -> None:
        self._ask, self._clock = ask, clock
        self._names: dict[str, str] = {}
        self._done = threading.Event()
        self.nodes: list[Node] = []
        self._take()
        self._at_s = self._clock.now_s
        threading.Thread(target=self._repeat, daemon=True).start()

    @property
    def silent_s(self) -> float:
        """How long ago the head last answered."""
        return self._clock.now_s - self._at_s

    def name_of(self, node_id: str) -> str | None:
        """The lasting name of a node; None until it has been counted."""
        return self._names.get(node_id)

    def close(self) -> None:
        self._done.set()

    def _repeat(self) -> None:
        while not self._done.wait(EVERY_S):
            try:
                self._take()
            except Exception:  # whatever is raised: the head has not answered
                continue
            self._at_s = self._clock.now_s

    def _take(self) -> None:
        found = self._ask()
        self._names |= {node["NodeID"]: _lasting_name(node) for node in found}
        self.nodes = [_node(node) for node in found if node["Alive"]]


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
