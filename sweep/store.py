"""Where every answer is kept: one immutable Parquet file per attempt, and nothing else is state.

An attempt is announced by a ``.start`` file that only one driver can create, and closed by its
Parquet file, which is written whole or not at all. ``cells.parquet`` is derived from the attempts
for readers and is never read by the planner. A torn file is named and passed over.
"""

import contextlib
import fcntl
import json
import os
import re
import socket
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from sweep.plan import Ended, precedence
from sweep.schema import SCHEMA, SCHEMA_VERSION, STATES, VERSION_KEY
from trainer.files import fsync_folder, write_atomically
from trainer.strict import ConfigError

Row = Mapping[str, Any]
CELLS_FILE = "cells.parquet"
SWEEP_FILE = "sweep.json"
LOCK_FILE = ".driver.lock"
LOCK_PATIENCE_S = 0.5
_ATTEMPT = re.compile(r"^(?P<cell>[0-9a-f]{16})-(?P<number>\d+)$")


@dataclass(frozen=True, slots=True)
class Attempt:
    """An announced attempt: its cell's id, its number from 1, and when it was announced."""

    cell_id: str
    number: int
    started_at: datetime

    @property
    def stem(self) -> str:
        return f"{self.cell_id}-{self.number}"


@dataclass(frozen=True, slots=True)
class Contents:
    """Every readable attempt, by cell and number, and a sentence for each file that is not."""

    rows: tuple[Row, ...]
    torn: tuple[str, ...]

    def history(self) -> dict[str, list[Ended]]:
        """What planning needs, by cell id."""
        result: dict[str, list[Ended]] = defaultdict(list)
        for row in self.rows:
            result[row["cell_id"]].append(
                Ended(
                    attempt=row["attempt"],
                    state=row["state"],
                    tainted=bool(row["tainted"]),
                    reason=row["reason"],
                    wall_s=(row["ended_at"] - row["started_at"]).total_seconds(),
                    trainer_hash=row["trainer_hash"],
                    generation=row["generation"] or 0,
                )
            )
        return dict(result)

    def cells(self) -> list[dict[str, Any]]:
        """One row per cell, see :func:`believed`, in the sweep's order."""
        groups: dict[str, list[Row]] = defaultdict(list)
        for row in self.rows:
            groups[row["cell_id"]].append(row)
        chosen = [{**believed(rows), "num_attempts": len(rows)} for rows in groups.values()]
        return sorted(chosen, key=lambda row: (row["order_position"], row["cell_id"]))


def believed(rows: Sequence[Row]) -> Row:
    """The row that stands for a cell, see :func:`sweep.plan.precedence`."""
    return min(
        rows,
        key=lambda row: precedence(
            row["state"],
            tainted=bool(row["tainted"]),
            generation=row.get("generation") or 0,
            attempt=row["attempt"],
        ),
    )


class Store:
    """The folder of one sweep, ``ROOT/<sweep>``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Be this sweep's only driver; the lock goes with the process, however it ends."""
        try:
            for name in ("attempts", "curves", "logs", "artifacts", "figures"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"{self.folder}: results cannot be kept there ({error.strerror}). "
                f"RESULTS= chooses another folder."
            ) from None
        path = self.folder / LOCK_FILE
        with path.open("a+", encoding="utf-8") as file:
            if not _try_lock(file):
                file.seek(0)
                raise ConfigError(
                    f"{self.folder}: another driver is running this sweep ({file.read().strip()}). "
                    f"Wait for it, watch it with `make status`, or stop it; or give this one "
                    f"another RESULTS= folder."
                )
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()} since {_now():%F %T} UTC")
            file.flush()
            yield

    def read(self) -> Contents:
        """Everything that the attempts say; a store of a newer schema is refused."""
        rows: list[Row] = []
        torn: list[str] = []
        for path in sorted((self.folder / "attempts").glob("[!.]*.parquet")):
            try:
                table = pq.read_table(path, partitioning=None)
            except (pa.ArrowInvalid, OSError) as error:
                torn.append(f"{path}: cannot be read and is passed over ({_first_line(error)})")
                continue
            rows += conform(table, path).to_pylist()
        rows.sort(key=lambda row: (row["order_position"], row["cell_id"], row["attempt"]))
        return Contents(tuple(rows), tuple(torn))

    def announce(self, cell_id: str, note: Mapping[str, Any]) -> Attempt:
        """Create the next ``.start`` file of a cell, which only one driver can do."""
        folder = self.folder / "attempts"
        taken = [
            int(match["number"])
            for path in folder.iterdir()
            if (match := _ATTEMPT.match(path.stem)) and match["cell"] == cell_id
        ]
        number, started_at = max(taken, default=0) + 1, _now()
        while True:
            attempt = Attempt(cell_id, number, started_at)
            try:
                with (folder / f"{attempt.stem}.start").open("x", encoding="utf-8") as file:
                    json.dump({**note, "started_at": started_at.isoformat()}, file)
                    file.flush()
                    os.fsync(file.fileno())
            except FileExistsError:
                number += 1
                continue
            fsync_folder(folder)
            return attempt

    def unfinished(self) -> list[tuple[Attempt, dict[str, Any]]]:
        """Announced attempts that nothing has closed, with the note of their announcement."""
        folder = self.folder / "attempts"
        result = []
        for path in sorted(folder.glob("*.start")):
            match = _ATTEMPT.match(path.stem)
            if match is None or path.with_suffix(".parquet").exists():
                continue
            try:
                note = json.loads(path.read_text(encoding="utf-8"))
                started_at = datetime.fromisoformat(note.pop("started_at"))
            except (ValueError, KeyError):  # the driver died while it announced
                note, started_at = {}, datetime.fromtimestamp(path.stat().st_mtime, UTC)
            result.append((Attempt(match["cell"], int(match["number"]), started_at), note))
        return result

    def keep(self, kind: str, name: str, data: bytes) -> str:
        """Keep a file of an attempt; returns its path relative to the sweep's folder."""
        write_atomically(self.folder / kind / name, data)
        return f"{kind}/{name}"

    def commit(self, attempt: Attempt, row: Row) -> None:
        """Close ``attempt``: from here on it is part of the record and never changes."""
        path = self.folder / "attempts" / f"{attempt.stem}.parquet"
        if path.exists():
            raise FileExistsError(f"{path}: this attempt is closed already")
        if row["state"] not in STATES:
            raise ValueError(f"state {row['state']!r} is none of {', '.join(STATES)}")
        write_atomically(path, to_parquet([row]))

    def is_locked(self) -> bool:
        """Whether a driver is at work on this sweep."""
        try:
            with (self.folder / LOCK_FILE).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def write_cells(self, wanted: Collection[str]) -> Contents:
        """Derive ``cells.parquet`` anew: the ``wanted`` cells, by id, that have been attempted.

        Attempts at cells that the grid no longer has stay in the record.
        """
        contents = self.read()
        rows = [row for row in contents.cells() if row["cell_id"] in wanted]
        write_atomically(self.folder / CELLS_FILE, to_parquet(rows))
        return contents

    def write_sweep(self, description: Mapping[str, Any]) -> None:
        """Keep what the sweep asks for, so that its state can be told from this folder alone."""
        text = json.dumps(description, indent=1, sort_keys=True)
        write_atomically(self.folder / SWEEP_FILE, text.encode())

    def read_sweep(self) -> dict[str, Any]:
        """What was last asked for; a ConfigError if no sweep has run here."""
        path = self.folder / SWEEP_FILE
        try:
            description: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(
                f"{self.folder}: no sweep has run here yet. `make sweep SWEEP={self.folder.name}` "
                f"runs it; RESULTS= chooses another folder of results."
            ) from None
        return description


def _try_lock(file: TextIO) -> bool:
    """Lock ``file`` for this process alone; ``is_locked`` elsewhere may hold it for a moment."""
    deadline_s = time.monotonic() + LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline_s:
                return False
            time.sleep(0.05)
        else:
            return True


def to_parquet(rows: Sequence[Row]) -> bytes:
    """``rows`` in the declared schema; a key that is no column is an error."""
    known = set(SCHEMA.names)
    for row in rows:
        unknown = sorted(set(row) - known)
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: no such column in schema {SCHEMA_VERSION}")
    columns = [[row.get(name) for row in rows] for name in SCHEMA.names]
    arrays = [pa.array(c, type=f.type) for c, f in zip(columns, SCHEMA, strict=True)]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_arrays(arrays, schema=SCHEMA), sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def conform(table: pa.Table, path: Path) -> pa.Table:
    """``table`` in today's schema: columns added since read as null, a newer version is refused."""
    version = int((table.schema.metadata or {}).get(VERSION_KEY, b"0"))
    if version > SCHEMA_VERSION:
        raise ConfigError(
            f"{path}: written with schema version {version}, this program reads up to "
            f"{SCHEMA_VERSION}. Use the newer program, or another RESULTS= folder."
        )
    if version < SCHEMA_VERSION:
        raise ConfigError(
            f"{path}: schema version {version or 'none'}; this program reads version "
            f"{SCHEMA_VERSION}. It was not written by a sweep; move it away."
        )
    arrays = [
        table.column(field.name).cast(field.type)
        if field.name in table.schema.names
        else pa.nulls(table.num_rows, field.type)
        for field in SCHEMA
    ]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def _now() -> datetime:
    return datetime.now(UTC)


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
