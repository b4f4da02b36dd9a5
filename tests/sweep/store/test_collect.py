"""The tables for readers are there while a sweep runs, and after whatever has ended it."""

import contextlib

import pyarrow.parquet as pq
import pytest

from sweep.store.collect import collect, collect_if_behind, collected
from sweep.store.files import StoreError
from sweep.store.store import Store
from tests.support.commands import wait_until
from tests.support.drivers import row_of

CELL, OTHER = "0123456789abcdef", "f" * 16
CELLS = {CELL, OTHER}


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "sweep")
    made.write_sweep({"cells": [{"cell_id": CELL}, {"cell_id": OTHER}]})
    return made


def end(store, cell):
    attempt = store.announce(cell, 1, {"driver": "test"})
    store.commit(attempt, row_of(attempt))


def cells_of(store):
    if not store.files.exists("cells.parquet"):
        return None
    return pq.read_table(f"{store.place}/cells.parquet")["cell_id"].to_pylist()


def test_the_tables_grow_while_a_sweep_runs(store, monkeypatch):
    monkeypatch.setattr("sweep.store.collect.EVERY_S", 0.01)
    with collected(store, CELLS):
        end(store, CELL)
        wait_until(lambda: cells_of(store) == [CELL])
        end(store, OTHER)
        wait_until(lambda: cells_of(store) == [CELL, OTHER])
    assert store.files.exists("replicates.parquet")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_the_tables_are_whole_after_an_error(store, error):
    with contextlib.suppress(error), collected(store, CELLS):
        end(store, CELL)
        raise error
    assert cells_of(store) == [CELL]


def test_a_place_that_has_failed_is_not_asked_again(store, monkeypatch):
    asked = []
    end(store, CELL)
    with contextlib.suppress(StoreError), collected(store, CELLS):
        wait_until(lambda: cells_of(store) == [CELL])  # the first look, which is at once
        end(store, OTHER)
        monkeypatch.setattr(store, "write_cells", asked.append)
        raise StoreError("no room")
    assert asked == []


def test_an_error_before_anything_has_ended_leaves_no_table(store):
    with pytest.raises(ValueError, match="x"), collected(store, CELLS):
        raise ValueError("x")
    assert cells_of(store) is None


def test_what_has_ended_is_collected_at_any_time_and_without_attempts_nothing_changes(store):
    assert collect(store) is None
    assert cells_of(store) is None
    end(store, CELL)
    with store.as_driver():
        assert collect(Store(store.place)).table.num_rows == 1
    assert cells_of(store) == [CELL]


def test_readers_collect_only_where_the_tables_may_be_behind(store):
    end(store, CELL)
    collect_if_behind(store)
    assert cells_of(store) == [CELL]
    end(store, OTHER)
    collect_if_behind(store)  # nobody is at work: who was made the tables at his end
    assert cells_of(store) == [CELL]
    with store.as_driver():
        collect_if_behind(Store(store.place))
    assert cells_of(store) == [CELL, OTHER]


def test_an_attempt_is_read_once_and_one_that_was_taken_away_is_gone(store, monkeypatch):
    end(store, CELL)
    end(store, OTHER)
    read, asked = store.files.read, []
    monkeypatch.setattr(store.files, "read", lambda name: asked.append(name) or read(name))
    assert [store.read().table.num_rows for _ in range(2)] == [2, 2]
    assert len(asked) == 2
    store.files.remove(f"attempts/{CELL}-1.parquet")
    assert [row["cell_id"] for row in store.read().rows] == [OTHER]
