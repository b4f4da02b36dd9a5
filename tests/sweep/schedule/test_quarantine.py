"""A node that fails is quarantined, a sweep that fails everywhere pauses; a few failures do not."""

from sweep.schedule.quarantine import LAST_NODE_STRIKES
from sweep.spec.sweep_file import Retries
from tests.support.grids import cells_of, sweep_spec
from tests.support.scheduling import CELLS, NODES, end, ended, scheduler


def test_a_node_that_fails_twice_in_a_row_gets_no_more_cells():
    made = scheduler(held="ab", retries=Retries())
    end(made, "b")
    end(made, "a", "fault")
    assert not made.quarantined
    end(made, "a", "fault")
    assert set(made.quarantined) == {"a"}
    assert "NCCL" not in made.quarantined["a"]
    assert "2 failures of class infrastructure in a row" in made.quarantined["a"]
    assert made.assign("a") is None
    assert made.assign("b") is not None


def test_a_success_clears_the_strikes_of_a_node():
    made = scheduler(held="a", retries=Retries())
    for fate in ("fault", "success", "fault", "success"):
        end(made, "a", fate)
    assert not made.quarantined


def test_a_node_that_goes_with_all_its_leases_has_one_strike():
    made = scheduler(held="aaaa", retries=Retries())
    tasks = [made.assign("a") for _ in range(4)]
    for task in tasks:
        made.remove_lease("a")
        made.record_end(task, "a", ended("loss", "a"))
    assert not made.quarantined
    made.add_lease("a")
    task = made.assign("a")
    made.remove_lease("a")
    made.record_end(task, "a", ended("loss", "a"))
    assert set(made.quarantined) == {"a"}


def test_the_last_node_is_given_more_chances_and_then_the_sweep_pauses():
    made = scheduler(held="a", retries=Retries(strikes=2, infrastructure=100, alike=100))
    made.set_reachable(["a"])
    for _ in range(2 * LAST_NODE_STRIKES - 1):
        end(made, "a", "fault")
    assert (made.paused, made.quarantined) == (None, {})
    end(made, "a", "fault")
    assert "node a is the last one" in made.paused
    assert made.assign("a") is None


def test_different_cells_that_fail_alike_before_any_success_pause_the_sweep():
    made = scheduler(held=NODES, retries=Retries(alike=3))
    for node in "aba":
        assert made.paused is None
        end(made, node, "error", next_new(made, node))
    assert "3 different cells have failed alike and none has succeeded: E" in made.paused


def next_new(made, node):
    """A task that nothing was tried on; retries that come before it are set aside."""
    while (task := made.assign(node)).why != "new":
        made.skip(task, node)
    return task


def test_after_a_success_nothing_pauses_for_likeness():
    for fate in ("success", "divergence", "taint"):
        made = scheduler(held=NODES, retries=Retries(alike=2))
        end(made, "a", fate)
        for node in "bcb":
            end(made, node, "error")
        assert made.paused is None


def test_a_success_of_an_earlier_run_counts_unless_it_was_of_other_code():
    for trainer, pauses in (("old", True), ("new", False), (None, False)):
        history = {CELLS[0].id: [ended("success", "a", code_hash=trainer)]}
        made = scheduler(held=NODES, history=history, retries=Retries(alike=2), trainer_hash="new")
        for node in "bc":
            end(made, node, "error", next_new(made, node))
        assert (made.paused is not None) is pauses


def test_nodes_that_go_before_any_success_do_not_pause_the_sweep():
    made = scheduler(held=NODES, retries=Retries(alike=2, strikes=10))
    for node in "abcabc":
        end(made, node, "loss")
    assert made.paused is None


def test_cells_that_fail_alike_on_one_node_of_several_do_not_pause_the_sweep():
    made = scheduler(held=NODES, retries=Retries(alike=2))
    for _ in range(4):
        end(made, "a", "error")
    assert made.paused is None


def test_a_few_that_fail_alike_of_many_that_run_do_not_pause_the_sweep():
    cells = cells_of(sweep_spec(seeds=list(range(20))))
    made = scheduler(cells=cells, retries=Retries(alike=2))
    for node in "ab" * 25:
        made.add_lease(node)
    tasks = [(node, made.assign(node)) for node in "ab" * 25]
    for node, task in tasks[:4]:
        end(made, node, "hang", task)
    assert made.paused is None
    for node, task in tasks[4:10]:
        end(made, node, "hang", task)
    assert made.paused is not None
