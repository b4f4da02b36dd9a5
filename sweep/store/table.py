"""The table of all attempts, and what follows from it: one row per cell, replicates, history."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sweep.store.history import (
    AttemptKey,
    EndedAttempt,
    preemptions,
    select_attempt,
    void_divergences,
    with_void,
)
from sweep.store.schema import SCHEMA, SCHEMA_VERSION, TESTED, VERSION_KEY
from trainer.config.config_errors import ConfigError

Row = Mapping[str, Any]
_OF_ENDED = [
    *("cell_id", "attempt", "state", "tainted", "taint_reason", "reason", "started_at"),
    *("ended_at", "failure", "failure_signature", "node", "trainer_hash", "generation"),
    *("budget_kind", "to_confirm"),
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

    def history(self) -> Mapping[str, Sequence[EndedAttempt]]:
        """What planning needs, by cell id."""
        return self._history

    def cells(self) -> list[dict[str, Any]]:
        """One row per cell, see :func:`sweep.store.history.selection_key`, in the sweep's order."""
        rows: list[dict[str, Any]] = self.cells_table().to_pylist()
        return rows

    def cells_table(self) -> pa.Table:
        """The same as a table: 100,000 rows as dictionaries take a gigabyte."""
        chosen = {cell: select_attempt(attempts) for cell, attempts in self._history.items()}
        table = self._take(list(chosen.items()))
        said = zip(table["reason"].to_pylist(), chosen.items(), strict=True)
        reasons = [_with_others(why, ended, self._history[cell]) for why, (cell, ended) in said]
        counts = [len(attempts) for attempts in self._history.values()]
        for name, values in {"reason": reasons, "num_attempts": counts}.items():
            column = SCHEMA.get_field_index(name)
            table = table.set_column(
                column, SCHEMA.field(column), pa.array(values, SCHEMA.field(column).type)
            )
        return table

    def replicates_table(self) -> pa.Table:
        """The successes that are not their cell's row and repeat it: made in its generation.

        Reruns of references, late successes, and tainted ones that ran again. An answer that a
        refresh has replaced came from other code, and repeats nothing; nor does one that a
        divergence stands against.
        """
        repeats: list[tuple[str, EndedAttempt]] = []
        for cell, attempts in self._history.items():
            chosen = select_attempt(attempts)
            repeats += [
                (cell, ended)
                for ended in attempts
                if ended.state == chosen.state == "succeeded"
                and ended is not chosen
                and ended.generation == chosen.generation
            ]
        return self._take(repeats)

    @cached_property
    def _history(self) -> Mapping[str, Sequence[EndedAttempt]]:
        found: dict[str, list[EndedAttempt]] = defaultdict(list)
        for row in self.table.select(_OF_ENDED).to_pylist():
            found[row["cell_id"]].append(ended_attempt(row))
        return with_void(found, void_divergences(found))

    @cached_property
    def _places(self) -> Mapping[AttemptKey, int]:
        """Where in the table an attempt is."""
        cells, numbers = (self.table[name].to_pylist() for name in ("cell_id", "attempt"))
        return {key: place for place, key in enumerate(zip(cells, numbers, strict=True))}

    def _take(self, attempts: Sequence[tuple[str, EndedAttempt]]) -> pa.Table:
        places = [self._places[cell, ended.attempt] for cell, ended in attempts]
        return self.table.take(pa.array(places, pa.int64()))


def _with_others(
    reason: str | None, chosen: EndedAttempt, attempts: Sequence[EndedAttempt]
) -> str | None:
    """``reason``, and what others tell: a success where the cell diverged, or many preemptions."""
    if chosen.state == "succeeded":
        return reason
    often = preemptions(attempts) if not chosen.is_answer else None
    others = [e for e in attempts if e.is_success and e.generation == chosen.generation]
    told = [f"attempt {e.attempt} on {e.node} succeeded, which changes nothing" for e in others[:1]]
    return "; ".join(part for part in (reason, often, *told) if part) or None


def ended_attempt(row: Row) -> EndedAttempt:
    """What planning needs of an attempt's row."""
    return EndedAttempt(
        attempt=row["attempt"],
        state=row["state"],
        tainted=bool(row["tainted"]),
        reason=row["taint_reason"] if row["tainted"] else row["reason"],
        wall_s=(row["ended_at"] - row["started_at"]).total_seconds(),
        ended_at_s=row["ended_at"].timestamp(),
        failure=row["failure"],
        signature=row["failure_signature"],
        node=row["node"],
        code_hash=row.get("script_sha256") or row["trainer_hash"],
        generation=row["generation"] or 0,
        score=next((row[stage] for stage in TESTED if row.get(stage) is not None), None),
        is_timed=row.get("budget_kind") == "seconds",
        to_confirm=row.get("to_confirm"),
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
