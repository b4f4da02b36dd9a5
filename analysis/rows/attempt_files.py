"""Load the learning curves and the measures of layers that the attempts behind the rows left.

``curves/<cell_id>-<n>.parquet`` and ``layers/<cell_id>-<n>.parquet``, one file per attempt, from a
folder or a bucket. A file that is not there gives no rows: older trainers measured no layers, and
an attempt that crashed left nothing. One that is there and cannot be read is refused by name.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pyarrow as pa

from analysis.rows.parquet_table import conformed, not_finite, parquet_table, to_frame
from sweep.store.files import Files, open_files
from trainer.config.config_errors import ConfigError
from trainer.contract import CURVE_COLUMNS, LAYER_COLUMNS

CURVES_FOLDER = "curves"
LAYERS_FOLDER = "layers"
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
_NEVER_NULL = {CURVES_FOLDER: ("step",), LAYERS_FOLDER: ("kind", "name", "measure")}


def load_curves(place: str | Path, cells: pd.DataFrame) -> pd.DataFrame:
    """One row per recorded step of each cell's believed attempt: its names and CURVE_COLUMNS.

    ``cells`` is what ``load_cells`` returns, or some of it. Losses in nats per token, ``train_s``
    in seconds of the budget. The losses of a diverged cell end in what is no number, as they did.
    """
    return _load(place, cells, CURVES_FOLDER, _CURVE)


def load_layers(place: str | Path, cells: pd.DataFrame) -> pd.DataFrame:
    """One row per measure: the cell's names, kind, name, layer, measure, value.

    ``layer`` is null where the thing measured is of no layer, ``value`` where it is not defined.
    """
    return _load(place, cells, LAYERS_FOLDER, _LAYER)


def _load(place: str | Path, cells: pd.DataFrame, folder: str, schema: pa.Schema) -> pd.DataFrame:
    files = open_files(place)
    here = set(files.names(folder))
    names = cells["cell_id"].astype(str) + "-" + cells["attempt"].astype(str) + ".parquet"
    found = cells[names.isin(here)]
    paths = [f"{folder}/{name}" for name in names[names.isin(here)]]
    tables = []
    for path, data, state in zip(paths, _read(files, paths), found["state"], strict=True):
        is_measured = state == "succeeded" or folder != CURVES_FOLDER
        table = _one(data, files.where(path), schema, _NEVER_NULL[folder])
        if is_measured:
            _check_finite(table, files.where(path))
        tables.append(table)
    lengths = [table.num_rows for table in tables]
    of_cell = found[list(OF_CELL)].loc[found.index.repeat(lengths)].reset_index(drop=True)
    return of_cell.join(to_frame(pa.concat_tables([schema.empty_table(), *tables])))


def _read(files: Files, paths: Sequence[str]) -> Iterator[bytes]:
    """The files in order; many at a time from a service, where each answer takes its time."""
    if files.readers == 1 or len(paths) < 2:
        yield from map(_existing(files), paths)
        return
    with ThreadPoolExecutor(files.readers) as pool:
        yield from pool.map(_existing(files), paths)


def _existing(files: Files) -> Callable[[str], bytes]:
    def read(path: str) -> bytes:
        try:
            return files.read(path)
        except FileNotFoundError:
            raise ConfigError(f"{files.where(path)} went away while it was read.") from None

    return read


def _one(data: bytes, path: str, schema: pa.Schema, never_null: Sequence[str]) -> pa.Table:
    found = parquet_table(data, path, remedy=_REMEDY)
    lacking = [name for name in never_null if name not in found.column_names]
    if lacking:
        raise ConfigError(f"{path}: there is no column {', '.join(lacking)}; {_REMEDY}.")
    table = conformed(found, schema, path, remedy=_REMEDY)
    for name in never_null:
        if table.column(name).null_count:
            raise ConfigError(f"{path}: column {name} has a row without a value; {_REMEDY}.")
    return table


def _check_finite(table: pa.Table, path: str) -> None:
    bad = not_finite(table)
    if bad is not None:
        row, name, value = bad
        raise ConfigError(
            f"{path}: row {row}: {name} is {value}, and what is not defined is null; {_REMEDY}."
        )
