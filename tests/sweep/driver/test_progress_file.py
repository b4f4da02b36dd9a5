"""While a driver works its progress lies in the store, for whoever looks; at its end it is gone."""

import json
from dataclasses import replace

import pytest

from sweep.driver.durations import Durations, kind_of
from sweep.driver.progress_file import progress_of
from sweep.store.history import EndedAttempt
from sweep.store.store import Store
from tests.support.commands import wait_until
from tests.support.grids import cells_of, sweep_spec
from tests.support.reports import delivered
from tests.sweep.driver.test_display import AT, view
from tests.sweep.driver.test_driver import run

pytestmark = pytest.mark.usefixtures("looks_often")


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "test")
    store.files.tell_every_s = 0.02
    with store.as_driver() as driver_id:
        store.driver_id = driver_id
        yield store


def test_the_store_shows_what_runs_while_it_runs_and_no_longer(store):
    name, seen = f"progress/{store.driver_id}.json", []

    def work(order, stop):
        def is_shown():
            shown = json.loads(store.files.read(name)) if store.files.exists(name) else {}
            mine = [each for each in shown.get("running", ()) if each["cell_id"] == order.cell_id]
            seen.extend([(shown, *mine)] if mine and mine[0]["phase"] == "train" else [])
            return seen and seen[-1][1]["cell_id"] == order.cell_id

        wait_until(is_shown)
        return delivered(order)

    found = run(store, work, num_leases=1, sweep=sweep_spec(seeds=[1]))
    assert not store.files.exists(name)
    by_id = {row["cell_id"]: row for row in found.rows}
    assert {mine["cell_id"] for _, mine in seen} == set(by_id)
    for shown, mine in seen:
        assert not shown["drain"]
        assert (mine["node"], mine["attempt"], mine["lease"]) == ("fake-node", 1, "lease 0")
        assert mine["started_at"] == by_id[mine["cell_id"]]["started_at"].isoformat()
        assert (mine["step"], mine["total_steps"], mine["step_ms"]) == (3, 7, 5.0)


def test_what_is_not_known_is_null():
    shown = progress_of(view(durations_s=[]))
    assert shown["ends_at"] is shown["paused"] is None
    assert (shown["waiting"], shown["node_hours"]) == (28, 0.5)
    assert shown["quarantined"] == {"n2": "too hot"}
    (lease,) = view().leases
    silent = replace(lease, progress=None, expected_end=None)
    (mine,) = progress_of(view(leases=[silent]))["running"]
    assert (mine["phase"], mine["step"], mine["total_steps"]) == ("starting", None, None)
    assert mine["expected_end"] is None
    (mine,) = progress_of(view())["running"]
    assert (mine["step"], mine["total_steps"], mine["remaining_steps"]) == (36, 136, 100.0)
    assert mine["started_at"] == AT.isoformat()


def test_an_attempt_may_take_as_long_as_the_longest_success_of_its_kind():
    cells = cells_of(sweep_spec(budgets=["4steps", "8steps"]))
    short = [cell for cell in cells if cell.spec.budget == "4steps"]
    ended = EndedAttempt(
        attempt=1, state="succeeded", tainted=False, reason=None, wall_s=30.0, ended_at_s=0.0
    )
    history = {short[0].id: [ended, replace(ended, state="failed", wall_s=900.0)]}
    durations = Durations(10.0, cells, history)
    durations.add(kind_of(short[1]), 20.0)
    found = {cell.spec.budget: durations.expected_s(kind_of(cell)) for cell in cells}
    assert found == {"4steps": 30.0, "8steps": 10.0}
