"""A driver that is asked to drain or to stop, or whose job ends: what ends, begins, and is told."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sweep.cluster.interface import LeaseLost
from sweep.driver.control import Control
from sweep.driver.requests import Request, ask, requests_heard
from sweep.schedule.plan import plan_unsettled
from sweep.store.store import Store
from tests.support.commands import wait_until
from tests.support.grids import cells_of, sweep_spec
from tests.support.pool import FakePool
from tests.support.reports import delivered, failed
from tests.sweep.driver.test_driver import PATIENCE_S, driver_of, run, states, well

pytestmark = pytest.mark.usefixtures("looks_often")


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "test")
    store.files.tell_every_s = store.files.ask_every_s = 0.02
    with store.as_driver() as driver_id:
        store.driver_id = driver_id
        yield store


def asked_run(store, ask, *, ends, end=None, sweep=None, control=None, num_leases=2):
    """Run cells that end by themselves, or with the error ``end``, only if ``ends``.

    ``ask(control)`` once two of them run.
    """
    control, started, asked = control or Control(), threading.Barrier(3), threading.Event()

    def work(order, stop):
        started.wait(PATIENCE_S)
        asked.wait(PATIENCE_S)
        if ends:
            looks = len(driver.display.views)
            wait_until(lambda: stop.is_set() or len(driver.display.views) >= looks + 4)
        if stop.wait(0.0 if ends else PATIENCE_S):
            return failed("interrupted", "stopped by the user", "user")
        if end is not None:
            raise end
        return delivered(order)

    sweep = sweep or sweep_spec()
    driver = driver_of(store, FakePool(work), sweep, control, num_leases)
    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(driver.run, plan_unsettled(cells_of(sweep), {}), {})
        started.wait(PATIENCE_S)
        ask(control)
        asked.set()
        done.result()
    return driver, store.read().rows


def test_while_it_drains_running_cells_finish_and_no_other_begins(store):
    driver, rows = asked_run(store, Control.drain, ends=True)
    assert states(rows) == {"succeeded": 2}
    assert any("Draining" in (view.stopping or "") for view in driver.display.views)


def test_to_stop_now_ends_what_runs_and_the_row_says_why(store):
    driver, rows = asked_run(store, lambda control: control.stop("the user did it"), ends=False)
    assert states(rows) == {"interrupted": 2}
    assert {row["reason"] for row in rows} == {"stopped before it ended: the user did it"}
    assert {row["failure"] for row in rows} == {"user"}
    reasons = [line.reason for line in driver.display.lines]
    assert all(reason.endswith("`make sweep` tries it again") for reason in reasons)


def test_what_is_lost_with_a_cluster_that_the_scheduler_ends_is_interrupted(store):
    """Slurm sends SIGTERM to every process of a job, Ray's among them."""

    def warn(control):
        control.stop("the scheduler ended the job (SIGTERM)", 60.0)

    _, rows = asked_run(store, warn, ends=True, end=LeaseLost("ActorDiedError: SIGTERM"))
    assert states(rows) == {"interrupted": 2}
    for row in rows:
        assert row["failure"] == "user"
        assert row["reason"].startswith("stopped before it ended: the scheduler ended the job")


@pytest.mark.parametrize(("expected_s", "state"), [(10.0, "succeeded"), (900.0, "interrupted")])
def test_a_warned_driver_lets_those_finish_that_can(store, expected_s, state):
    def warn(control):
        control.stop("the scheduler ended the job (SIGTERM)", 60.0)

    sweep = sweep_spec(estimate_cell_s=expected_s)
    _, rows = asked_run(store, warn, ends=state == "succeeded", sweep=sweep)
    assert states(rows) == {state: 2}


def test_a_warned_driver_stops_in_time_what_has_not_ended_as_expected(store):
    def warn(control):
        control.stop("the scheduler ended the job (SIGTERM)", 0.4)

    _, rows = asked_run(store, warn, ends=False, sweep=sweep_spec(estimate_cell_s=0.01))
    assert states(rows) == {"interrupted": 2}


def test_an_attempt_that_never_ends_is_called_hung(store):
    hung = []

    def work(order, stop):
        if not hung:
            hung.append(order)
            stop.wait(PATIENCE_S)
            return failed("interrupted", "stopped by the user", "user")
        return delivered(order)

    found = run(store, work, sweep_spec(limits={"attempt_s": 0.3}), num_leases=1)
    assert states(found.rows) == {"succeeded": 6, "hung": 1}
    (row,) = (row for row in found.rows if row["state"] == "hung")
    assert row["reason"] == "it has not ended within 0 s (limits.attempt_s); stopped"
    assert row["failure"] == "hang"


def test_no_cell_begins_that_cannot_end_before_the_job_does(store):
    """Of two lengths the short ones are run, though the long ones come first."""
    sweep = sweep_spec(budgets=["4steps", "9000steps"])
    cells, history = cells_of(sweep), {}
    long = {cell.id for cell in cells if cell.spec.budget == "9000steps"}
    driver = driver_of(store, FakePool(well), sweep, Control(job_end_at=time.time() + 700.0))
    plan = plan_unsettled(cells, history)
    expected_s, driver.has_begun = {True: 600.0, False: 10.0}, False

    class Known:
        add = staticmethod(lambda kind, wall_s: None)
        expected_s = staticmethod(lambda kind: expected_s[kind[0] == "9000steps"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sweep.driver.driver.Durations", lambda *_: Known)
        driver.run(plan, history)
    assert {row["cell_id"] for row in store.read().rows} == {cell.id for cell in cells} - long
    assert driver.too_long == dict.fromkeys(long, 600.0)
    assert driver.has_begun


@pytest.mark.parametrize(("keep", "begins"), [("results", True), ("node", False)])
def test_a_long_cell_begins_before_the_end_if_another_job_can_go_on_from_it(store, keep, begins):
    sweep = sweep_spec(estimate_cell_s=9000.0, checkpoints={"keep": keep})
    driver = driver_of(store, FakePool(well), sweep, Control(job_end_at=time.time() + 1000.0))
    driver.run(plan_unsettled(cells_of(sweep), {}), {})
    assert driver.has_begun == begins
    assert len(driver.too_long) == (0 if begins else 6)


def test_fewer_leases_are_held_as_soon_as_cells_end(store):
    held = []

    def work(order, stop):
        held.append(len(pool.leases))
        wait_until(lambda: len(held) >= 2)
        if len(held) == 2:
            control.max_leases = 1
        return delivered(order)

    control, pool = Control(), FakePool(work)
    driver = driver_of(store, pool, control=control)
    driver.run(plan_unsettled(cells_of(sweep_spec()), {}), {})
    assert held[-1] == 1
    assert states(store.read().rows) == {"succeeded": 6}


def test_a_request_through_the_store_is_obeyed_and_answered(store):
    control = Control()
    with requests_heard(store, store.driver_id, control):
        answer = ask(store, store.driver_id, Request(max_leases=3))
        assert "at most 3 leases" in answer
        assert (control.max_leases, control.drains) == (3, False)
        assert "Draining" in ask(store, store.driver_id, Request(stop="drain"))
        assert (control.drains, control.is_over) == (True, False)
        assert "Stopping now" in ask(store, store.driver_id, Request(stop="now"))
        assert control.is_over
    assert store.files.names("requests") == store.files.names("answers") == []


def test_a_driver_that_does_not_look_gives_no_answer(store, monkeypatch):
    monkeypatch.setattr("sweep.driver.requests.ANSWER_S", 0.1)
    assert ask(store, "somebody", Request(stop="now")) is None
