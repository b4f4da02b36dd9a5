"""Tell which drivers of a sweep are alive, by their locks or heartbeats.

A driver keeps a file ``drivers/<id>.json`` for as long as it lives. In a folder it holds a lock on
it, which goes with the process, however that ends. Where there are no locks it writes a new number
into it every ``beat_s``; who sees the number stand still for ``dead_after_s``, on his own clock,
takes the driver for dead. The clocks of two machines are never compared for that. A driver that is
taken for dead and is not loses nothing: an attempt is announced and closed by one only.
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
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from sweep.store.files import Files, StoreError
from trainer.config.config_errors import ConfigError

FOLDER = "drivers"


class Life(enum.Enum):
    """``UNSURE`` until a driver without a lock has been watched for long enough."""

    ALIVE = enum.auto()
    UNSURE = enum.auto()
    DEAD = enum.auto()


@dataclass(frozen=True, slots=True)
class HeartbeatIntervals:
    """How often a driver without a lock writes, and how long its silence may last."""

    beat_s: float = 10.0
    dead_after_s: float = 60.0


@dataclass(frozen=True, slots=True)
class DriverNote:
    """Who drives. ``beats`` counts signs of life, None where a lock is one."""

    process: int
    host: str
    since: str
    beats: int | None = None

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
            return None  # on NFS our lock would go with the end of the look
        try:
            data = self._files.read(name)
            note = DriverNote(**json.loads(data))
            if note.beats is None:
                life = Life.ALIVE if self._files.is_locked(name) else Life.DEAD
            else:
                life = self._judge(driver_id, name, data)
        except FileNotFoundError:  # it has just left
            return None
        except (ValueError, TypeError):  # no driver writes such a file
            return None
        return Driver(driver_id, note, life)

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
    name = f"{FOLDER}/{driver_id}.json"
    note = DriverNote(os.getpid(), socket.gethostname(), f"{datetime.now(UTC):%F %T} UTC")
    with contextlib.ExitStack() as stack:
        lock = files.lock(name, _json(note))
        stack.callback(_leave, files, name)
        if lock is not None:
            stack.enter_context(lock)
        else:
            stack.enter_context(_beating(files, name, note, intervals.beat_s))
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
    _require_exclusion(files, name, note)
    stopped = threading.Event()

    def beat() -> None:
        beats = 0
        while not stopped.wait(beat_s):
            beats += 1
            with contextlib.suppress(StoreError):
                files.replace(name, _json(note, beats))

    thread = threading.Thread(target=beat, name="driver heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()  # a beat ends by the deadline of its call; one that came later would stay


def _require_exclusion(files: Files, name: str, note: DriverNote) -> None:
    """Show oneself, and see that the place tells a second creation from a first."""
    files.create(name, _json(note, 0))
    if files.create(name, _json(note, 0)):
        raise StoreError(
            f"{files.place}: this service ignores `If-None-Match: *`, so two drivers could make "
            f"the same attempt. Use one with conditional writes; results/README.md names some."
        )


def _leave(files: Files, name: str) -> None:
    with contextlib.suppress(StoreError):  # then the file falls silent, which says the same
        files.remove(name)


def _json(note: DriverNote, beats: int | None = None) -> bytes:
    return json.dumps({**asdict(note), "beats": beats}).encode()
