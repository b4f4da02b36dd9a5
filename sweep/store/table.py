"""The table of all attempts, and what follows from it: one row per cell, replicates, history."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sweep.store.history import EndedAttempt, selection_key
from sweep.store.schema import SCHEMA, SCHEMA_VERSION, TESTED, VERSION_KEY
from trainer.config.config_errors import ConfigError

Row = Mapping[str, Any]
_OF_ENDED = [
    *("cell_id", "attempt", "state", "tainted", "taint_reason", "reason", "started_at"),
    *("ended_at", "failure", "failure_signature", "node", "trainer_hash", "generation"),
    *("script_sha256", *TESTED),
]
_ORDER = ["order_position", "cell_id", "attempt"]


@dataclass(frozen=True)
class StoredAttempts:
    """Every readable attempt, by cell and number, and a sentence for each file that is not."""

    table: pa.Table
    unreadable: tuple[str, ...]

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        return tuple(self.table.to_pylist())

    def history(self) -> dict[str, list[EndedAttempt]]:
        """What planning needs, by cell id."""
        result: dict[str, list[EndedAttempt]] = defaultdict(list)
        for row in self.table.select(_OF_ENDED).to_pylist():
            result[row["cell_id"]].append(ended_attempt(row))
        return dict(result)

    def cells(self) -> list[dict[str, Any]]:
        """One row per cell, see :func:`select_row`, in the sweep's order."""
        rows: list[dict[str, Any]] = self.cells_table().to_pylist()
        return rows

    def cells_table(self) -> pa.Table:
        """The same as a table: 100,000 rows as dictionaries take a gigabyte."""
        groups = self._by_cell
        chosen = self._take([select_row(rows) for rows in groups])
        column = chosen.column_names.index("num_attempts")
        counts = pa.array([len(rows) for rows in groups], pa.int64())
        return chosen.set_column(column, SCHEMA.field(column), counts)

    def replicates_table(self) -> pa.Table:
        """The successes that are not their cell's row and repeat it: made in its generation.

        Reruns of references, late successes, and tainted ones that ran again. An answer that a
        refresh has replaced came from other code, and repeats nothing.
        """
        repeats: list[Row] = []
        for rows in self._by_cell:
            chosen = select_row(rows)
            repeats += [
                row
                for row in rows
                if row["state"] == "succeeded"
                and row is not chosen
                and (row["generation"] or 0) == (chosen["generation"] or 0)
            ]
        return self._take(repeats)

    @cached_property
    def _by_cell(self) -> tuple[tuple[Row, ...], ...]:
        """What decides which row stands for a cell, and where that row is; cell by cell."""
        names = ["cell_id", "attempt", "state", "tainted", "generation"]
        groups: dict[str, list[Row]] = defaultdict(list)
        for index, row in enumerate(self.table.select(names).to_pylist()):
            groups[row["cell_id"]].append({**row, "index": index})
        return tuple(map(tuple, groups.values()))

    def _take(self, rows: Sequence[Row]) -> pa.Table:
        return self.table.take(pa.array([row["index"] for row in rows], pa.int64()))


def ended_attempt(row: Row) -> EndedAttempt:
    """What planning needs of an attempt's row."""
    return EndedAttempt(
        attempt=row["attempt"],
        state=row["state"],
        tainted=bool(row["tainted"]),
        reason=row["taint_reason"] if row["tainted"] else row["reason"],
        wall_s=(row["ended_at"] - row["started_at"]).total_seconds(),
        failure=row["failure"],
        signature=row["failure_signature"],
        node=row["node"],
        code_hash=row.get("script_sha256") or row["trainer_hash"],
        generation=row["generation"] or 0,
        score=next((row[stage] for stage in TESTED if row.get(stage) is not None), None),
    )


def select_row(rows: Sequence[Row]) -> Row:
    """The row that stands for a cell, see :func:`sweep.store.history.selection_key`."""
    return min(
        rows,
        key=lambda row: selection_key(
            row["state"],
            tainted=bool(row["tainted"]),
            generation=row.get("generation") or 0,
            attempt=row["attempt"],
        ),
    )


def to_parquet(rows: Sequence[Row]) -> bytes:
    """``rows`` in the declared schema; a key that is no column is an error."""
    known = set(SCHEMA.names)
    for row in rows:
        unknown = sorted(set(row) - known)
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: no such column in schema {SCHEMA_VERSION}")
    columns = [[row.get(name) for row in rows] for name in SCHEMA.names]
    arrays = [pa.array(c, type=f.type) for c, f in zip(columns, SCHEMA, strict=True)]
    return table_bytes(pa.Table.from_arrays(arrays, schema=SCHEMA))


def table_bytes(table: pa.Table) -> bytes:
    """``table`` as a Parquet file; the same rows give the same bytes."""
    sink, many = pa.BufferOutputStream(), table.num_rows > 1
    # Neither helps a single row: without them its file has 19 kB instead of 38.
    pq.write_table(table, sink, use_dictionary=many, write_statistics=many)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def read_attempt(data: bytes, stem: str, where: str) -> pa.Table:
    """The row of the attempt ``stem``; pa.ArrowException or ValueError if ``data`` is not that."""
    found = pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
    if VERSION_KEY not in (found.schema.metadata or {}):
        raise ValueError("it was not written by a sweep")
    table = conform(found, where)
    rows = table.select(["cell_id", "attempt"]).to_pylist()
    says = [f"{row['cell_id']}-{row['attempt']}" for row in rows]
    if says != [stem]:
        raise ValueError(f"it holds {', '.join(says) or 'nothing'}")
    return table


def conform(table: pa.Table, where: str) -> pa.Table:
    """``table`` in today's schema: columns added since read as null, a newer version is refused."""
    version = int((table.schema.metadata or {}).get(VERSION_KEY, b"0"))
    if version > SCHEMA_VERSION:
        raise ConfigError(
            f"{where}: written with schema version {version}, this program reads up to "
            f"{SCHEMA_VERSION}. Use the newer program, or another RESULTS= folder."
        )
    if version < SCHEMA_VERSION:
        raise ConfigError(
            f"{where}: schema version {version or 'none'}; this program reads version "
            f"{SCHEMA_VERSION}. It was not written by a sweep; move it away."
        )
    if table.schema.equals(SCHEMA):
        return table
    arrays = [
        table.column(field.name).cast(field.type)
        if field.name in table.schema.names
        else pa.nulls(table.num_rows, field.type)
        for field in SCHEMA
    ]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def joined(tables: Sequence[pa.Table]) -> pa.Table:
    """``tables`` as one, in the sweep's order."""
    whole = pa.concat_tables([SCHEMA.empty_table(), *tables]).combine_chunks()
    return whole.sort_by([(name, "ascending") for name in _ORDER])
