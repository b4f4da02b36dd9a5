"""Whatever happens to an attempt, it ends in one row, and the others go on.

The pool is a double; what Ray does is tested with Ray (test_command.py).
"""

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from sweep.driver import Driver, Interruption, close_lost
from sweep.lease import LeaseLost, Node, capacity
from sweep.plan import Plan, Task, plan
from sweep.provenance import Revision
from sweep.rows import Versions
from sweep.spec import NodeShape
from sweep.store import Store
from tests.support.grids import cells_of, sweep_spec
from tests.support.pool import FakePool
from tests.support.reports import ARTIFACT, delivered, failed
from trainer.contract import RunSpec
from trainer.strict import ConfigError


class Recorder:
    """A display that remembers."""

    def __init__(self):
        self.views, self.lines = [], []

    def show(self, view):
        self.views.append(view)

    def ended(self, cell, state, reason, wall_s, row):
        self.lines.append((cell, state))


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "test")
    with store.locked():
        yield store


def driver_of(store, pool, sweep=None, interruption=None, num_leases=2):
    return Driver(
        sweep=sweep or sweep_spec(),
        store=store,
        pool=pool,
        versions=Versions(Revision("abc", False), "fake"),
        display=Recorder(),
        interruption=interruption or Interruption(),
        num_leases=num_leases,
    )


def run(store, work, sweep=None, **settings):
    sweep = sweep or sweep_spec()
    cells, pool = cells_of(sweep), FakePool(work)
    driver = driver_of(store, pool, sweep, **settings)
    driver.run(plan(cells, store.read().history()))
    return cells, pool, store.read().rows


def is_asqu_of_seed_1(order):
    spec = RunSpec.model_validate_json(order.spec_json)
    return spec.activation.name == "asqu" and spec.seed == 1


def states(rows):
    return Counter(row["state"] for row in rows)


def test_every_cell_ends_in_one_row_with_its_measurements(store):
    cells, pool, rows = run(store, lambda order, stop: delivered(order))
    assert {row["cell_id"] for row in rows} == {cell.id for cell in cells}
    assert states(rows) == {"succeeded": 6}
    for row in rows:
        assert row["artifact_bytes"] == row["model_bytes"] + row["code_bytes"]
        assert (row["slope"] is not None) == (row["activation"] == "leaky_relu2")
        assert (
            row["neg_beta"] == {"relu2": 0.0, "leaky_relu2": 0.25, "asqu": None}[row["activation"]]
        )
        assert (row["revision"], row["dirty"], row["source"]) == ("abc", False, "measured")
        stem = f"{row['cell_id']}-1"
        assert (store.folder / "artifacts" / f"{stem}.bin").read_bytes() == ARTIFACT
        assert (store.folder / "curves" / f"{stem}.parquet").read_bytes() == b"curve"
        assert (store.folder / row["log"]).read_text() == "a line\n"
    assert pool.granted == 2


def test_a_second_run_finds_nothing_to_do(store):
    run(store, lambda order, stop: delivered(order))
    _, pool, rows = run(store, lambda order, stop: pytest.fail("ran again"))
    assert pool.granted == 0
    assert len(rows) == 6


BAD_ENDINGS = {
    "failed": lambda order: failed("failed", "rank 0 ended with status 1"),
    "oom": lambda order: failed("oom", "rank 0 ran out of memory"),
    "hung": lambda order: failed("hung", "no progress for 5 s"),
}


@pytest.mark.parametrize("state", BAD_ENDINGS)
def test_a_cell_that_ends_badly_says_so_and_stops_no_other(store, state):
    def work(order, stop):
        return BAD_ENDINGS[state](order) if is_asqu_of_seed_1(order) else delivered(order)

    _, _, rows = run(store, work)
    assert states(rows) == {"succeeded": 5, state: 1}
    (bad,) = (row for row in rows if row["state"] == state)
    assert bad["reason"] == BAD_ENDINGS[state](None).reason
    assert bad["pre_quant_bpb"] is None
    assert (store.folder / bad["log"]).read_text() == "Traceback\n"


NONSENSE = {
    "NaN": {"pre_quant_bpb": float("nan")},
    "negative": {"ttt_bpb": -1.0},
    "a missing score": {"post_quant_bpb": None},
    "a wrong type": {"steps": "many"},
    "an unknown state": {"state": "excellent"},
    "an unknown key": {"bonus": 1},
    "another recipe": {"recipe_hash": "0" * 16},
    "other data": {"corpus_sha256": "0" * 64},
    "another question": {"spec_hash": "0" * 16},
    "fewer steps": {"steps": 3},
    "another stride": {"stride": 7},
    "a sum that is none": {"artifact_bytes": 5},
    "another artifact": {"model_bytes": 12345},
}


@pytest.mark.parametrize("what", NONSENSE)
def test_a_report_of_nonsense_is_a_failed_attempt_without_numbers(store, what):
    def work(order, stop):
        return delivered(order, **(NONSENSE[what] if is_asqu_of_seed_1(order) else {}))

    _, _, rows = run(store, work)
    assert states(rows) == {"succeeded": 5, "failed": 1}
    (bad,) = (row for row in rows if row["state"] == "failed")
    assert "cannot be believed" in bad["reason"]
    assert bad["pre_quant_bpb"] is None
    assert not (store.folder / "artifacts" / f"{bad['cell_id']}-1.bin").exists()


def test_a_report_that_is_no_json_is_a_failed_attempt(store):
    def work(order, stop):
        return replace(delivered(order), report="state: fine")

    assert states(run(store, work)[2]) == {"failed": 6}


def test_a_diverged_run_is_a_result(store):
    scores = dict.fromkeys(
        ["pre_quant_bpb", "post_quant_bpb", "post_quant_sliding_bpb", "ttt_bpb", "model_bytes"]
    )

    def work(order, stop):
        return delivered(order, state="diverged", reason="the loss is not finite", **scores)

    cells, _, rows = run(store, work)
    assert states(rows) == {"diverged": 6}
    assert plan(cells, store.read().history()).todo == ()


def test_a_lost_lease_loses_one_attempt_and_is_replaced(store):
    lost = threading.Event()

    def work(order, stop):
        if not lost.is_set():
            lost.set()
            raise LeaseLost("NodeDiedError: the node is gone")
        return delivered(order)

    _, pool, rows = run(store, work)
    assert states(rows) == {"succeeded": 5, "lost": 1}
    assert (pool.granted, pool.released) == (3, 1)
    (row,) = (row for row in rows if row["state"] == "lost")
    assert "node is gone" in row["reason"]


def test_an_agent_that_raises_fails_its_cell_only(store):
    def work(order, stop):
        if is_asqu_of_seed_1(order):
            raise OSError("no space left on device")
        return delivered(order)

    _, _, rows = run(store, work)
    assert states(rows) == {"succeeded": 5, "failed": 1}
    assert any("no space left" in (row["reason"] or "") for row in rows)


def test_an_attempt_is_announced_before_it_is_made(store):
    def work(order, stop):
        assert len(store.unfinished()) >= 1
        return delivered(order)

    assert states(run(store, work, num_leases=1)[2]) == {"succeeded": 6}


def test_artifacts_are_kept_unless_the_sweep_says_otherwise(store):
    run(store, lambda order, stop: delivered(order), sweep_spec(keep_artifacts=False))
    assert list((store.folder / "artifacts").iterdir()) == []


def test_what_a_dead_driver_announced_is_closed_as_lost_and_run_again(store):
    cells = cells_of(sweep_spec())
    store.announce(cells[0].id, {"driver": "process 1 on elsewhere", "node": "n1"})
    assert close_lost(store, "test", cells, Revision("abc", False)) == 1
    (row,) = store.read().rows
    assert (row["state"], row["cell"], row["node"]) == ("lost", cells[0].name, "n1")
    assert "process 1 on elsewhere" in row["reason"]
    assert cells[0] in [task.cell for task in plan(cells, store.read().history()).todo]


def test_an_announcement_of_a_cell_that_the_grid_no_longer_has_is_closed_too(store):
    store.announce("f" * 16, {"identity": {"cell": "gone__seed1", "recipe": "tiny"}})
    close_lost(store, "test", [], Revision("abc", False))
    (row,) = store.read().rows
    assert (row["state"], row["cell"], row["recipe"]) == ("lost", "gone__seed1", "tiny")


def interrupted_run(store, requests, grace_s=60.0):
    """Run six cells that each wait to be stopped (or half a second), interrupted once two run."""
    interruption, started = Interruption(), threading.Barrier(3)

    def work(order, stop):
        started.wait(10)
        if stop.wait(0.5 if requests == 1 and grace_s > 1 else 20):
            return failed("interrupted", "stopped by the user")
        return delivered(order)

    sweep = sweep_spec(limits={"grace_s": grace_s})
    driver = driver_of(store, FakePool(work), sweep, interruption)
    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(driver.run, plan(cells_of(sweep), {}))
        started.wait(10)
        for _ in range(requests):
            interruption.request()
        begun = time.monotonic()
        done.result(30)
    return states(store.read().rows), time.monotonic() - begun


def test_one_interruption_lets_running_cells_finish_and_starts_no_other(store):
    assert interrupted_run(store, requests=1)[0] == {"succeeded": 2}


def test_after_the_grace_time_running_cells_are_stopped(store):
    found, took_s = interrupted_run(store, requests=1, grace_s=0.1)
    assert found == {"interrupted": 2}
    assert took_s < 10


def test_two_interruptions_stop_running_cells_at_once(store):
    found, took_s = interrupted_run(store, requests=2)
    assert found == {"interrupted": 2}
    assert took_s < 10


def test_a_cluster_that_grants_no_lease_is_not_waited_for_for_ever(store):
    class Stingy(FakePool):
        def ready(self):
            return []

    sweep = sweep_spec(limits={"lease_wait_s": 0.5})
    driver = driver_of(store, Stingy(lambda order, stop: delivered(order)), sweep)
    with pytest.raises(ConfigError, match=r"no lease was granted for 0\.5 s"):
        driver.run(plan(cells_of(sweep), {}))
    assert store.unfinished() == []


def test_a_run_of_one_cell_makes_exactly_one_attempt(store):
    cells = cells_of(sweep_spec())
    driver = driver_of(store, FakePool(lambda order, stop: delivered(order)))
    driver.run(Plan((Task(cells[3], "asked for by name"),), ()))
    assert [row["cell_id"] for row in store.read().rows] == [cells[3].id]


def test_the_display_is_told_of_every_ending_and_of_progress(store):
    driver = driver_of(store, FakePool(lambda order, stop: delivered(order)))
    driver.run(plan(cells_of(sweep_spec()), {}))
    assert len(driver.display.lines) == 6
    assert driver.display.views[-1].num_ended == driver.display.views[-1].total == 6
    steps = [lease.progress["step"] for view in driver.display.views for lease in view.leases]
    assert set(steps) <= {3}


@pytest.mark.parametrize(
    ("nodes", "shape", "expected"),
    [
        ([(2, 0)], NodeShape(cpus=1), (2, 1)),
        ([(64, 8), (64, 8), (8, 0)], NodeShape(cpus=64, gpus=8), (2, 2)),
        ([(64, 8)], NodeShape(cpus=8, gpus=1), (8, 1)),
        ([(4, 8)], NodeShape(cpus=8, gpus=1), (0, 0)),
        ([], NodeShape(), (0, 0)),
        ([(64, 8)], NodeShape(cpus=8, gpus=8, gpu_model="H100"), (0, 0)),
    ],
)
def test_the_capacity_is_what_fits_on_each_node(nodes, shape, expected):
    assert capacity([Node(str(i), cpus=c, gpus=g) for i, (c, g) in enumerate(nodes)], shape) == (
        expected
    )


def test_a_node_of_the_right_model_counts():
    node = Node("a", cpus=64, gpus=8, gpu_models=frozenset({"H100"}))
    assert capacity([node], NodeShape(cpus=8, gpus=8, gpu_model="H100")) == (1, 1)


# -- the data of a node


def test_a_node_is_asked_for_each_dataset_once_before_its_first_attempt(store):
    asked, sweep = [], sweep_spec(data={"cache": "/local", "missing": "fetch"})
    cells = cells_of(sweep)
    pool = FakePool(lambda order, stop: delivered(order), prepare=asked.append)
    driver_of(store, pool, sweep, num_leases=1).run(plan(cells, store.read().history()))
    ((supply,),) = asked
    spec = cells[0].spec
    assert supply.data_dir == spec.data_dir
    assert (supply.corpus_sha256, supply.tokenizer_sha256) == (
        spec.corpus_sha256,
        spec.tokenizer_sha256,
    )
    assert (supply.dataset, supply.vocab_size) == ("stdlib-512", 512)
    assert (supply.cache, supply.missing) == ("/local", "fetch")
    assert states(store.read().rows) == {"succeeded": len(cells)}


def test_where_no_node_has_the_data_nothing_is_attempted_and_the_reason_is_said(store):
    cells = cells_of(sweep_spec())
    pool = FakePool(
        lambda order, stop: delivered(order), prepare=lambda supplies: "the disk is full"
    )
    with pytest.raises(ConfigError, match=r"no node can run .* fake-node: the disk is full"):
        driver_of(store, pool).run(plan(cells, store.read().history()))
    assert pool.released == 2
    assert not store.read().rows
    assert not store.unfinished()


def test_a_node_without_the_data_is_given_back_and_the_others_go_on(store):
    answers = iter(["not here", None])
    pool = FakePool(lambda order, stop: delivered(order), prepare=lambda supplies: next(answers))
    cells = cells_of(sweep_spec())
    driver_of(store, pool).run(plan(cells, store.read().history()))
    assert pool.released == 1
    assert states(store.read().rows) == {"succeeded": len(cells)}


def test_a_lease_that_is_lost_while_it_is_prepared_is_no_answer(store):
    def prepare(supplies):
        raise LeaseLost("the node went away")

    pool = FakePool(lambda order, stop: delivered(order), prepare=prepare)
    with pytest.raises(ConfigError, match="LeaseLost: the node went away"):
        driver_of(store, pool).run(plan(cells_of(sweep_spec()), store.read().history()))
    assert not store.read().rows
