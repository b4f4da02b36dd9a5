"""A disk that fails is an error that says so, and never a false record."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sweep.store.files import StoreError
from sweep.store.store import Store
from tests.support.commands import ROOT
from tests.support.drivers import row_of

CELL, OTHER = "0123456789abcdef", "f" * 16
NOTE = {"driver": "test"}


@pytest.fixture
def disk(tmp_path):
    """A file system of a megabyte, of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder))
    if done.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True, timeout=30)


def mount(*arguments):
    try:
        return subprocess.run(["mount", *arguments], capture_output=True, text=True, timeout=30)
    except FileNotFoundError:
        return subprocess.CompletedProcess(arguments, 1, "", "there is no mount")


def fill(folder):
    """Leave no byte free."""
    with (folder / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)


def one_closed_and_one_open(folder):
    store = Store(folder / "sweep")
    done = store.announce(OTHER, 1, NOTE)
    store.commit(done, row_of(done))
    return store, store.announce(CELL, 1, NOTE)


def require_intact(store, attempt):
    """Every file is whole, ``attempt`` is still open and nothing is half-written."""
    attempts = Path(store.place) / "attempts"
    assert [pq.read_table(path)["cell_id"].to_pylist() for path in attempts.glob("*.parquet")] == [
        [OTHER]
    ]
    stored = store.read()
    assert [row["cell_id"] for row in stored.rows] == [OTHER]
    assert stored.unreadable == ()
    assert [found for found, _ in store.unfinished()] == [attempt]


def require_closable(store, attempt):
    store.commit(attempt, row_of(attempt))
    assert [row["cell_id"] for row in store.read().rows] == [CELL, OTHER]
    assert store.unfinished() == []


WRITES = {
    "commit": lambda store, attempt: store.commit(attempt, row_of(attempt)),
    "announce": lambda store, attempt: store.announce(CELL, 2, NOTE),
    "keep": lambda store, attempt: store.write_file("logs", "a.log", b"x" * 10_000),
    "write_cells": lambda store, attempt: store.write_cells({OTHER}),
    "driving": lambda store, attempt: store.as_driver().__enter__(),
}


@pytest.mark.parametrize("write", WRITES)
def test_a_full_disk_is_named_and_nothing_false_is_stored(disk, write):
    store, attempt = one_closed_and_one_open(disk)
    fill(disk)
    with pytest.raises(StoreError, match=rf"{store.place}.*No space left.*Free some.*RESULTS="):
        WRITES[write](store, attempt)
    require_intact(store, attempt)
    (disk / "ballast").unlink()
    assert not list(disk.rglob(".*"))
    require_closable(store, attempt)


def test_a_disk_that_became_read_only_is_named_and_can_still_be_read(disk):
    store, attempt = one_closed_and_one_open(disk)
    assert mount("-o", "remount,ro", str(disk)).returncode == 0
    for write in WRITES.values():
        with pytest.raises(StoreError, match=rf"{store.place}.*Read-only file system.*RESULTS="):
            write(store, attempt)
    require_intact(store, attempt)
    assert store.drivers() == []
    assert mount("-o", "remount,rw", str(disk)).returncode == 0
    require_closable(store, attempt)


def test_a_folder_that_cannot_hold_results_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    store = Store(tmp_path / "file" / "sweep")
    with pytest.raises(StoreError, match=r"file/sweep.*RESULTS="), store.as_driver():
        pytest.fail("drove a sweep in a place that is not there")


KILLED = """
import os, signal, sys
from datetime import datetime
from pathlib import Path
from sweep.store.store import Attempt, Store
from tests.support.drivers import row_of

def die(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)

place, step, cell = sys.argv[1:]
store = Store(place)
((attempt, _),) = store.unfinished()
if step == "before its name":
    os.link = die
    store.commit(attempt, row_of(attempt))
if step == "after its name":
    Path.unlink = die
    store.commit(attempt, row_of(attempt))
if step == "in the table":
    Path.replace = die
    store.write_cells({cell})
"""


@pytest.mark.parametrize("step", ["before its name", "after its name", "in the table"])
def test_a_kill_between_writing_and_naming_leaves_no_half_of_a_file(tmp_path, step):
    store, attempt = one_closed_and_one_open(tmp_path)
    store.write_cells({OTHER})
    before = store.files.read("cells.parquet")
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, store.place, step, CELL], cwd=ROOT, timeout=60
    )
    assert killed.returncode == -signal.SIGKILL
    hidden = [path for path in tmp_path.rglob(".*") if path.is_file()]
    assert len(hidden) == 1, "the kill came too early or too late"
    assert store.files.read("cells.parquet") == before
    if step == "after its name":
        assert [row["cell_id"] for row in store.read().rows] == [CELL, OTHER]
        return
    require_intact(store, attempt)
    os.utime(hidden[0], (0, 0))
    with store.as_driver():
        assert not hidden[0].exists()
    require_closable(store, attempt)
