"""Sweeps and cells for tests, without data on disk."""

from collections.abc import Sequence

from sweep.spec.grid import Cell, DataFound, expand
from sweep.spec.sweep_file import SweepSpec
from trainer.config import load_recipe
from trainer.config.config_errors import validated

DATA = DataFound(folder="/nowhere", corpus_sha256="a" * 64, tokenizer_sha256="b" * 64)


def sweep_spec(**changes: object) -> SweepSpec:
    """A sweep over the tiny recipe: 3 activations, 2 seeds."""
    values = {
        "name": "test",
        "recipe": "tiny",
        "seeds": [1, 2],
        "budgets": ["4steps"],
        "reference": "leaky_relu2-s0.5",
        "estimate_cell_s": 10.0,
        "activations": [
            {"name": "relu2"},
            {"name": "leaky_relu2", "slope": [0.5]},
            {"name": "asqu"},
        ],
        **changes,
    }
    return validated(SweepSpec, values, "test")


def cells_of(sweep: SweepSpec, data: DataFound = DATA) -> list[Cell]:
    """The grid of ``sweep`` with its real recipe and made-up data."""
    return expand(sweep, lambda overrides: load_recipe(sweep.recipe, overrides), lambda _: data)


def names(cells: Sequence[Cell]) -> set[str]:
    return {cell.name for cell in cells}
