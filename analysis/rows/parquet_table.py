"""Read the bytes of a Parquet file into a table, and check that a sweep can have written it.

A file that is torn, foreign or newer than this code is refused by name. What an older file lacks is
null. So is a number that was not measured, and never NaN: a NaN or an infinity in a row is somebody
else's arithmetic, and pandas would drop it from a mean without a word.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sweep.store.schema import SCHEMA, SCHEMA_VERSION, STATES, VERSION_KEY
from trainer.config.config_errors import ConfigError

# An absent integer or flag stays absent; the default conversion would make it a float NaN.
_PANDAS_TYPES: dict[pa.DataType, Any] = {
    pa.int64(): pd.Int64Dtype(),
    pa.bool_(): pd.BooleanDtype(),
}
_REQUIRED = (
    *("cell", "cell_id", "recipe", "activation", "seed", "replicate"),
    *("budget_kind", "budget_value", "state"),
)
_ALLOWED = {"state": STATES, "budget_kind": ("steps", "seconds")}


def read_rows(data: bytes, path: str) -> pd.DataFrame:
    """The rows of a derived file in the columns of the schema.

    ConfigError, naming the cell and the column, where no sweep can have written them.
    """
    found = parquet_table(data, path, remedy="delete it and run `make sweep`")
    _check_version(found.schema.metadata or {}, path)
    table = conformed(
        found,
        SCHEMA,
        path,
        remedy="delete the file and run `make sweep`, which rebuilds it from the attempts",
    )
    _check_rows(table, path)
    return to_frame(table)


def parquet_table(data: bytes, path: str, *, remedy: str) -> pa.Table:
    """What the Parquet file ``data`` holds; ``remedy`` is what to do where it is none."""
    try:
        return pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, ValueError, OSError) as error:
        first = str(error).splitlines()[0] if str(error) else "no reason given"
        raise ConfigError(f"{path} is not a Parquet file ({first}); {remedy}.") from None


def conformed(found: pa.Table, schema: pa.Schema, path: str, *, remedy: str) -> pa.Table:
    """``found`` with the columns of ``schema`` and no others; one that it lacks is null."""
    columns = []
    for field in schema:
        if field.name not in found.column_names:
            columns.append(pa.nulls(found.num_rows, field.type))
            continue
        try:
            columns.append(found.column(field.name).cast(field.type))
        except (pa.ArrowException, KeyError) as error:
            raise ConfigError(
                f"{path}: column {field.name} is not {field.type} ({error}); {remedy}."
            ) from None
    return pa.table(columns, schema=schema)


def is_not_finite(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Which numbers are NaN or infinite; null where there is none."""
    return pc.invert(pc.is_finite(column))


def to_frame(table: pa.Table) -> pd.DataFrame:
    """``table`` in pandas; absent integers and flags stay what they are."""
    frame: pd.DataFrame = table.to_pandas(types_mapper=_PANDAS_TYPES.get)
    return frame


def _check_version(metadata: Mapping[bytes, bytes], path: str) -> None:
    given = metadata.get(VERSION_KEY, b"").decode(errors="replace")
    if not given.isdigit():
        raise ConfigError(
            f"{path} names no schema version, so no sweep wrote it; delete it and run `make sweep`."
        )
    if int(given) > SCHEMA_VERSION:
        raise ConfigError(
            f"{path} has schema version {given}; this code reads up to {SCHEMA_VERSION}."
            " Update the checkout to the revision that ran the sweep, or a later one."
        )


def _check_rows(table: pa.Table, path: str) -> None:
    """Nothing, if every row can be a sweep's; else a ConfigError with the cell and the column."""
    column = table.column
    checks = [(name, column(name).is_null(), "") for name in _REQUIRED]
    checks += [
        (
            name,
            pc.invert(pc.is_in(column(name), value_set=pa.array(allowed))),
            f", none of {', '.join(allowed)}",
        )
        for name, allowed in _ALLOWED.items()
    ]
    checks += [
        (name, is_not_finite(column(name)), ", and what was not measured is null there")
        for name in table.column_names
        if pa.types.is_floating(table.schema.field(name).type)
    ]
    checks += [
        (name, pc.less_equal(column(name), 0.0), ", and no text has so few bits")
        for name in table.column_names
        if name.endswith("_bpb")
    ]
    for name, bad, why in checks:
        row = pc.index(bad, True).as_py()
        if row >= 0:
            given = column(name)[row].as_py()
            raise ConfigError(
                f"{path}: cell {column('cell')[row].as_py() or f'in row {row}'}: {name} is"
                f" {'absent' if given is None else repr(given)}{why}. No sweep writes such a row,"
                " so the file was changed; delete it and run `make sweep`, which rebuilds it from"
                " the attempts."
            )
