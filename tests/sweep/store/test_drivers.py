"""A driver is seen while it lives, missed when it is dead, and taken for dead at no loss."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict
from datetime import timedelta

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweep.store.drivers import DriverNote, DriverWatch, HeartbeatIntervals, Life
from sweep.store.files import StoreError, open_files
from sweep.store.process_life import is_running, started_ticks
from sweep.store.store import AlreadyClosed, Store
from tests.support.commands import wait_until
from tests.support.drivers import driver_elsewhere, row_of
from trainer.config.config_errors import ConfigError

CELL, MINE = "0123456789abcdef", "f" * 16
PATIENT = HeartbeatIntervals(beat_s=0.2, dead_after_s=60.0)
QUICK = HeartbeatIntervals(beat_s=0.2, dead_after_s=1.0)  # for a death that is waited for


@pytest.fixture
def elsewhere(monkeypatch):
    """From its call on, this process looks at drivers from another machine."""
    return lambda: monkeypatch.setattr("sweep.store.drivers.machine", lambda: "another boot")


def test_a_second_driver_is_told_who_is_running_unless_it_joins(shared):
    with driver_elsewhere(shared, PATIENT, CELL) as (process, its_id, _):
        store = Store(shared, intervals=PATIENT)
        told = f"process {process.pid} on {socket.gethostname()} since .*make status.*JOIN=1"
        with (
            pytest.raises(ConfigError, match=told),
            store.as_driver(say=lambda text: None),
        ):
            pytest.fail("two drivers drove one sweep")
        assert store.files.names("drivers") == [f"{its_id}.json"]
        with store.as_driver(join=True) as driver_id:
            assert driver_id != its_id
            assert [driver.id for driver in store.drivers()] == [its_id]
            store.announce(MINE, 1, {"driver": driver_id})
            assert store.orphans() == []
            assert {attempt.cell_id for attempt, _ in store.running()} == {CELL, MINE}


@pytest.mark.parametrize("from_elsewhere", [False, True], ids=["here", "from elsewhere"])
def test_what_a_killed_driver_announced_is_an_orphan(shared, elsewhere, from_elsewhere):
    """At once on its machine, from elsewhere after its silence has lasted."""
    with driver_elsewhere(shared, PATIENT, CELL) as (process, its_id, _):
        if from_elsewhere:
            elsewhere()
        store = Store(shared, intervals=PATIENT)
        assert [note["driver"] for _, note in store.running()] == [its_id]
        assert store.orphans() == []
        process.kill()
        process.join()
        store = Store(shared, intervals=QUICK)
        if not from_elsewhere:
            assert [attempt.cell_id for attempt, _ in store.orphans()] == [CELL]
        wait_until(lambda: bool(store.orphans()))
        assert store.running() == []
        with store.as_driver(say=pytest.fail) as driver_id:
            assert [attempt.cell_id for attempt, _ in store.orphans()] == [CELL]
            assert store.files.names("drivers") == [f"{driver_id}.json"]


def test_no_driver_of_another_machine_is_let_in_beside_a_living_one(tmp_path, elsewhere):
    """Whatever the file system tells of locks there: nobody asks for one."""
    intervals, said = HeartbeatIntervals(0.1, 60.0), []
    with Store(tmp_path, intervals=intervals).as_driver() as driver_id:
        elsewhere()
        other = Store(tmp_path, intervals=intervals)
        refused = pytest.raises(ConfigError, match=f"process {os.getpid()} on")
        with refused, other.as_driver(say=said.append):
            pytest.fail("two drivers drove one sweep")
        assert len(said) == 1
        assert other.files.names("drivers") == [f"{driver_id}.json"]


def test_a_process_lives_until_it_has_ended_and_another_of_its_number_is_not_it():
    ours = started_ticks(os.getpid())
    assert is_running(os.getpid(), ours)
    assert not is_running(os.getpid(), ours - 1)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    ticks = started_ticks(child.pid)
    assert is_running(child.pid, ticks)
    child.kill()
    wait_until(lambda: not is_running(child.pid, ticks))  # a zombie: nobody has waited for it
    child.communicate()
    assert is_running(child.pid, ticks) is False
    assert is_running(10**30, ticks) is False


def test_a_driver_that_ends_leaves_no_sign_of_life(shared):
    with driver_elsewhere(shared, PATIENT, CELL) as (process, _, end):
        end()
        process.join()
        store = Store(shared)
        assert store.drivers() == []
        assert [attempt.cell_id for attempt, _ in store.orphans()] == [CELL]
        with store.as_driver():  # at once, with a patience of a minute
            pass


def test_a_driver_waits_to_see_whether_another_is_dead_and_says_so(place_on):
    store, said = Store(place_on("memory"), intervals=HeartbeatIntervals(0.05, 0.4)), []
    leave_behind(store)
    with store.as_driver(say=said.append):
        assert len(said) == 1
        assert "process 7 on elsewhere" in said[0]


def test_a_driver_that_fell_silent_long_ago_is_not_waited_for(place_on):
    place = place_on("memory")
    store = Store(place)
    leave_behind(store)
    age(place, 61.0)
    with store.as_driver(say=pytest.fail):
        pass


def test_what_a_dead_driver_told_and_was_asked_goes_with_it(place_on):
    place = place_on("memory")
    store = Store(place)
    leave_behind(store)
    (name,) = store.files.names("drivers")
    for folder in ("progress", "requests", "answers"):
        store.files.replace(f"{folder}/{name}", b"{}")
    age(place, 61.0)
    with store.as_driver(say=pytest.fail):
        folders = ("progress", "requests", "answers")
        assert [store.files.names(folder) for folder in folders] == [[], [], []]


def test_what_names_no_driver_is_an_orphan(shared):
    store = Store(shared)
    store.announce(CELL, 1, {})
    assert [attempt.cell_id for attempt, _ in store.orphans()] == [CELL]


def test_a_driver_that_was_taken_for_dead_keeps_its_answer(place_on, elsewhere):
    place = place_on("memory")
    clock = Clock()
    slow, other = Store(place), Store(place)
    other._watch = DriverWatch(other.files, HeartbeatIntervals(), clock=clock)
    with slow.as_driver() as driver_id:  # its first beat is 10 s away
        elsewhere()
        attempt = slow.announce(CELL, 1, {"driver": driver_id})
        assert other.orphans() == []
        clock.now_s += 61.0
        ((found, _),) = other.orphans()
        other.commit(found, row_of(found, "lost"))
        with pytest.raises(AlreadyClosed):
            slow.commit(attempt, row_of(attempt))
        assert slow.commit_late(attempt, row_of(attempt)).number == 2
    (cell,) = other.read().cells()
    assert (cell["state"], cell["attempt"], cell["num_attempts"]) == ("succeeded", 2, 2)


def test_a_driver_that_cannot_show_itself_goes_on_and_shows_itself_again(place_on, monkeypatch):
    store, failed = Store(place_on("memory"), intervals=HeartbeatIntervals(0.02, 60.0)), []

    def unreachable(name, *parts):
        failed.append(name)
        raise StoreError("no answer in time")

    with store.as_driver() as driver_id:
        name = f"drivers/{driver_id}.json"
        with monkeypatch.context() as patch:
            patch.setattr(store.files, "replace", unreachable)
            wait_until(lambda: len(failed) > 2)
        before = store.files.read(name)
        wait_until(lambda: store.files.read(name) != before)
    assert store.files.names("drivers") == []


def test_a_service_that_ignores_the_condition_is_refused(place_on, s3):
    def forget_condition(environ, start_response):
        environ.pop("HTTP_IF_NONE_MATCH", None)

    s3.application.refuse = forget_condition
    try:
        with pytest.raises(StoreError, match="If-None-Match"), Store(place_on("s3")).as_driver():
            pytest.fail("an attempt could have been made twice")
    finally:
        s3.application.refuse = None


STRANGE = {
    "torn.json": b"{",
    "list.json": b"[1]",
    "other.json": b'{"x": 1}',
    "deep.json": b"[" * 100_000,
    "long.json": b'{"process": ' + b"9" * 5000 + b"}",
    "binary.json": bytes(range(256)),
}


def test_a_file_that_no_driver_writes_is_named_and_kept(tmp_path):
    store = Store(tmp_path)
    for name, data in STRANGE.items():
        store.files.replace(f"drivers/{name}", data)
    with store.as_driver(say=pytest.fail):
        assert store.drivers() == []
    assert set(store.files.names("drivers")) == set(STRANGE)
    for name in STRANGE:
        assert sum(f"drivers/{name}: no driver writes" in line for line in store.strange) == 1


@pytest.mark.parametrize(
    "changes", [{"room": "12"}, {"process": "a name of a newer version", "machine": "here"}]
)
def test_a_driver_of_a_newer_version_is_respected(tmp_path, monkeypatch, changes):
    monkeypatch.setattr("sweep.store.drivers.machine", lambda: "here")
    note = asdict(DriverNote(7, "elsewhere", "now")) | changes
    store = Store(tmp_path, intervals=HeartbeatIntervals(0.1, 60.0))

    def beat_once(sentence):
        store.files.replace("drivers/newer.json", json.dumps(note | {"beats": 1}).encode())

    store.files.replace("drivers/newer.json", json.dumps(note).encode())
    with pytest.raises(ConfigError, match="on elsewhere since now"), store.as_driver(say=beat_once):
        pytest.fail("two drivers drove one sweep")


@given(st.lists(st.tuples(st.floats(0.0, 200.0), st.booleans()), max_size=8))
def test_death_is_a_silence_that_lasted_on_the_clock_of_the_observer(looks):
    """Each look comes some time after the one before; in between, the driver has beaten or not."""
    files = open_files(f"memory://drivers-{os.getpid()}")
    for name in files.names("drivers"):
        files.remove(f"drivers/{name}")
    clock, beats, silent_s = Clock(), 0, 0.0
    watch = DriverWatch(files, HeartbeatIntervals(), clock=clock)
    beat(files, beats)
    assert [driver.life for driver in watch.look()] == [Life.UNSURE]
    has_beaten = False
    for pause_s, beaten in looks:
        clock.now_s += pause_s
        silent_s = 0.0 if beaten else silent_s + pause_s
        has_beaten |= beaten
        beats += beaten
        beat(files, beats)
        living = Life.ALIVE if has_beaten else Life.UNSURE
        (driver,) = watch.look()
        if abs(silent_s - 60.0) > 1e-6:  # not a claim about the rounding of sums
            assert driver.life is (Life.DEAD if silent_s > 60.0 else living)


class Clock:
    """A monotonic clock that a test moves."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def beat(files, beats):
    note = DriverNote(7, "elsewhere", "2026-11-25 10:00:00 UTC", beats)
    files.replace("drivers/elsewhere-7-1.json", json.dumps(asdict(note)).encode())


def leave_behind(store):
    """What a driver leaves that was killed."""
    beat(store.files, 3)


def age(place, seconds):
    """Make the file that was left behind older."""
    path = place.removeprefix("memory:/") + "/drivers/elsewhere-7-1.json"
    fsspec.filesystem("memory").store[path].modified -= timedelta(seconds=seconds)
