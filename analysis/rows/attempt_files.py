"""Load the learning curves and the measures of layers that the attempts behind the rows left.

``curves/<cell_id>-<n>.parquet`` and ``layers/<cell_id>-<n>.parquet``, one file per attempt, from a
folder or a bucket. A file that is not there gives no rows: older trainers measured no layers, and
an attempt that crashed left nothing. One that is there and cannot be read is refused by name.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from analysis.rows.parquet_table import conformed, is_not_finite, parquet_table, to_frame
from sweep.store.files import open_files
from trainer.config.config_errors import ConfigError
from trainer.contract import CURVE_COLUMNS, LAYER_COLUMNS

OF_CELL = ("cell_id", "key", "label", "setting", "seed", "replicate")

_CURVE = pa.schema(
    [(name, pa.int64() if name in ("step", "tokens") else pa.float64()) for name in CURVE_COLUMNS]
)
_LAYER = pa.schema(
    [
        (name, {"layer": pa.int64(), "value": pa.float64()}.get(name, pa.string()))
        for name in LAYER_COLUMNS
    ]
)
_REMEDY = "move it away, and the cell counts as one without it"
_NEVER_NULL = {"curves": ("step",), "layers": ("kind", "name", "measure")}


def load_curves(place: str | Path, cells: pd.DataFrame) -> pd.DataFrame:
    """One row per recorded step of the attempt that counts for each cell: names, CURVE_COLUMNS.

    ``cells`` is what ``load_cells`` returns, or some of it. Losses in nats per token, ``train_s``
    in seconds of the budget. The losses of a diverged cell end in what is no number, as they did.
    """
    return _load(place, cells, "curves", _CURVE)


def load_layers(place: str | Path, cells: pd.DataFrame) -> pd.DataFrame:
    """One row per measure: the cell's names, kind, name, layer, measure, value.

    ``layer`` is null where the thing measured is of no layer, ``value`` where it is not defined.
    """
    return _load(place, cells, "layers", _LAYER)


def _load(place: str | Path, cells: pd.DataFrame, folder: str, schema: pa.Schema) -> pd.DataFrame:
    files = open_files(place)
    names = cells["cell_id"].astype(str) + "-" + cells["attempt"].astype(str) + ".parquet"
    is_here = names.isin(files.names(folder))
    found, paths = cells[is_here], folder + "/" + names[is_here]
    tables = []
    with ThreadPoolExecutor(files.readers) as pool:  # an answer of a service takes its time
        for path, data, state in zip(
            paths, pool.map(files.read, paths), found["state"], strict=True
        ):
            table = _one(data, files.where(path), schema, _NEVER_NULL[folder])
            if folder == "layers" or state == "succeeded":
                _check_finite(table, files.where(path))
            tables.append(table)
    lengths = [table.num_rows for table in tables]
    of_cell = found[list(OF_CELL)].loc[found.index.repeat(lengths)].reset_index(drop=True)
    return of_cell.join(to_frame(pa.concat_tables([schema.empty_table(), *tables])))


def _one(data: bytes, path: str, schema: pa.Schema, never_null: Sequence[str]) -> pa.Table:
    found = parquet_table(data, path, remedy=_REMEDY)
    for name in never_null:
        if name not in found.column_names:
            raise ConfigError(f"{path}: there is no column {name}; {_REMEDY}.")
        if found.column(name).null_count:
            raise ConfigError(f"{path}: column {name} has a row without a value; {_REMEDY}.")
    return conformed(found, schema, path, remedy=_REMEDY)


def _check_finite(table: pa.Table, path: str) -> None:
    for field in table.schema:
        if pa.types.is_floating(field.type):
            row = pc.index(is_not_finite(table.column(field.name)), True).as_py()
            if row >= 0:
                value = table.column(field.name)[row].as_py()
                raise ConfigError(
                    f"{path}: row {row}: {field.name} is {value}, and what is not defined is null;"
                    f" {_REMEDY}."
                )
