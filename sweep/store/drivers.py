"""Tell which drivers of a sweep are alive, by their heartbeats, on one machine by their processes.

A driver keeps a file ``drivers/<id>.json`` for as long as it lives, and writes a new number into it
every ``beat_s``. Who sees the number stand still for ``dead_after_s``, on his own clock, takes the
driver for dead. The clocks of two machines are never compared for that. A driver of the observer's
own machine is asked for by its process, so that its death shows at once. A lock on the file says
nothing: BeeGFS, Lustre and NFS may keep it from other machines. A driver that is taken for dead and
is not loses nothing: an attempt is announced and closed by one only.
"""

import contextlib
import enum
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime

from sweep.store.files import Files, StoreError
from sweep.store.json_object import json_object
from sweep.store.process_life import is_running, machine, started_ticks
from trainer.config.config_errors import ConfigError

FOLDER = "drivers"


class Life(enum.Enum):
    """``UNSURE`` until a driver of another machine has been watched for long enough."""

    ALIVE = enum.auto()
    UNSURE = enum.auto()
    DEAD = enum.auto()


@dataclass(frozen=True, slots=True)
class HeartbeatIntervals:
    """How often a driver writes, and how long its silence may last."""

    beat_s: float = 10.0
    dead_after_s: float = 60.0


@dataclass(frozen=True, slots=True)
class DriverNote:
    """Who drives. ``beats`` counts signs of life.

    ``machine`` and ``started_ticks`` tell its process from others of that number.
    """

    process: int
    host: str
    since: str
    beats: int = 0
    machine: str | None = None
    started_ticks: int | None = None

    def __str__(self) -> str:
        return f"process {self.process} on {self.host} since {self.since}"


@dataclass(frozen=True, slots=True)
class Driver:
    """A driver that has shown itself, by its id, and whether it is alive."""

    id: str
    note: DriverNote
    life: Life

    @property
    def file(self) -> str:
        return f"{FOLDER}/{self.id}.json"


@dataclass(frozen=True, slots=True)
class _Seen:
    data: bytes
    life: Life
    since_s: float


class DriverWatch:
    """What one observer knows of the drivers of a sweep; each look adds to it.

    Who beats is first judged by the age of his file: if that is old he is dead, else it takes
    another look. A driver measures the age against its own file, on the clock of the place; who
    only looks has nothing but his own clock, which is good enough to show a state.
    """

    def __init__(
        self,
        files: Files,
        intervals: HeartbeatIntervals,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._files, self._intervals, self._clock = files, intervals, clock
        self._seen: dict[str, _Seen] = {}
        self.own: str | None = None
        self.strange: dict[str, str] = {}
        """A sentence on each file that no driver writes, by its name."""

    def look(self) -> list[Driver]:
        """Every other driver whose file is there."""
        found = []
        for name in self._files.names(FOLDER):
            driver = self._look_at(name.removesuffix(".json"), f"{FOLDER}/{name}")
            if driver is not None:
                found.append(driver)
        return found

    def _look_at(self, driver_id: str, name: str) -> Driver | None:
        if driver_id == self.own:
            return None
        try:
            data = self._files.read(name)
            note = _read_note(data)
            life = self._life_of_process(note) or self._judge(driver_id, name, data)
        except FileNotFoundError:  # it has just left
            return None
        except ValueError as error:
            where = self._files.where(name)
            self.strange[name] = f"{where}: no driver writes such a file ({error}); it is kept."
            return None
        return Driver(driver_id, note, life)

    def _life_of_process(self, note: DriverNote) -> Life | None:
        """None where the process cannot be looked at from here."""
        if note.machine is None or note.machine != machine():
            return None
        runs = is_running(note.process, note.started_ticks)
        if runs is None:
            return None
        return Life.ALIVE if runs else Life.DEAD

    def _judge(self, driver_id: str, name: str, data: bytes) -> Life:
        now_s, before = self._clock(), self._seen.get(driver_id)
        if before is None:
            silent_s = (self._now() - self._files.modified_at(name)).total_seconds()
            old = silent_s > self._intervals.dead_after_s
            seen = _Seen(data, Life.DEAD if old else Life.UNSURE, now_s)
        elif before.data != data:
            seen = _Seen(data, Life.ALIVE, now_s)
        elif now_s - before.since_s > self._intervals.dead_after_s:
            seen = _Seen(data, Life.DEAD, before.since_s)
        else:
            seen = before
        self._seen[driver_id] = seen
        return seen.life

    def _now(self) -> datetime:
        """The clock of the place, as far as our own last sign of life tells it; else our own."""
        if self.own is not None:
            with contextlib.suppress(FileNotFoundError):
                return self._files.modified_at(f"{FOLDER}/{self.own}.json")
        return datetime.now(UTC)


@contextlib.contextmanager
def registered(files: Files, watch: DriverWatch, intervals: HeartbeatIntervals) -> Iterator[str]:
    """Show that this process drives, until the end of the block; yields its id.

    The note of what it announces names that id.
    """
    host = re.sub(r"[^\w.-]", "-", socket.gethostname())
    driver_id = f"{host}-{os.getpid()}-{time.time_ns()}"
    note = DriverNote(
        os.getpid(),
        socket.gethostname(),
        f"{datetime.now(UTC):%F %T} UTC",
        machine=machine(),
        started_ticks=started_ticks(os.getpid()),
    )
    with _beating(files, f"{FOLDER}/{driver_id}.json", note, intervals.beat_s):
        watch.own = driver_id
        try:
            yield driver_id
        finally:
            watch.own = None


def require_only_driver(
    watch: DriverWatch, intervals: HeartbeatIntervals, place: str, say: Callable[[str], None]
) -> None:
    """Be this sweep's only driver: a ConfigError that names the other one if there is one.

    Whoever shows himself first and looks then cannot overlook another; two that come in the same
    moment may both be refused. Ends when each driver that was seen has beaten or is dead.
    """
    said = False
    while True:
        drivers = watch.look()
        for driver in drivers:
            if driver.life is Life.ALIVE:
                raise ConfigError(
                    f"{place}: another driver is running this sweep ({driver.note}). Wait for it, "
                    f"watch it with `make status`, stop it, or help it with JOIN=1."
                )
        unsure = [str(driver.note) for driver in drivers if driver.life is Life.UNSURE]
        if not unsure:
            return
        if not said:
            say(
                f"Another driver has been at work here ({', '.join(unsure)}): waiting up to "
                f"{intervals.dead_after_s:.0f} s to see whether it still is. JOIN=1 does not wait."
            )
            said = True
        time.sleep(intervals.beat_s / 10)


@contextlib.contextmanager
def _beating(files: Files, name: str, note: DriverNote, beat_s: float) -> Iterator[None]:
    """Write a new number every ``beat_s``. What cannot be written now is written the next time."""
    stopped = threading.Event()

    def beat() -> None:
        beats = 0
        while not stopped.wait(beat_s):
            beats += 1
            with contextlib.suppress(StoreError):
                files.replace(name, _json(replace(note, beats=beats)))

    thread = threading.Thread(target=beat, name="driver heartbeat", daemon=True)
    with contextlib.ExitStack() as stack:
        stack.callback(_leave, files, name)
        _require_exclusion(files, name, note)
        thread.start()
        stack.callback(thread.join)  # a beat that came later would stay; each has its deadline
        stack.callback(stopped.set)
        yield


def _require_exclusion(files: Files, name: str, note: DriverNote) -> None:
    """Show oneself, and see that the place tells a second creation from a first."""
    files.create(name, _json(note))
    if files.create(name, _json(note)):
        raise StoreError(
            f"{files.place}: this service ignores `If-None-Match: *`, so two drivers could make "
            f"the same attempt. Use one with conditional writes; results/README.md names some."
        )


def _leave(files: Files, name: str) -> None:
    with contextlib.suppress(StoreError):  # then the file falls silent, which says the same
        files.remove(name)


def _json(note: DriverNote) -> bytes:
    return json.dumps(asdict(note)).encode()


def _read_note(data: bytes) -> DriverNote:
    """What a driver wrote; of a newer version, what is known of it."""
    found = json_object(data)
    absent = {"process", "host", "since"} - found.keys()
    if absent:
        raise ValueError(f"it lacks {', '.join(sorted(absent))}")
    note = DriverNote(**{f.name: found[f.name] for f in fields(DriverNote) if f.name in found})
    counts = isinstance(note.process, int) and isinstance(note.started_ticks, int | None)
    return note if counts else replace(note, machine=None)
