"""Which cells will a sweep have, named as its rows will be, before any of them has run?"""

import pandas as pd

from analysis.rows.read import with_names
from sweep.driver.attempt_row import identity_columns
from sweep.spec.grid import DataFound, expand
from sweep.spec.sweep_file import SweepSpec
from sweep.store.schema import SCHEMA
from trainer.config import load_recipe

# No column but the cell's id and what it is a hash of depends on the data.
_ANY_DATA = DataFound(folder="", corpus_sha256="0" * 64, tokenizer_sha256="0" * 64)


def grid_cells(spec: SweepSpec) -> pd.DataFrame:
    """One row per cell that ``spec`` asks for, as ``load_cells`` names it; reads no data.

    It has what is known of a cell before it runs (recipe, activation, seed, budget, window, stride,
    key, label, setting, further axes); every other column is null. ``cell_id`` is not the cell's
    own, since that depends on the data.
    """
    cells = expand(
        spec, lambda overrides: load_recipe(spec.recipe, overrides), lambda recipe: _ANY_DATA
    )
    rows = [identity_columns(spec.name, cell) for cell in cells]
    return with_names(pd.DataFrame(rows, columns=SCHEMA.names).assign(cell_id=None))
