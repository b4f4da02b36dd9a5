"""One invocation of the command line: its options, and the sweep, cells, store and nodes meant."""

import shlex
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from rich.console import Console

from sweep.cli.selection import Selection
from sweep.cluster.interface import Node, Pool, capacity
from sweep.driver.display import duration
from sweep.environment import Environment, local_cpus, local_gpus, visible_gpus
from sweep.schedule.plan import Estimate, Plan, estimate
from sweep.spec.grid import AnyRecipe, Cell, DataFound, Overrides, expand, override_points
from sweep.spec.sweep_file import SweepSpec, load_sweep
from sweep.store.files import open_files
from sweep.store.history import History
from sweep.store.store import SWEEP_FILE, Store
from sweep.timing.nvml import Nvml, open_nvml
from trainer.config import data_of
from trainer.config.config_errors import ConfigError
from trainer.contract import canonical_json
from trainer.data.building.corpus import is_stdlib_dataset
from trainer.data.manifest import MANIFEST_FILE, read_manifest
from trainer.script.load import load_any_recipe
from trainer.system.printable import printable

NODE_GPUS = 8
CLUSTER_SWEEP, LOCAL_SWEEP = "slopes", "local"


@dataclass(frozen=True)
class Invocation:
    """The options of one command, and what they lead to.

    ``until``: the zone of [until], whatever the file says; ``autoscale``: the most leases, of
    nodes that come on demand. ``refresh``: stale cells run again. ``join``: help a driver that is
    at work on it already. ``now``, ``leases``: what a driver is asked for. ``needs_data``: a plan
    without its data is an error. ``needs_results_only``: a cluster is not asked which sweep is
    meant.
    """

    environment: Environment
    sweep_name: str | None
    results: str
    data: Path
    console: Console
    connect: Callable[[str | None], Pool]
    selection: Selection = field(default_factory=Selection)
    refresh: bool = False
    until: float | None = None
    autoscale: int | None = None
    join: bool = False
    now: bool = False
    leases: int | None = None
    needs_data: bool = False
    cell: str | None = None
    follow: bool = False
    failed: bool = False
    as_json: bool = False
    script: str | None = None
    name: str | None = None
    force: bool = False
    needs_results_only: bool = False

    @cached_property
    def pool(self) -> Pool:
        """The cluster, connected to on first use."""
        return self.connect(self.environment.ray_address)

    @cached_property
    def sweep_choice(self) -> str:
        """The sweep's name or path; says what it chose where nothing was named."""
        if self.sweep_name is not None:
            return self.sweep_name
        if self.needs_results_only and self.environment.ray_address is not None:
            latest = latest_sweep(self.results)
            self.say(f"Sweep {latest}: the latest that ran here. SWEEP= chooses another.")
            return latest
        sweep, why = choose_sweep(self.environment, self.nodes)
        self.say(f"Sweep {sweep}: {why}. SWEEP= chooses another.")
        return sweep

    @cached_property
    def sweep(self) -> SweepSpec:
        return load_sweep(self.sweep_choice, zone=self.until, autoscale=self.autoscale)

    @cached_property
    def store(self) -> Store:
        """The sweep's results; needs no sweep file, so that they outlive it."""
        return Store.of(self.results, Path(self.sweep_choice).stem)

    def nodes(self) -> Sequence[Node]:
        """The nodes of the cluster; this machine is known without starting Ray."""
        if self.environment.ray_address is not None:
            return self.pool.nodes()
        gpus = local_gpus()
        nvml = open_nvml(visible_gpus()) if gpus else None
        models = nvml.models if isinstance(nvml, Nvml) else frozenset()
        return [Node("this machine", cpus=local_cpus(), gpus=gpus, gpu_models=models)]

    def show(self, text: str) -> None:
        """Text as it comes, with its own ends of lines; a console would change its tabs."""
        print(printable(text), end="", file=self.console.file, flush=True)

    def say(self, text: str) -> None:
        self.console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    def close(self) -> bool:
        """Leave the cluster, if it was entered; see :meth:`sweep.cluster.interface.Pool.close`."""
        return self.pool.close() if "pool" in self.__dict__ else True

    def cells(self, *, needs_data: bool = True) -> list[Cell]:
        """The grid, with its data prepared; a ConfigError says everything that is missing.

        Where data is not needed, no id is final of cells whose data set is not here.
        """
        sweep = self.sweep
        prepared: dict[tuple[str, int], DataFound | None] = {}
        for overrides in override_points(sweep):
            recipe = load_any_recipe(sweep.recipe, overrides)
            key = _data_key(recipe)
            if key not in prepared:
                here = needs_data or self._has_data(recipe.data.dataset)
                prepared[key] = self._prepare(recipe, overrides) if here else None
        return expand(
            sweep,
            lambda overrides: load_any_recipe(sweep.recipe, overrides),
            lambda recipe: prepared[_data_key(recipe)],
        )

    def estimate(self, todo: Plan, history: History) -> Estimate:
        """How long ``todo`` takes on the nodes that are there."""
        leases, nodes = self.usable_leases(len(todo.todo))
        return estimate(
            todo,
            history,
            guess_cell_s=self.sweep.estimate_cell_s,
            leases=leases,
            nodes=nodes,
        )

    def usable_leases(self, num_cells: int | None = None) -> tuple[int, int]:
        """(leases that this sweep would use for so many cells, nodes that they stand on)."""
        leases, nodes = capacity(self.nodes(), self.sweep.node)
        limits = (num_cells, self.sweep.node.max_leases)
        used = min([leases, *(limit for limit in limits if limit is not None)])
        return used, min(nodes, used)

    def lease_limit(self, quarantined: frozenset[str], max_leases: int | None) -> int:
        """How many leases may be held now on other nodes than these; nodes come and go.

        ``max_leases``: instead of the sweep file's.
        """
        shape = self.sweep.node
        if max_leases is not None:
            shape = shape.model_copy(update={"max_leases": max_leases})
        nodes = [node for node in self.pool.nodes() if node.name not in quarantined]
        fitting, _ = capacity(nodes, shape)
        if shape.max_leases is None:
            return fitting
        return shape.max_leases if shape.autoscale else min(fitting, shape.max_leases)

    def plan_sentence(self, todo: Plan, cost: Estimate, *, unsure: bool = False) -> str:
        """``36 cells to run, 0 settled, on 2 leases of 1 node: about 6.0 min, 0.1 node-hours``.

        ``unsure``: of what is to run, some may be settled.
        """
        unneeded = f", {len(todo.unneeded)} are not needed" if todo.unneeded else ""
        if not todo.todo:
            settled = f"{len(todo.settled)} cells are settled"
            return f"sweep {self.sweep.name}: nothing to run, {settled}{unneeded}."
        most, least = ("at most ", "at least ") if unsure else ("", "")
        cells = f"{most}{len(todo.todo)} cells to run"
        cells += f", then at most {len(todo.later)}" if todo.later else ""
        cells += f", {least}{len(todo.settled)} settled{unneeded}"
        hours = f"{cost.node_hours:,.0f}" if cost.node_hours >= 10 else f"{cost.node_hours:.2g}"
        basis = "measured" if cost.measured else "a guess until one has been measured"
        each = f"({duration(cost.cell_s)} a cell, {basis})"
        if cost.wall_s is None:
            return (
                f"sweep {self.sweep.name}: {cells}: about {hours} node-hours at one cell a node "
                f"{each}. {self._no_lease_yet()}"
            )
        leases, nodes = self.usable_leases(len(todo.todo))
        return (
            f"sweep {self.sweep.name}: {cells}, on {_count(leases, 'lease')} of "
            f"{_count(nodes, 'node')}: about {duration(cost.wall_s)}, {hours} node-hours {each}."
        )

    def require_usable_lease(self) -> None:
        """A ConfigError where no node fits, and none can be hoped for."""
        if not self.sweep.node.autoscale and self.usable_leases()[0] == 0:
            raise ConfigError(f"sweep {self.sweep.name}: {self._no_lease_yet()}")

    def _no_lease_yet(self) -> str:
        """Why no lease fits, and what may help."""
        shape = self.sweep.node
        if shape.autoscale and shape.max_leases is not None:
            asked = _count(shape.max_leases, "lease")
            return f"No node fits yet; up to {asked} are asked for."
        model = [shape.gpu_model] if shape.gpu_model else []
        have = [f"{n.name} has {_resources(n.cpus, n.gpus, n.gpu_models)}" for n in self.nodes()]
        return (
            f"A lease takes {_resources(shape.cpus, shape.gpus, model)} of one node, and "
            f"{', '.join(have) or 'there is no node'}. Connect to a cluster with RAY_ADDRESS=, or "
            f"change [node] in the sweep file."
        )

    def data_command(self, overrides: Overrides) -> str:
        """What a person types to get the data that the recipe reads under ``overrides``."""
        if data_of(self.sweep.recipe, overrides) != data_of(self.sweep.recipe):
            return shlex.join([".venv/bin/python", *self._preparing(overrides)])
        root = [] if self.data == Path("data") else [f"DATA={self.data}"]
        return shlex.join(["make", "data", f"RECIPE={self.sweep.recipe}", *root])

    def _has_data(self, dataset: str) -> bool:
        """Whether the data set is here, or can be built from what is."""
        return is_stdlib_dataset(dataset) or (self.data / dataset / MANIFEST_FILE).exists()

    def _preparing(self, overrides: Overrides) -> list[str]:
        changed = [f"--set={key}={canonical_json(value)}" for key, value in overrides.items()]
        where = ["--recipe", self.sweep.recipe, "--root", str(self.data)]
        return ["-m", "trainer.data", "prepare", *where, *changed]

    def _prepare(self, recipe: AnyRecipe, overrides: Overrides) -> DataFound:
        # 16 GB are fetched by who asks for them
        command = [sys.executable, *self._preparing(overrides), "--offline"]
        self.console.file.flush()
        done = subprocess.run(command, stdout=sys.stderr)
        if done.returncode != 0:
            raise ConfigError(
                f"sweep {self.sweep.name} needs the dataset {recipe.data.dataset!r}, and it could "
                f"not be prepared (see above). `{self.data_command(overrides)}` tries again."
            )
        folder = (self.data / recipe.data.dataset).resolve()
        manifest = read_manifest(folder)
        return DataFound(
            folder=str(folder),
            corpus_sha256=manifest.corpus_sha256,
            tokenizer_sha256=manifest.tokenizer_sha256,
        )


def choose_sweep(environment: Environment, nodes: Callable[[], Sequence[Node]]) -> tuple[str, str]:
    """``slopes`` where a node has 8 GPUs, else ``local``; and why.

    ``nodes`` is called only where RAY_ADDRESS names a cluster; this machine is looked at directly.
    """
    if environment.ray_address is not None:
        where = f"the Ray cluster at {environment.ray_address}"
        most = max((node.gpus for node in nodes()), default=0)
    else:
        where, most = "this machine", local_gpus()
    if most >= NODE_GPUS:
        return CLUSTER_SWEEP, f"{where} has a node with {most} GPUs"
    return LOCAL_SWEEP, f"{where} has no node with {NODE_GPUS} GPUs (the most is {most})"


def latest_sweep(results: str) -> str:
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


def _resources(cpus: int, gpus: int, models: Collection[str]) -> str:
    """``8 GPUs (H100) and 64 CPUs``."""
    model = f" ({', '.join(sorted(models))})" if models else ""
    return f"{_count(gpus, 'GPU')}{model} and " * (gpus > 0) + _count(cpus, "CPU")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _data_key(recipe: AnyRecipe) -> tuple[str, int]:
    return recipe.data.dataset, recipe.vocab_size
