"""Choose the sweep where none is named: by the GPUs of the nodes, or the one that ran last."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sweep.cluster.interface import Node
from sweep.environment import Environment, local_gpus
from sweep.store.files import open_files
from sweep.store.store import SWEEP_FILE
from trainer.config.config_errors import ConfigError

NODE_GPUS = 8
CLUSTER_SWEEP, LOCAL_SWEEP = "slopes", "local"


@dataclass(frozen=True, slots=True)
class Choice:
    sweep: str
    why: str


def choose_sweep(environment: Environment, nodes: Callable[[], Sequence[Node]]) -> Choice:
    """``slopes`` where a node has 8 GPUs, else ``local``.

    ``nodes`` is called only where RAY_ADDRESS names a cluster; this machine is looked at directly.
    """
    if environment.ray_address is not None:
        where = f"the Ray cluster at {environment.ray_address}"
        most = max((node.gpus for node in nodes()), default=0)
    else:
        where, most = "this machine", local_gpus()
    if most >= NODE_GPUS:
        return Choice(CLUSTER_SWEEP, f"{where} has a node with {most} GPUs")
    return Choice(LOCAL_SWEEP, f"{where} has no node with {NODE_GPUS} GPUs (the most is {most})")


def latest_sweep(results: str | Path) -> str:
    """The name of the sweep that ran last among ``results``; a ConfigError if none did."""
    files = open_files(results)
    ran = {
        files.modified_at(f"{name}/{SWEEP_FILE}"): name
        for name in files.folders()
        if files.exists(f"{name}/{SWEEP_FILE}")
    }
    if not ran:
        raise ConfigError(f"{files.place}: no sweep has run here yet. `make sweep` runs one.")
    return ran[max(ran)]
