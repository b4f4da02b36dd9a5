"""Load a sweep file: what varies, on which nodes it may run, and what it is compared with.

A sweep file is strict TOML under ``configs/sweeps/``: an unknown key is an error.
"""

from collections.abc import Sequence
from itertools import product
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from trainer.activations import ACTIVATIONS, Value, check_activation
from trainer.budget import parse_budget
from trainer.config.config_errors import ConfigError, StrictModel, find_config, read_toml, validated
from trainer.contract import ActivationSpec, Seed

SWEEPS = Path(__file__).resolve().parents[2] / "configs" / "sweeps"

RECORD_SOURCE = "the README of openai/parameter-golf, commit 013fc0c, read 29 November 2026"

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(gt=0.0)]


class NodeShape(StrictModel):
    """What one lease is: a bundle of one node. Ranks run one to a GPU, or one on CPUs alone.

    ``share``: its weight beside other sweeps on the same cluster (docs/clusters.md); a large one,
    such as 1000, is a priority. With ``autoscale`` the driver asks for ``max_leases`` even if the
    nodes have no room for them now: a cluster that grows on demand then does. Its nodes also go, so
    checkpoints are kept beside the results, if the file does not say where.
    """

    gpus: Annotated[int, Field(ge=0)] = 0
    cpus: Positive = 1
    gpu_model: str | None = None
    max_leases: Positive | None = None
    share: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 1.0
    autoscale: bool = False

    @model_validator(mode="after")
    def _autoscale_has_a_limit(self) -> "NodeShape":
        if self.autoscale and self.max_leases is None:
            raise ValueError("autoscale = true needs max_leases: how many nodes it may grow to.")
        return self

    @property
    def ranks(self) -> int:
        return max(1, self.gpus)

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        return "cuda" if self.gpus else "cpu"


class Limits(StrictModel):
    """How long the driver and its agents are patient, in seconds.

    With a rank that says nothing (``no_progress_s``; ``slow_phase_s`` in phases that cannot say
    anything for long, such as compiling), with a whole attempt (``attempt_s``; by default ten times
    what it is expected to take, and an hour at least), with running cells when a scheduler has
    announced the end of the job, and with a store that fails (``grace_s``), with a
    cluster that grants no lease while nothing runs (``lease_wait_s``; half of it for a node that
    a retry had rather avoid), with a node that is made ready (``prepare_s``), with an agent that
    does not answer (``agent_silence_s``, shorter than Ray's 63 s), and an agent with a driver that
    does not ask (``driver_silence_s``).
    """

    no_progress_s: Seconds = 60.0
    slow_phase_s: Seconds = 900.0
    attempt_s: Seconds | None = None
    grace_s: Seconds = 120.0
    lease_wait_s: Seconds = 3600.0
    prepare_s: Seconds = 7200.0
    agent_silence_s: Seconds = 30.0
    driver_silence_s: Seconds = 60.0

    @model_validator(mode="after")
    def _drivers_are_the_first_to_give_up(self) -> "Limits":
        if self.agent_silence_s >= self.driver_silence_s:
            raise ValueError(
                f"agent_silence_s = {self.agent_silence_s:g} is not below driver_silence_s = "
                f"{self.driver_silence_s:g}: a driver has to give an agent up before that ends."
            )
        return self


class Retries(StrictModel):
    """How often a cell is tried again after a failure of each class; when to quarantine a node.

    ``cell``: after an error of its own, which is final when it comes alike on two nodes;
    ``memory``: out of memory; ``infrastructure``: node lost, communication fault; ``hang``;
    ``tainted``: timing disturbed. ``strikes``: ends without an answer on a node, by different cells
    and without a success between them, after which it gets no more; ``strike_age_s``: for how long
    they count, in seconds. ``alike``: different cells that fail alike, before any has succeeded,
    after which the sweep pauses.
    """

    cell: Count = 1
    memory: Count = 1
    infrastructure: Count = 8
    hang: Count = 1
    tainted: Count = 1
    strikes: Positive = 3
    strike_age_s: Seconds = 86400.0
    alike: Positive = 3


class Checkpoints(StrictModel):
    """Where a cell of fixed steps keeps what it needs to be resumed, and how often, in seconds.

    ``keep = "node"``: on the node's disk, in ``folder`` (default: the system's temporary folder);
    ``"results"``: a copy beside the results too, so that another node can resume (the default with
    ``node.autoscale``); ``"no"``.
    """

    keep: Literal["node", "results", "no"] = "node"
    every_s: Seconds = 240.0
    folder: str | None = None


class Timing(StrictModel):
    """From when on a timed attempt is tainted; fixed before the sweep, blind to the activation.

    ``throttled``, ``foreign``: fraction of readings with a slowed GPU, with a process of others.
    ``probe``: how much slower the probe may be than this node's own median before (and than before
    the cell), as a fraction. ``history``: attempts on a node before its median is used.
    """

    throttled: Annotated[float, Field(ge=0.0, le=1.0)] = 0.01
    foreign: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    probe: Seconds = 0.03
    history: Positive = 3


class RecordRule(StrictModel):
    """What an improvement must be to count as a record: above ``nats`` per token, shown at ``p``.

    By default as the README of https://github.com/openai/parameter-golf says (``RECORD_SOURCE``);
    what is known of its practice is in docs/statistics.md.
    """

    nats: Annotated[float, Field(ge=0.0)] = 0.005
    p: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.01

    @property
    def source(self) -> str:
        """Who says so."""
        return RECORD_SOURCE if self == RECORD_RULE else "the sweep file"


RECORD_RULE = RecordRule()


class EventHook(StrictModel):
    """A command of the shell that is told of each event as JSON (docs/failures.md), and for how
    long it may take."""

    command: Annotated[str, Field(min_length=1)]
    timeout_s: Seconds = 10.0


class DataPlace(StrictModel):
    """Where a node reads its data: where the driver has it, or copied to ``cache`` on its own disk.

    A node that does not have the data is refused, or with ``missing = "fetch"`` brings it there.
    """

    cache: str | None = None
    missing: Literal["refuse", "fetch"] = "refuse"


class GridAxes(StrictModel):
    """Recipe values that vary, by the names that ``--set`` takes."""

    set: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(default_factory=dict)


class Until(StrictModel):
    """Run seed after seed, in their order, and stop when it is known which activation is best.

    ``zone``: the difference in BPB that matters; who is not better by it is dropped (docs/
    statistics.md), after ``min_seeds`` at the earliest. ``seeds``: at most so many of those listed;
    ``node_hours``: no seed is begun that would take all attempts past it.
    """

    zone: Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
    confidence: Annotated[float, Field(ge=0.5, lt=1.0)] = 0.95
    min_seeds: Annotated[int, Field(ge=2)] = 2
    seeds: Annotated[int, Field(ge=2)] | None = None
    node_hours: Annotated[float, Field(gt=0.0)] | None = None


class SweepSpec(StrictModel):
    """One sweep file. ``estimate_cell_s`` serves the plan until a cell has been measured.

    ``screened_in``: name of the sweep whose leaders this one tries again, under fresh seeds.
    """

    name: str
    recipe: str
    activations: Annotated[list[dict[str, Any]], Field(min_length=1)]
    seeds: Annotated[list[Seed], Field(min_length=1)]
    budgets: Annotated[list[str], Field(min_length=1)]
    reference: str
    screened_in: str | None = None
    replicates: Positive = 1
    order_seed: int = 0
    pairing: Literal["seed", "node"] = "seed"
    dtype: Literal["float32", "bfloat16"] | None = None
    log_every: Positive = 10
    keep_artifacts: bool = True
    tensorboard: bool = False
    wandb: bool = False
    mlflow: bool = False
    events: EventHook | None = None
    estimate_cell_s: Seconds
    node: NodeShape = NodeShape()
    limits: Limits = Limits()
    retries: Retries = Retries()
    checkpoints: Checkpoints = Checkpoints()
    timing: Timing = Timing()
    record_rule: RecordRule = RECORD_RULE
    data: DataPlace = DataPlace()
    grid: GridAxes = GridAxes()
    until: Until | None = None

    @field_validator("budgets")
    @classmethod
    def _one_spelling(cls, budgets: list[str]) -> list[str]:
        return [str(parse_budget(budget)) for budget in budgets]

    @field_validator("seeds", "budgets")
    @classmethod
    def _distinct(cls, values: list[Any]) -> list[Any]:
        repeated = sorted({value for value in values if values.count(value) > 1})
        if repeated:
            raise ValueError(
                f"{repeated} stands there more than once; replicates = N repeats cells."
            )
        return values

    @model_validator(mode="after")
    def _means_something(self) -> "SweepSpec":
        labels = [activation.label for activation in self.expanded_activations()]
        repeated = sorted({label for label in labels if labels.count(label) > 1})
        if repeated:
            raise ValueError(f"activations: {', '.join(repeated)} stands there more than once.")
        if self.screened_in == self.name:
            raise ValueError(f"screened_in = {self.name!r}: a sweep is no second stage of itself.")
        if self.until is not None:
            _check_one_question(self, self.until, len(labels))
        if self.reference not in labels:
            raise ValueError(
                f"reference {self.reference!r} is not among the activations: {', '.join(labels)}."
            )
        return self

    def expanded_activations(self) -> list[ActivationSpec]:
        """Every activation of the sweep, each list of a parameter's values multiplied out."""
        return [spec for entry in self.activations for spec in _expand_activation(entry)]

    @property
    def resolved_dtype(self) -> Literal["float32", "bfloat16"]:
        return self.dtype or ("bfloat16" if self.node.device == "cuda" else "float32")


def load_sweep(
    name_or_path: str, *, zone: float | None = None, autoscale: int | None = None
) -> SweepSpec:
    """The sweep of that name or file; a ConfigError says what is wrong with it.

    Whatever the file has there, ``zone`` is that of [until], and ``autoscale`` the most leases
    that a cluster that grows on demand is asked for.
    """
    path = find_config(name_or_path, SWEEPS, "sweep")
    sweep = _read(path, zone, autoscale)
    _check_fresh_seeds(sweep, screenings(sweep, path.parent))
    return sweep


def screenings(sweep: SweepSpec, folder: Path) -> list[SweepSpec]:
    """The sweep that ``sweep`` is a second stage of, the one before that, and so on.

    As far as their files are found, in ``folder`` or under ``configs/sweeps/``.
    """
    found = [sweep]
    while (name := found[-1].screened_in) is not None and name not in [s.name for s in found]:
        places = [place / f"{name}.toml" for place in (folder, SWEEPS)]
        path = next((path for path in places if path.is_file()), None)
        if path is None:
            break
        found.append(_read(path))
    return found[1:]


def _read(path: Path, zone: float | None = None, autoscale: int | None = None) -> SweepSpec:
    table = read_toml(path)
    if zone is not None:
        table["until"] = {**table.get("until", {}), "zone": zone}
    if autoscale is not None:
        table["node"] = {**table.get("node", {}), "autoscale": True, "max_leases": autoscale}
    if table.get("node", {}).get("autoscale") is True:
        table["checkpoints"] = {"keep": "results", **table.get("checkpoints", {})}
    if "name" in table:
        raise ConfigError(f"sweep {path.stem}: name: a sweep is called as its file is.")
    return validated(SweepSpec, {"name": path.stem, **table}, f"sweep {path.stem}")


def _check_one_question(sweep: SweepSpec, until: Until, num_activations: int) -> None:
    points = [len(values) for values in sweep.grid.set.values()]
    several = {"budgets": len(sweep.budgets), "replicates": sweep.replicates}
    several |= {"points of [grid.set]": prod(points)}
    many = [f"{number} {what}" for what, number in several.items() if number > 1]
    if many:
        raise ValueError(
            f"[until] stops when one question is answered; {' and '.join(many)} ask several. Leave "
            f"one of each, or make sweeps of them."
        )
    num_seeds = len(sweep.seeds[: until.seeds])
    if num_activations < 2 or num_seeds < until.min_seeds:
        raise ValueError(
            f"[until] chooses among activations, after {until.min_seeds} seeds at the earliest "
            f"(min_seeds). Listed are {num_activations} activations and {num_seeds} seeds; add to "
            f"them."
        )


def _check_fresh_seeds(sweep: SweepSpec, before: list[SweepSpec]) -> None:
    """Seeds that chose the leaders would flatter them."""
    for screening in before:
        shared = sorted(set(sweep.seeds) & set(screening.seeds))
        if shared:
            raise ConfigError(
                f"sweep {sweep.name}: seeds: {', '.join(map(str, shared))} chose its activations "
                f"already, in {screening.name} (screened_in). A second stage needs fresh seeds: "
                f"take others, or leave screened_in out and let it decide nothing."
            )


def _expand_activation(entry: dict[str, Any]) -> list[ActivationSpec]:
    name = entry.get("name")
    if not isinstance(name, str):
        raise ValueError(f'activations: {entry} has no name; write name = "relu2".')
    axes = {key: _values(name, key, value) for key, value in entry.items() if key != "name"}
    result = []
    for values in product(*axes.values()):
        params = dict(zip(axes, values, strict=True))
        check_activation(name, params)
        result.append(ActivationSpec(name=name, params=params))
    return result


def _values(name: str, key: str, given: Any) -> Sequence[Value]:
    """A list is an axis, unless it is the value of a parameter that each layer has its own of."""
    numbers = _numbers(name, key, given)
    bounds = ACTIVATIONS[name].params.get(key) if name in ACTIVATIONS else None
    return [numbers] if bounds is not None and bounds.per_layer else numbers


def _numbers(name: str, key: str, value: Any) -> list[float]:
    values = value if isinstance(value, list) else [value]
    if not values or not all(
        isinstance(v, int | float) and not isinstance(v, bool) for v in values
    ):
        raise ValueError(f"activations: {name} {key} = {value!r}: a number or a list of numbers.")
    return [float(v) for v in values]
