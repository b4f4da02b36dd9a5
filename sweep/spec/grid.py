"""Expand a sweep into its cells: their names, ids, blocks and order of execution.

Pure: the same sweep, recipe and data give the same cells. A cell's id is a hash of what changes its
answer and of nothing else: no path, host, revision or retry is in it.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

from sweep.spec.script_cells import check_script_cells
from sweep.spec.sweep_file import SweepSpec
from trainer.activations import of_layer
from trainer.config import Recipe, ScriptRecipe
from trainer.config.config_errors import ConfigError, validated
from trainer.contract import (
    ActivationSpec,
    RunSpec,
    ScriptSpec,
    canonical_json,
    short_hash,
    spec_values,
)
from trainer.script.patching import render

Overrides = Mapping[str, Any]
AnyRecipe = Recipe | ScriptRecipe
NOT_IDENTITY = ("recipe_name", "data_dir", "threads", "log_every")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFound:
    """The data of one recipe: where it lies here, and what it is."""

    folder: str
    corpus_sha256: str
    tokenizer_sha256: str


_NOT_FOUND = DataFound(folder="", corpus_sha256="0" * 64, tokenizer_sha256="0" * 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One question of a sweep. ``script_sha256`` is of the files that run, None for our trainer.

    Where its data was not found, ``id_is_final`` is False: nothing is kept under its ``id``, which
    tells it from the other cells and is shown to nobody.
    """

    name: str
    id: str
    spec: RunSpec | ScriptSpec
    overrides: Overrides
    block: str
    order_position: int
    script_sha256: str | None = None
    id_is_final: bool = True

    @property
    def slope(self) -> float | None:
        activation = self.spec.activation
        return of_layer(activation.params, 0)["slope"] if activation.name == "leaky_relu2" else None

    @property
    def neg_beta(self) -> float | None:
        return self.spec.neg_beta

    def code_hash(self, trainer_hash: str | None) -> str | None:
        """The hash of the code that answers it: of its script, or of the trainer."""
        return self.script_sha256 or trainer_hash


def expand(
    sweep: SweepSpec,
    resolve: Callable[[Overrides], AnyRecipe],
    find_data: Callable[[AnyRecipe], DataFound | None],
) -> list[Cell]:
    """Every cell of ``sweep`` in its order of execution; no id is final where data was not found.

    A block is one seed under one budget (and one point of the further axes): all activations,
    shuffled by the sweep's ``order_seed``. Blocks follow one another, so that what is compared runs
    close together in time.
    """
    cells: list[Cell] = []
    for overrides in override_points(sweep):
        recipe = resolve(overrides)
        found = find_data(recipe)
        data = found or _NOT_FOUND
        for budget, seed, replicate in product(sweep.budgets, sweep.seeds, range(sweep.replicates)):
            block = f"seed{seed}__{budget}{_suffix(sweep, overrides, replicate)}"
            spec_of = partial(
                _spec,
                sweep,
                recipe,
                overrides,
                seed=seed,
                budget=budget,
                replicate=replicate,
                data_dir=data.folder,
                corpus_sha256=data.corpus_sha256,
                tokenizer_sha256=data.tokenizer_sha256,
            )
            members = []
            for activation in sweep.expanded_activations():
                spec = spec_of(activation)
                members.append(
                    Cell(
                        name=f"{activation.label}__{block}",
                        id=short_hash(identity(spec, sweep.node.gpus, sweep.node.gpu_model)),
                        spec=spec,
                        overrides=overrides,
                        block=block,
                        order_position=0,
                        script_sha256=render(spec).sha256 if isinstance(spec, ScriptSpec) else None,
                        id_is_final=found is not None,
                    )
                )
            random.Random(f"{sweep.order_seed}:{block}").shuffle(members)
            cells += members
    ordered = [replace(cell, order_position=i) for i, cell in enumerate(cells)]
    _check_distinct(ordered)
    check_script_cells({c.name: c.spec for c in ordered if isinstance(c.spec, ScriptSpec)}, sweep)
    return ordered


def override_points(sweep: SweepSpec) -> list[dict[str, Any]]:
    """Every combination of the values in ``[grid.set]``; one empty combination if there is none."""
    axes = sweep.grid.set
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


def identity(spec: RunSpec | ScriptSpec, gpus: int, gpu_model: str | None) -> dict[str, Any]:
    """What a cell's id is a hash of. Timed cells answer for one number and model of GPUs.

    An option that is absent is not hashed, so that a new option changes no id of old.
    """
    values = spec_values(spec, *NOT_IDENTITY)
    if spec.parsed_budget.kind == "seconds":
        values["gpus"], values["gpu_model"] = gpus, gpu_model
    return values


def _spec(
    sweep: SweepSpec,
    recipe: AnyRecipe,
    overrides: Overrides,
    activation: ActivationSpec,
    **question: Any,
) -> RunSpec | ScriptSpec:
    shared = {
        "recipe_name": sweep.recipe.removesuffix(".toml").rpartition("/")[2],
        "recipe": recipe,
        "activation": activation,
        "device": sweep.node.device,
        "threads": max(1, sweep.node.cpus // sweep.node.ranks),
        **question,
    }
    if isinstance(recipe, ScriptRecipe):
        axes = {key: value for key, value in overrides.items() if "." not in key}
        shared |= {"axes": axes, "ranks": sweep.node.ranks}
        return validated(ScriptSpec, shared, f"sweep {sweep.name}")
    shared |= {"dtype": sweep.resolved_dtype, "log_every": sweep.log_every}
    return validated(RunSpec, shared, f"sweep {sweep.name}")


def _suffix(sweep: SweepSpec, overrides: Overrides, replicate: int) -> str:
    leaves = [key.rpartition(".")[2] for key in overrides]
    parts = [
        (leaf if leaves.count(leaf) == 1 else key) + canonical_json(value).strip('"')
        for leaf, (key, value) in zip(leaves, overrides.items(), strict=True)
    ]
    if sweep.replicates > 1:
        parts.append(f"rep{replicate}")
    return "".join(f"__{part}" for part in parts).replace("/", "-").replace(" ", "")


def _check_distinct(cells: Sequence[Cell]) -> None:
    seen: dict[str, str] = {}
    for cell in cells:
        if cell.id in seen:
            raise ConfigError(
                f"cells {seen[cell.id]} and {cell.name} ask the same question: "
                f"a value of [grid.set] stands there more than once."
            )
        seen[cell.id] = cell.name
