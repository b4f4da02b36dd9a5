"""Whatever happens to an attempt, it ends in one row, and the others go on.

The pool is a double; what Ray does is tested with Ray (test_command.py).
"""

import threading
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace as Namespace

import pytest

from benchmarks.driver_scale import NUM_LEASES, stub_pool, sweep_of
from sweep.cli.session import close_orphans
from sweep.cluster.interface import LeaseLost, Node
from sweep.driver.attempt_row import Versions, lost_row
from sweep.driver.attempts import Attempts
from sweep.driver.control import Control
from sweep.driver.driver import Driver
from sweep.messages import PrepareResult
from sweep.provenance import Code, Revision
from sweep.schedule.plan import plan_unsettled
from sweep.store.files import StoreError
from sweep.store.store import Store
from tests.support.grids import cells_of, sweep_spec
from tests.support.pool import FakeLease, FakePool
from tests.support.reports import ARTIFACT, LAYERS, delivered, failed
from tests.sweep.cluster.test_sharing import claim as claim_of
from trainer.config.config_errors import ConfigError
from trainer.contract import RunSpec

pytestmark = pytest.mark.usefixtures("looks_often")
CODE = Code("0" * 64, None)
PATIENCE_S = 60.0  # against hanging alone; nothing is judged by it


class Recorder:
    """A display that remembers."""

    def __init__(self):
        self.views, self.lines, self.said = [], [], []

    def show(self, view):
        self.views.append(view)

    def say(self, text):
        self.said.append(text)

    def ended(self, ending):
        self.lines.append(ending)


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "test")
    with store.as_driver() as driver_id:
        store.driver_id = driver_id
        yield store


@pytest.fixture
def folder(store):
    return Path(store.place)


def driver_of(store, pool, sweep=None, control=None, num_leases=2):
    sweep, display = sweep or sweep_spec(), Recorder()
    attempts = Attempts(
        sweep=sweep,
        store=store,
        versions=Versions(store.driver_id, Revision("abc", False), "fake", CODE.trainer_hash),
        say=display.say,
    )
    attempts.load(store.read().rows, store.numbers())
    return Driver(
        sweep=sweep,
        pool=pool,
        attempts=attempts,
        display=display,
        control=control or Control(),
        lease_limit=lambda quarantined, wanted: wanted or num_leases,
        code=CODE,
    )


def run(store, work, sweep=None, pool=None, **settings):
    """Every cell that is open, with ``work`` in place of the agents."""
    sweep = sweep or sweep_spec()
    cells, pool = cells_of(sweep), pool or FakePool(work)
    history = store.read().history()
    driver = driver_of(store, pool, sweep, **settings)
    paused = driver.run(plan_unsettled(cells, history, sweep.retries, CODE.trainer_hash), history)
    rows = store.read().rows
    return Namespace(cells=cells, pool=pool, rows=rows, driver=driver, paused=paused)


def is_asqu_of_seed_1(order):
    spec = RunSpec.model_validate_json(order.spec_json)
    return spec.activation.name == "asqu" and spec.seed == 1


def well(order, stop):
    return delivered(order)


def hangs_once():
    """Work at which one cell hangs the first time it is tried."""
    tried = []

    def work(order, stop):
        if is_asqu_of_seed_1(order):
            tried.append(order)
            if len(tried) == 1:
                return failed("hung", "no progress", "hang")
        return delivered(order)

    return work


def states(rows):
    return Counter(row["state"] for row in rows)


def the_bad_rows(found):
    return [row for row in found.rows if row["state"] not in ("succeeded", "diverged")]


def test_every_cell_ends_in_one_row_with_its_measurements(store, folder):
    found = run(store, well)
    assert {row["cell_id"] for row in found.rows} == {cell.id for cell in found.cells}
    assert states(found.rows) == {"succeeded": 6}
    betas = {"relu2": 0.0, "leaky_relu2": 0.25, "asqu": None}
    for row in found.rows:
        assert row["artifact_bytes"] == row["model_bytes"] + row["code_bytes"]
        assert (row["slope"] is not None) == (row["activation"] == "leaky_relu2")
        assert row["neg_beta"] == betas[row["activation"]]
        assert (row["revision"], row["dirty"], row["source"]) == ("abc", False, "measured")
        assert (row["node"], row["node_id"]) == ("fake-node", "id of fake-node")
        assert (row["driver"], row["generation"], row["why"]) == (store.driver_id, 0, "new")
        assert (row["failure"], row["failure_signature"]) == (None, None)
        stem = f"{row['cell_id']}-1"
        assert (folder / "artifacts" / f"{stem}.bin").read_bytes() == ARTIFACT
        assert (folder / "curves" / f"{stem}.parquet").read_bytes() == b"curve"
        assert (folder / "layers" / f"{stem}.parquet").read_bytes() == LAYERS
        assert (folder / row["log"]).read_text() == "a line\n"
    display = found.driver.display
    assert [line.done for line in display.lines] == [1, 2, 3, 4, 5, 6]
    assert display.views[-1].num_ended == display.views[-1].total == 6
    assert found.pool.granted == found.pool.released == 2  # it holds no lease and waits for none
    assert found.pool.withdraw(99) == 0
    again = run(store, lambda order, stop: pytest.fail("ran again"))
    assert (again.pool.granted, len(again.rows)) == (0, 6)


def test_a_cell_that_always_ends_badly_is_given_up_and_stops_no_other(store, folder):
    def work(order, stop):
        if is_asqu_of_seed_1(order):
            return failed("failed", "rank 0 ended with status 1", "cell", "the same")
        return delivered(order)

    found = run(store, work)
    assert states(found.rows) == {"succeeded": 5, "failed": 2}
    for bad in the_bad_rows(found):
        assert (bad["reason"], bad["failure"]) == ("rank 0 ended with status 1", "cell")
        assert bad["failure_signature"] == "the same"
        assert bad["pre_quant_bpb"] is None
        assert (folder / bad["log"]).read_text() == "Traceback\n"
    assert plan_unsettled(found.cells, store.read().history()).todo == ()
    assert run(store, lambda order, stop: pytest.fail("ran again")).rows == found.rows


def test_a_cell_that_fails_once_is_tried_again_and_says_why(store):
    seen = []

    def work(order, stop):
        if is_asqu_of_seed_1(order) and not seen:
            seen.append(order)
            return failed("failed", "something passing", "infrastructure")
        return delivered(order)

    found = run(store, work)
    assert states(found.rows) == {"succeeded": 6, "failed": 1}
    (second,) = (row for row in found.rows if row["attempt"] == 2)
    assert second["why"] == "attempt 1 failed: something passing"
    assert len([line for line in found.driver.display.lines if line.done is not None]) == 6


def test_what_hung_is_tried_again_on_another_node(store):
    hung = []

    def work(order, stop):
        if is_asqu_of_seed_1(order) and not hung:
            hung.append(order)
            return failed("hung", "no progress", "hang")
        return delivered(order)

    pool = FakePool(work, names=["a", "b"], per_node=1)
    found = run(store, work, pool=pool, num_leases=1)
    (bad,) = the_bad_rows(found)
    (good,) = (row for row in found.rows if row["attempt"] == 2)
    assert {bad["node"], good["node"]} == {"a", "b"}


def test_a_report_of_nonsense_is_a_failed_attempt_without_numbers(store, folder):
    def work(order, stop):
        return delivered(order, **({"ttt_bpb": -1.0} if is_asqu_of_seed_1(order) else {}))

    found = run(store, work)
    assert states(found.rows) == {"succeeded": 5, "failed": 2}
    for bad in the_bad_rows(found):
        assert "the report is rejected" in bad["reason"]
        assert bad["pre_quant_bpb"] is None
        assert not (folder / "artifacts" / f"{bad['cell_id']}-1.bin").exists()


def diverged(order):
    scores = dict.fromkeys(
        ["pre_quant_bpb", "post_quant_bpb", "post_quant_sliding_bpb", "ttt_bpb", "model_bytes"]
    )
    answer = delivered(order, state="diverged", reason="the loss is not finite", **scores)
    return replace(answer, layers=None)


def test_a_diverged_run_is_a_result_without_layers(store, folder):
    found = run(store, lambda order, stop: diverged(order))
    assert states(found.rows) == {"diverged": 6}
    assert (folder / "curves").exists()
    assert not (folder / "layers").exists()
    assert plan_unsettled(found.cells, store.read().history()).todo == ()


def test_a_divergence_is_repeated_on_another_node_and_stands_beside_what_that_gives(store):
    on_a = []

    def once(order, stop):
        on_a.append(order)
        return diverged(order) if len(on_a) == 1 else delivered(order)

    pool = FakePool(well, names=["a", "b"], per_node=1, work_of={"a": once})
    found = run(store, well, pool=pool)
    rows = [row for row in found.rows if row["cell_id"] == on_a[0].cell_id]
    said = [(row["state"], row["to_confirm"], row["node"]) for row in rows]
    assert said == [("diverged", True, "a"), ("succeeded", None, "b")]
    (cell,) = (row for row in store.read().cells() if row["cell_id"] == on_a[0].cell_id)
    assert cell["reason"].endswith("attempt 2 on b succeeded, which changes nothing")


@pytest.mark.parametrize("log", ["step:3 train_loss", None])
def test_a_lost_lease_loses_one_attempt_whose_log_is_fetched_if_it_can_be_had(store, folder, log):
    lost = threading.Event()

    def work(order, stop):
        if not lost.is_set():
            lost.set()
            raise LeaseLost("NodeDiedError: the node is gone")
        return delivered(order)

    pool = FakePool(work)
    if log is not None:
        pool.logs["fake-node"] = log
    found = run(store, work, pool=pool, num_leases=1)
    assert states(found.rows) == {"succeeded": 6, "lost": 1}
    assert found.pool.granted == 2
    (row,) = the_bad_rows(found)
    assert "node is gone" in row["reason"]
    assert row["failure"] == "infrastructure"
    assert row["reason"].endswith("its log could not be fetched") == (log is None)
    assert (row["log"] and (folder / row["log"]).read_text()) == log


@pytest.mark.parametrize("how", ["silent", "gone"])
def test_an_agent_that_does_not_answer_is_given_up_and_what_it_says_later_is_not_kept(store, how):
    given_up, fallen_silent = threading.Event(), []

    class Watched(FakePool):
        def release(self, lease):
            super().release(lease)
            if lease.unresponsive_s or lease.is_gone:
                given_up.set()

    def work(order, stop):
        if is_asqu_of_seed_1(order) and not fallen_silent:
            fallen_silent.append(order)
            (lease,) = (lease for lease in pool.leases if lease._stop is stop)
            lease.unresponsive_s = 99.0 if how == "silent" else 0.0
            lease.is_gone = how == "gone"
            given_up.wait(PATIENCE_S)
        return delivered(order)

    pool = Watched(work)
    found = run(store, work, pool=pool)
    assert states(found.rows) == {"succeeded": 6, "lost": 1}
    (row,) = the_bad_rows(found)
    assert ("has not answered for 99 s" if how == "silent" else "its agent died") in row["reason"]


def test_every_held_agent_is_given_signs_of_life(store):
    class Listening(FakeLease):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.heard = threading.Event()

        def beat(self):
            super().beat()
            self.heard.set()

    def work(order, stop):
        lease = next(lease for lease in pool.leases if lease._stop is stop)
        heard.append(lease.heard.wait(PATIENCE_S))
        return delivered(order)

    heard = []
    pool = FakePool(work, lease=Listening)
    run(store, work, pool=pool, sweep=sweep_spec(seeds=[1]))
    assert heard == [True] * 3


def test_a_head_that_does_not_answer_ends_the_driver_and_closes_what_ran(store):
    class Headless(FakePool):
        @property
        def unresponsive_s(self):
            return 99.0 if self.leases and started.is_set() else 0.0

    started = threading.Event()

    def work(order, stop):
        started.set()
        ended.wait(PATIENCE_S)
        return delivered(order)

    ended = threading.Event()
    with pytest.raises(ConfigError, match="Ray's head has not answered for 99 s"):
        run(store, work, pool=Headless(work))
    ended.set()
    assert set(states(store.read().rows)) == {"lost"}
    assert {row["failure"] for row in store.read().rows} == {"driver"}
    (reason,) = {row["reason"] for row in store.read().rows}
    assert reason.startswith("its driver gave up: Ray's head has not answered")
    assert store.unfinished() == []


def test_a_driver_that_is_told_to_go_at_once_leaves_rows_that_say_so(store):
    def go(view):
        if view.leases:
            raise KeyboardInterrupt

    driver = driver_of(store, FakePool(lambda order, stop: stop.wait(0.5) or delivered(order)))
    driver.display.show = go
    with pytest.raises(KeyboardInterrupt):
        driver.run(plan_unsettled(cells_of(sweep_spec()), {}), {})
    assert {row["reason"] for row in store.read().rows} == {"its driver was told to end at once"}
    assert store.unfinished() == []


def test_an_agent_that_raises_fails_its_attempt_only(store):
    raised = []

    def work(order, stop):
        if is_asqu_of_seed_1(order) and not raised:
            raised.append(order)
            raise OSError("no space left on device")
        return delivered(order)

    found = run(store, work)
    assert states(found.rows) == {"succeeded": 6, "failed": 1}
    assert "no space left" in the_bad_rows(found)[0]["reason"]


def test_what_another_driver_has_announced_is_left_to_it(store):
    cells = cells_of(sweep_spec())
    driver = driver_of(store, FakePool(well))
    store.announce(cells[0].id, 1, {"driver": "another"})  # after this driver had looked
    driver.run(plan_unsettled(cells, {}), {})
    assert [task.cell for task in driver.skipped] == [cells[0]]
    assert {row["cell_id"] for row in store.read().rows} == {cell.id for cell in cells[1:]}


def test_an_answer_to_an_attempt_that_was_closed_meanwhile_is_kept_as_a_replicate(store):
    closed = []

    def work(order, stop):
        if not closed:
            (pair,) = store.unfinished()
            closed.append(pair)
            by_id = {cell.id: cell for cell in cells_of(sweep_spec())}
            row = lost_row("test", by_id, *pair, datetime.now(UTC), Revision("abc", False))
            store.commit(pair[0], row)
        return delivered(order)

    found = run(store, work, num_leases=1)
    assert states(found.rows) == {"succeeded": 6, "lost": 1}
    (attempt, _) = closed[0]
    rows = [row for row in found.rows if row["cell_id"] == attempt.cell_id]
    assert [(row["attempt"], row["state"]) for row in rows] == [(1, "lost"), (2, "succeeded")]
    assert any("closed by another driver" in text for text in found.driver.display.said)


def test_a_store_that_fails_for_a_while_is_asked_again(store, monkeypatch):
    monkeypatch.setattr("sweep.driver.attempts.RETRY_S", 0.05)
    commit, failures = store.commit, iter([True] * 4)

    def flaky(attempt, row):
        if next(failures, False):
            raise StoreError("the disk is full.")
        commit(attempt, row)

    monkeypatch.setattr(store, "commit", flaky)
    found = run(store, well)
    assert states(found.rows) == {"succeeded": 6}
    assert 1 <= sum("the disk is full" in text for text in found.driver.display.said) <= 4


def test_a_store_that_fails_for_good_ends_the_driver_with_a_sentence(store, monkeypatch):
    monkeypatch.setattr("sweep.driver.attempts.RETRY_S", 0.05)

    def full(attempt, row):
        raise StoreError("the disk is full.")

    monkeypatch.setattr(store, "commit", full)
    with pytest.raises(StoreError, match="the disk is full"):
        run(store, well, sweep=sweep_spec(limits={"grace_s": 0.2}))
    assert not store.read().rows
    assert store.unfinished()


def test_artifacts_are_kept_unless_the_sweep_says_otherwise(store, folder):
    run(store, well, sweep_spec(keep_artifacts=False))
    assert not (folder / "artifacts").exists()


def test_what_a_dead_driver_announced_is_closed_as_lost_and_run_again(store):
    cells = cells_of(sweep_spec())
    note = {"driver": "one that is gone", "node": "n1", "generation": 2}
    store.announce(cells[0].id, 1, note)
    assert close_orphans(store, "test", cells, Revision("abc", False)) == 1
    (row,) = store.read().rows
    assert (row["state"], row["cell"], row["node"]) == ("lost", cells[0].name, "n1")
    assert (row["failure"], row["generation"]) == ("driver", 2)
    assert "one that is gone" in row["reason"]
    assert cells[0] in [task.cell for task in plan_unsettled(cells, store.read().history()).todo]


def test_an_announcement_of_a_cell_that_the_grid_no_longer_has_is_closed_too(store):
    store.announce("f" * 16, 1, {"identity": {"cell": "gone__seed1", "recipe": "tiny"}})
    close_orphans(store, "test", [], Revision("abc", False))
    (row,) = store.read().rows
    assert (row["state"], row["cell"], row["recipe"]) == ("lost", "gone__seed1", "tiny")


def test_a_cluster_that_grants_no_lease_is_not_waited_for_for_ever(store):
    class Stingy(FakePool):
        def ready(self):
            return []

    sweep = sweep_spec(limits={"lease_wait_s": 0.1})
    driver = driver_of(store, Stingy(well), sweep)
    with pytest.raises(ConfigError, match=r"no lease was granted for 0\.1 s .*busy: the fake"):
        driver.run(plan_unsettled(cells_of(sweep), {}), {})
    assert store.unfinished() == []


# -- what a node must be


def test_a_node_is_asked_for_each_dataset_once_before_its_first_attempt(store):
    asked, sweep = [], sweep_spec(data={"cache": "/local", "missing": "fetch"})

    def prepare(requirements):
        asked.append(requirements)
        return PrepareResult()

    found = run(store, well, sweep, pool=FakePool(well, prepare=prepare), num_leases=1)
    (requirements,) = asked
    (dataset,) = requirements.datasets
    spec = found.cells[0].spec
    assert dataset.data_dir == spec.data_dir
    assert (dataset.corpus_sha256, dataset.tokenizer_sha256) == (
        spec.corpus_sha256,
        spec.tokenizer_sha256,
    )
    assert (dataset.dataset, dataset.vocab_size) == ("stdlib-512", 512)
    assert (dataset.cache, dataset.missing) == ("/local", "fetch")
    assert (requirements.trainer_hash, requirements.timed) == (CODE.trainer_hash, False)
    assert states(found.rows) == {"succeeded": len(found.cells)}


class WithHead(FakePool):
    """A head without CPUs stands beside the nodes."""

    def nodes(self):
        return [Node("head", cpus=0, gpus=0), *super().nodes()]


def test_where_no_node_is_fit_nothing_is_attempted_and_the_reason_is_said(store):
    """A head without CPUs is no node that could still become fit."""
    pool = WithHead(well, prepare=lambda requirements: PrepareResult(refusal="the disk is full"))
    with pytest.raises(ConfigError, match=r"no node can run .* fake-node: the disk is full"):
        run(store, well, pool=pool)
    assert pool.leases == []
    assert not store.read().rows
    assert not store.unfinished()


def test_a_node_that_is_not_fit_is_given_back_and_the_others_go_on(store):
    answers = iter([PrepareResult(refusal="not here"), PrepareResult(warnings=("it is hot",))])
    pool = FakePool(well, names=["a", "b"], per_node=1, prepare=lambda requirements: next(answers))
    found = run(store, well, pool=pool)
    assert states(found.rows) == {"succeeded": len(found.cells)}
    said = " ".join(found.driver.display.said)
    assert "is in quarantine: not here" in said
    assert "it is hot" in said


def test_a_node_is_checked_again_after_an_attempt_without_an_answer(store):
    """What hung there may have been the node's: it is refused, and its neighbour goes on."""
    checked = []

    def prepare(requirements):
        checked.append(requirements)
        return PrepareResult(refusal="a GPU is lost" if len(checked) > 1 else None)

    pool = FakePool(
        well,
        names=["bad", "good"],
        per_node=1,
        work_of={"bad": lambda order, stop: failed("hung", "no progress", "hang")},
        prepare_of={"bad": prepare},
    )
    found = run(store, well, pool=pool)
    assert len(checked) == 2
    assert Counter(row["node"] for row in found.rows) == {"bad": 1, "good": len(found.cells)}
    assert "bad is in quarantine: a GPU is lost" in found.driver.display.said


# -- what must not be left, waited for or repeated for ever


def test_an_interruption_is_heard_while_news_comes_without_a_break(store):
    control, sweep = Control(), sweep_of(400)
    driver = driver_of(store, stub_pool(), sweep, control, NUM_LEASES)
    driver.display.ended = lambda ending: control.drain()
    driver.run(plan_unsettled(cells_of(sweep), {}), {})
    assert 1 <= len(store.read().rows) < len(cells_of(sweep))


def test_any_number_of_cells_may_have_been_begun_by_another_driver(store):
    sweep = sweep_spec(replicates=180)  # more than Python has levels of calls
    cells = cells_of(sweep)
    driver = driver_of(store, FakePool(well), sweep)
    driver.attempts.announce = lambda task, lease: None
    driver.run(plan_unsettled(cells, {}), {})
    assert len(driver.skipped) == len(cells) == 1080


def test_a_node_where_no_lease_can_be_made_ready_is_left_alone(store):
    losses, lost_often = [], threading.Event()

    def lose(requirements):
        losses.append(requirements)
        if len(losses) == 3:
            lost_often.set()
        raise LeaseLost("ActorDiedError: the driver of the GPU has crashed it")

    def work(order, stop):
        lost_often.wait(PATIENCE_S)
        return delivered(order)

    pool = FakePool(work, names=["bad", "good"], per_node=1, prepare_of={"bad": lose})
    found = run(store, work, pool=pool)
    assert {row["node"] for row in found.rows} == {"good"}
    assert len(losses) == 3


def test_where_no_lease_can_be_made_ready_anywhere_the_sweep_pauses(store):
    def prepare(requirements):
        raise LeaseLost("ActorDiedError: the driver of the GPU has crashed it")

    pool = FakePool(well, prepare=prepare)
    paused = run(store, well, pool=pool, num_leases=1).paused
    assert "the driver of the GPU has crashed it" in paused


def test_a_retry_that_waits_for_another_node_goes_back_when_that_one_is_gone(store):
    work = hangs_once()

    class OthersHaveB(FakePool):
        looks = 0

        def _room(self, avoid):
            self.looks += "a" in avoid  # the driver waits for b in vain
            if self.looks == 3:
                del self.names[1:]
            return "a" if "a" not in avoid and not self.leases else None

    pool = OthersHaveB(work, names=["a", "b"], per_node=1)
    sweep = sweep_spec(limits={"lease_wait_s": 60.0})
    found = run(store, work, sweep, pool=pool)
    assert states(found.rows) == {"succeeded": 6, "hung": 1}
    assert {row["node"] for row in found.rows} == {"a"}


@pytest.mark.parametrize("ends", ["in order", "too late"])
def test_a_cell_on_a_node_that_is_taken_away_was_preempted_and_the_node_gets_no_other(store, ends):
    taken = []

    def work(order, stop):
        if taken:
            return delivered(order)
        (lease,) = pool.leases
        lease.is_preempted = True
        taken.append(order)
        if ends == "too late":
            raise LeaseLost("ActorDiedError: the node was preempted")
        return failed("interrupted", "its node is being taken away", "preemption")

    pool = FakePool(work)
    found = run(store, work, pool=pool, num_leases=1)
    assert found.pool.granted == 2
    (row,) = the_bad_rows(found)
    assert row["state"] == ("interrupted" if ends == "in order" else "lost")
    assert row["failure"] == "preemption"
    assert "taken away" in row["reason"]


def test_where_the_good_nodes_are_gone_for_a_while_they_are_waited_for(store):
    """One node is unfit; the other is preempted and comes back."""

    class Preempted(FakePool):
        looks = 0

        def release(self, lease):
            super().release(lease)
            if lease.node == "good" and not self.looks:
                self.names.remove("good")

        def nodes(self):
            if "good" not in self.names:
                self.looks += 1
                if self.looks == 5:
                    self.names.append("good")
            return super().nodes()

    def work(order, stop):
        if not pool.looks:
            raise LeaseLost("NodeDiedError")
        return delivered(order)

    unfit = {"unfit": lambda requirements: PrepareResult(refusal="not here")}
    pool = Preempted(work, names=["unfit", "good"], per_node=1, prepare_of=unfit)
    found = run(store, work, pool=pool)
    assert states(found.rows) == {"succeeded": 6, "lost": 1}


def test_whoever_wants_the_end_now_does_not_wait_for_a_store_that_fails(store, monkeypatch):
    monkeypatch.setattr("sweep.driver.attempts.RETRY_S", 0.05)
    control, tries = Control(), []

    def full(attempt, row):
        tries.append(attempt)
        if len(tries) == 2:
            control.stop("somebody stopped it")
        raise StoreError("the disk is full.")

    monkeypatch.setattr(store, "commit", full)
    driver = driver_of(store, FakePool(well), control=control)
    driver.attempts.must_stop = lambda: control.is_hurried
    with pytest.raises(StoreError, match="the disk is full"):
        driver.run(plan_unsettled(cells_of(sweep_spec()), {}), {})
    assert len(tries) <= 3


def test_a_look_at_other_drivers_that_fails_ends_nothing(store, monkeypatch):
    has_failed = threading.Event()

    def unreachable():
        has_failed.set()
        raise StoreError("no answer in time.")

    def work(order, stop):
        assert has_failed.wait(PATIENCE_S)
        return delivered(order)

    monkeypatch.setattr("sweep.driver.driver.WATCH_EVERY_S", 0.02)
    monkeypatch.setattr(store, "drivers", unreachable)
    cells = cells_of(sweep_spec())
    driver = driver_of(store, FakePool(work))
    store.announce(cells[0].id, 1, {"driver": "another"})
    driver.run(plan_unsettled(cells, {}), {})
    assert len(store.read().rows) == len(cells) - 1


def test_a_lease_is_given_back_to_a_sweep_that_waits_when_its_cell_has_ended(store):
    is_known, begun = threading.Event(), []

    class Shared(FakePool):
        def exchange(self, driver, claim):
            if len(begun) < 2:
                return []
            is_known.set()
            return [claim_of("other", size=1, unit="CPU", waits=True, usable={"a", "b"})]

    def work(order, stop):
        begun.append(order)
        is_known.wait(PATIENCE_S)
        return delivered(order)

    pool = Shared(work, names=["a", "b"], per_node=1)
    found = run(store, work, pool=pool)
    assert sorted(Counter(row["node"] for row in found.rows).values()) == [1, 5]
    said = [view.sharing for view in found.driver.display.views if view.sharing is not None]
    assert said[0] == "gives back 1 of 2 leases as cells end, to sweep of other (holds 0)"


def test_a_retry_for_which_no_other_node_is_to_be_had_is_made_on_the_same_one(store, monkeypatch):
    """Half of ``lease_wait_s`` is waited for another; each look in vain counts as 200 s here."""
    work, waited_s = hangs_once(), []
    clock = Namespace(monotonic=lambda: time.monotonic() + sum(waited_s), time=time.time)
    monkeypatch.setattr("sweep.driver.leases.time", clock)

    class OthersHaveB(FakePool):
        def _room(self, avoid):
            if "a" in avoid:
                waited_s.append(200.0)
            return "a" if "a" not in avoid and not self.leases else None

    pool = OthersHaveB(work, names=["a", "b"], per_node=1)
    found = run(store, work, sweep_spec(limits={"lease_wait_s": 1000.0}), pool=pool)
    assert states(found.rows) == {"succeeded": 6, "hung": 1}
    assert sum(waited_s) > 500.0
