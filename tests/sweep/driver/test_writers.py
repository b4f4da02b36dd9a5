"""Writes are other threads': a slow one holds up its own cell and lease, and nothing else.

The times are those of the store's double; no assertion is about how long anything takes.
"""

import threading
import time

import pytest

from sweep.driver.writers import Writers
from sweep.store.store import Store
from tests.support.commands import wait_until
from tests.support.grids import sweep_spec
from tests.support.pool import FakeLease, FakePool
from tests.support.reports import delivered, failed
from tests.sweep.driver.test_driver import PATIENCE_S, run, states

pytestmark = pytest.mark.usefixtures("looks_often")


@pytest.fixture
def store(tmp_path):
    store = Slow(tmp_path / "test")
    with store.as_driver() as driver_id:
        store.driver_id = driver_id
        yield store


class Slow(Store):
    """Remembers when announcing and closing began and ended, which takes a while."""

    def __init__(self, place):
        super().__init__(place)
        self.seen, self.hold = [], lambda what, name: time.sleep(0.01)

    def announce(self, cell_id, number, note):
        return self._noted(
            "announce", f"{cell_id}-{number}", super().announce, cell_id, number, note
        )

    def commit(self, attempt, row):
        return self._noted("close", attempt.stem, super().commit, attempt, row)

    def _noted(self, what, name, write, *arguments):
        self.seen.append(("begin", what, name))
        self.hold(what, name)
        done = write(*arguments)
        self.seen.append(("end", what, name))
        return done


def test_a_cell_s_announcement_order_and_row_follow_each_other(store):
    ordered, failed_once = [], set()

    def work(order, stop):
        ordered.append(("end", "announce", order.stem) in store.seen)
        if order.cell_id not in failed_once:
            failed_once.add(order.cell_id)
            return failed("failed", f"something passing in {order.cell_id}", "infrastructure")
        return delivered(order)

    sweep = sweep_spec(retries={"strikes": 99, "alike": 99})
    found = run(store, work, sweep, pool=FakePool(work, per_node=6), num_leases=6)
    assert states(found.rows) == {"failed": 6, "succeeded": 6}
    assert all(ordered)
    for cell in found.cells:
        mine = [(when, what) for when, what, name in store.seen if name.startswith(cell.id)]
        assert mine == 2 * [
            ("begin", "announce"),
            ("end", "announce"),
            ("begin", "close"),
            ("end", "close"),
        ]


def test_a_write_that_waits_holds_up_no_other_cell(store):
    first, others_closed = [], threading.Event()

    def hold(what, name):
        if what == "close" and not first:
            first.append(name)
            assert others_closed.wait(PATIENCE_S)
        elif sum(seen[:2] == ("end", "close") for seen in store.seen) >= 4:
            others_closed.set()

    store.hold = hold
    found = run(store, lambda order, stop: delivered(order))
    assert states(found.rows) == {"succeeded": 6}


def test_a_lease_that_is_lost_before_its_cell_begins_costs_one_row(store):
    dying, looks = [], []

    class Dying(FakeLease):
        @property
        def is_gone(self):
            looks.extend(dying[:1] * (self.name == "lease 0"))
            return self.name == "lease 0" and bool(dying)

        is_gone = is_gone.setter(lambda self, value: None)

    def hold(what, name):
        if what == "announce" and not dying:
            dying.append(name)
            wait_until(lambda: len(looks) >= 2)  # at the second look the first one has been heeded

    store.hold = hold
    pool = FakePool(lambda order, stop: delivered(order), lease=Dying)
    found = run(store, None, pool=pool, num_leases=1)
    assert states(found.rows) == {"succeeded": 6, "lost": 1}
    (row,) = (row for row in found.rows if row["state"] == "lost")
    assert "its agent died" in row["reason"]
    assert pool.granted == pool.released == 2


def test_what_was_submitted_is_done_before_the_threads_end():
    writers, done = Writers(2), []
    futures = [writers.submit(lambda i=i: done.append(i)) for i in range(50)]
    error = writers.submit(lambda: 1 / 0)
    writers.close(PATIENCE_S)
    assert sorted(done) == list(range(50))
    assert all(future.done() for future in futures)
    assert isinstance(error.exception(), ZeroDivisionError)
