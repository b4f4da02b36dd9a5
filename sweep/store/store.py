"""The store of a sweep's results: one immutable Parquet file per attempt, and no other state.

An attempt is announced by a ``.start`` file that only one driver can create, and closed by its
Parquet file, which only one can create either, whole or not at all: in a folder as on S3. So two
drivers never make one attempt twice. ``cells.parquet`` is derived from the attempts for readers and
is never read by the planner. A torn or foreign file is named and passed over.
"""

import contextlib
import itertools
import json
import re
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sweep.store.announcement import announcement, read_announcement
from sweep.store.drivers import (
    Driver,
    DriverWatch,
    HeartbeatIntervals,
    Life,
    registered,
    require_only_driver,
)
from sweep.store.files import StoreError, open_files
from sweep.store.json_object import json_object
from sweep.store.progress import DriverProgress
from sweep.store.schema import IDENTITY
from sweep.store.table import Row, StoredAttempts, joined, read_attempt, table_bytes, to_parquet
from trainer.config.config_errors import ConfigError

CELLS_FILE = "cells.parquet"
REPLICATES_FILE = "replicates.parquet"
SWEEP_FILE = "sweep.json"
PROGRESS, REQUESTS, ANSWERS = "progress", "requests", "answers"
OF_DRIVERS = (PROGRESS, REQUESTS, ANSWERS)  # folders in which each driver has a file of its own
BATCH = 512  # a table of one row takes 100 kB of memory, a row of a large one 3 kB
_ATTEMPT = re.compile(
    r"(?P<cell>[0-9a-f]{16})-(?P<number>[1-9][0-9]{0,8})\.(?P<kind>start|parquet)"
)


class AlreadyClosed(Exception):  # noqa: N818  (it is what happened, not a fault of the caller)
    """Another driver has closed the attempt, as lost; see ``Store.commit_late``."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """An announced attempt: its cell's id, its number from 1, and when it was announced."""

    cell_id: str
    number: int
    started_at: datetime

    @property
    def stem(self) -> str:
        return f"{self.cell_id}-{self.number}"


Unfinished = list[tuple[Attempt, dict[str, Any]]]
"""Announced attempts that nothing has closed, with the notes of their announcements."""


class Store:
    """The results of one sweep: a folder or URI, ``RESULTS/<sweep>``."""

    def __init__(self, place: str | Path, *, intervals: HeartbeatIntervals | None = None) -> None:
        self.files = open_files(place)
        self._intervals = intervals or HeartbeatIntervals()
        self._watch = DriverWatch(self.files, self._intervals)
        self._in_doubt: dict[str, tuple[Attempt, bytes]] = {}
        self._strange: dict[str, str] = {}
        self._reading, self._deriving = threading.Lock(), threading.Lock()
        self._stored, self._has_read = StoredAttempts(joined([]), ()), frozenset[str]()

    @classmethod
    def of(cls, results: str | Path, sweep: str) -> "Store":
        """The store of the sweep of that name."""
        return cls(f"{str(results).rstrip('/')}/{sweep}")

    @property
    def place(self) -> str:
        return self.files.place

    @property
    def strange(self) -> tuple[str, ...]:
        """A sentence on each file that was met so far and that this version does not understand."""
        return (*self._watch.strange.values(), *self._strange.values())

    @contextlib.contextmanager
    def as_driver(self, *, join: bool = False, say: Callable[[str], None] = print) -> Iterator[str]:
        """Be seen as a driver of this sweep: the only one, or beside others if ``join``.

        What others announced stays theirs while they live. ``say`` is told of a wait.
        """
        with registered(self.files, self._watch, self._intervals) as driver_id:
            if not join:
                require_only_driver(self._watch, self._intervals, self.place, say)
            self._clean_up()
            yield driver_id

    def drivers(self) -> list[Driver]:
        """The other drivers that are, or may be, alive; waits for none."""
        return [driver for driver in self._watch.look() if driver.life is not Life.DEAD]

    def read(self) -> StoredAttempts:
        """Everything that the attempts say; a store of a newer schema is refused.

        An attempt that this store has read is not read again: it never changes.
        """
        with self._reading:
            return self._read()

    def numbers(self) -> dict[str, int]:
        """The highest number, by cell id, that was announced or closed. Lists the whole store."""
        highest: dict[str, int] = {}
        for name in self.files.names("attempts"):
            if match := _ATTEMPT.fullmatch(name):
                cell, number = match["cell"], int(match["number"])
                highest[cell] = max(number, highest.get(cell, 0))
        return highest

    def announce(self, cell_id: str, number: int, note: Mapping[str, Any]) -> Attempt | None:
        """Create the ``.start`` file of an attempt; None if another driver has done so.

        ``note["driver"]`` is the driver's id, by which its death is known. After a
        StoreError it may have been made all the same: tried again, it is ours.
        """
        started_at = datetime.now(UTC)
        attempt = Attempt(cell_id, number, started_at)
        attempt, data = self._in_doubt.pop(attempt.stem, (attempt, announcement(note, started_at)))
        try:
            created = self._create(f"attempts/{attempt.stem}.start", data)
        except StoreError:
            self._in_doubt[attempt.stem] = attempt, data
            raise
        return attempt if created else None

    def commit(self, attempt: Attempt, row: Row) -> None:
        """Close ``attempt``: from here on it is part of the record and never changes.

        AlreadyClosed if it has been closed with another content.
        """
        name = f"attempts/{attempt.stem}.parquet"
        if not self._create(name, to_parquet([row])):
            raise AlreadyClosed(f"{self.files.where(name)}: this attempt is closed already")

    def commit_late(self, attempt: Attempt, row: Row) -> Attempt:
        """Keep the answer of an attempt that was closed as lost, under a number of its own."""
        note = {
            "driver": row.get("driver"),
            "node": row.get("node"),
            "identity": {column.name: row.get(column.name) for column in IDENTITY},
        }
        number = self.numbers().get(attempt.cell_id, attempt.number)
        while True:
            number += 1
            if self.announce(attempt.cell_id, number, note) is None:
                continue
            late = Attempt(attempt.cell_id, number, attempt.started_at)
            with contextlib.suppress(AlreadyClosed):  # as lost, once more
                self.commit(
                    late,
                    {**row, "attempt": number, "evidence": f"attempts/{late.stem}.parquet"},
                )
                return late

    def unfinished(self) -> Unfinished:
        """See ``Unfinished``; whoever announced them."""
        names = set(self.files.names("attempts"))
        matches = [match for name in sorted(names) if (match := _ATTEMPT.fullmatch(name))]
        open_starts = {
            match[0]: match
            for match in matches
            if match["kind"] == "start" and match[0].replace(".start", ".parquet") not in names
        }
        return [
            self._announced(open_starts[name], data)
            for name, data in self._read_all(list(open_starts))
        ]

    def orphans(self) -> Unfinished:
        """What drivers announced that are gone. One may have been closed since: AlreadyClosed.

        On a service without locks a death shows after ``dead_after_s`` of this store's looks:
        whoever helps another driver asks again from time to time.
        """
        return self.running_and_orphaned()[1]

    def running(self) -> Unfinished:
        """What living drivers announced, oneself among them."""
        return self.running_and_orphaned()[0]

    def running_and_orphaned(self) -> tuple[Unfinished, Unfinished]:
        """Both by one look. Announcements are listed first: a driver that comes meanwhile has none.

        One that names no driver may be of any other that lives.
        """
        unfinished = self.unfinished()
        others = {driver.id for driver in self.drivers()}
        living = {*others, self._watch.own} - {None} | ({None} if others else set())
        is_running = [note.get("driver") in living for _, note in unfinished]
        return (
            [pair for pair, runs in zip(unfinished, is_running, strict=True) if runs],
            [pair for pair, runs in zip(unfinished, is_running, strict=True) if not runs],
        )

    def progress(self) -> dict[str, DriverProgress]:
        """What each driver that may be alive last said, by its id; one may have said nothing."""
        found = {}
        for driver in self.drivers():
            name = f"{PROGRESS}/{driver.id}.json"
            try:
                found[driver.id] = DriverProgress.model_validate_json(self.files.read(name))
            except FileNotFoundError:
                continue
            except ValueError as error:
                first = str(error).splitlines()[0]
                self._strange[name] = (
                    f"{self.files.where(name)}: no driver writes such a file ({first}); it is "
                    f"passed over."
                )
        return found

    def write_file(self, kind: str, name: str, data: bytes) -> str:
        """Keep a file of an attempt; returns its path relative to the sweep's place."""
        self.files.replace(f"{kind}/{name}", data)
        return f"{kind}/{name}"

    def read_file(self, path: str) -> bytes:
        """What ``write_file`` has put at that relative path; a row of others may name any."""
        folder, *names = path.split("/")
        if not names or not {"", ".", ".."}.isdisjoint((folder, *names)) or "\0" in path:
            raise ConfigError(
                f"{path!r}: a row in {self.place} names this file. It is not inside that place, so "
                f"it is not read: a sweep did not write the row. Move it away."
            )
        return self.files.read(path)

    def write_cells(self, cell_ids: Collection[str]) -> StoredAttempts:
        """Derive ``cells.parquet`` anew: those of ``cell_ids`` that have been attempted.

        And ``replicates.parquet``: what else succeeded at them. Attempts at cells that the grid no
        longer has stay in the record.
        """
        with self._deriving:  # an older one must not come later
            stored, ids = self.read(), pa.array(cell_ids, pa.string())
            for name, table in (
                (REPLICATES_FILE, stored.replicates_table()),
                (CELLS_FILE, stored.cells_table()),
            ):
                selected = pc.is_in(table["cell_id"], value_set=ids)
                self.files.replace(name, table_bytes(table.filter(selected)))
            return stored

    def write_sweep(self, description: Mapping[str, Any]) -> None:
        """Keep a description of the sweep, so that its state can be told from this place alone."""
        text = json.dumps(description, indent=1, sort_keys=True)
        self.files.replace(SWEEP_FILE, text.encode())

    def read_sweep(self) -> dict[str, Any]:
        """The description that ``write_sweep`` kept; a ConfigError if no sweep has run here."""
        try:
            return json_object(self.files.read(SWEEP_FILE))
        except ValueError as error:
            raise ConfigError(
                f"{self.files.where(SWEEP_FILE)}: no sweep wrote this ({error}). `make sweep` "
                f"writes it anew, and runs nothing that is settled."
            ) from None
        except FileNotFoundError:
            name = self.place.rpartition("/")[2]
            raise ConfigError(
                f"{self.place}: no sweep has run here yet. `make sweep SWEEP={name}` runs it; "
                f"RESULTS= chooses another place of results."
            ) from None

    def _clean_up(self) -> None:
        """Remove what killed drivers left. One that was not dead writes its file again."""
        self.files.remove_temporaries()
        for driver in self._watch.look():
            if driver.life is Life.DEAD:
                self.files.remove(driver.file)
                for folder in OF_DRIVERS:
                    self.files.remove(f"{folder}/{driver.id}.json")

    def _read(self) -> StoredAttempts:
        unreadable: list[str] = []
        names = []
        for name in self.files.names("attempts"):
            if name.endswith(".parquet") and _ATTEMPT.fullmatch(name):
                names.append(name)
            elif not _ATTEMPT.fullmatch(name):
                unreadable.append(
                    _passed_over(self.files.where(f"attempts/{name}"), "no attempt's name")
                )
        if not self._has_read <= set(names):  # somebody has taken one away
            self._stored, self._has_read = StoredAttempts(joined([]), ()), frozenset()
        tables, new = [self._stored.table], [name for name in names if name not in self._has_read]
        for batch in _batches(self._read_all(new), BATCH):
            found = {name: self._attempt(name, data, unreadable) for name, data in batch}
            read = {name: table for name, table in found.items() if table is not None}
            self._has_read |= read.keys()
            tables.append(joined(list(read.values())))
        if new or tuple(unreadable) != self._stored.unreadable:
            self._stored = StoredAttempts(joined(tables), tuple(unreadable))
        return self._stored

    def _create(self, name: str, data: bytes) -> bool:
        """Whether the file is ours: also where it was made and the answer to that got lost."""
        return self.files.create(name, data) or self.files.read(name) == data

    def _read_all(self, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """The content of files in ``attempts``, in order; many at a time from a service."""
        paths = [f"attempts/{name}" for name in names]
        if self.files.readers == 1:
            yield from zip(names, map(self.files.read, paths), strict=True)
            return
        with ThreadPoolExecutor(self.files.readers) as pool:
            for some in _batches(iter(zip(names, paths, strict=True)), BATCH):
                data = pool.map(self.files.read, [path for _, path in some])
                yield from zip([name for name, _ in some], data, strict=True)

    def _attempt(self, name: str, data: bytes, unreadable: list[str]) -> pa.Table | None:
        where = self.files.where(f"attempts/{name}")
        try:
            return read_attempt(data, name.removesuffix(".parquet"), where)
        except ConfigError:
            raise
        except (pa.ArrowException, ValueError, OSError) as error:
            unreadable.append(_passed_over(where, str(error)))
            return None

    def _announced(self, match: re.Match[str], data: bytes) -> tuple[Attempt, dict[str, Any]]:
        name = f"attempts/{match[0]}"
        note, started_at, left_out = read_announcement(data, match["cell"])
        if left_out:
            self._strange[name] = (
                f"{self.files.where(name)}: of this announcement some is not understood and left "
                f"out ({', '.join(left_out)}); the file is kept."
            )
        if started_at is None:
            started_at = self.files.modified_at(name)
        return Attempt(match["cell"], int(match["number"]), started_at), note


def _batches(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while batch := list(itertools.islice(items, size)):
        yield batch


def _passed_over(where: str, why: str) -> str:
    first = why.splitlines()[0] if why else "no reason given"
    return f"{where}: cannot be read and is passed over ({first})"
