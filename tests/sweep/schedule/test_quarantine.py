"""A node that fails is quarantined, a sweep that fails everywhere pauses; a few failures do not."""

import pytest

from sweep.schedule.quarantine import LAST_NODE_STRIKES, SHORT_LIFE_S
from sweep.spec.sweep_file import Retries
from tests.support.grids import cells_of, sweep_spec
from tests.support.scheduling import CELLS, NODES, end, ended, scheduler


@pytest.mark.parametrize("fate", ["error", "memory", "fault", "hang", "taint"])
def test_a_node_that_fails_three_times_in_a_row_in_any_way_gets_no_more_cells(fate):
    made = scheduler(held="ab", retries=Retries())
    end(made, "b")
    for _ in range(2):
        end(made, "a", fate)
    assert not made.quarantined
    end(made, "a", fate)
    assert set(made.quarantined) == {"a"}
    assert "3 attempts in a row ended there without an answer" in made.quarantined["a"]
    assert made.assign("a") is None
    assert made.assign("b") is not None


def test_a_success_clears_the_strikes_of_a_node():
    made = scheduler(held="a", retries=Retries())
    for fate in ("fault", "hang", "success") * 2:
        end(made, "a", fate)
    assert not made.quarantined


def test_a_node_that_goes_with_all_its_leases_has_one_strike():
    made = scheduler(held="aaaa", retries=Retries(strikes=2))
    tasks = [made.assign("a") for _ in range(4)]
    for second, task in enumerate(tasks):
        made.remove_lease("a")
        made.record_end(task, "a", ended("loss", "a", wall_s=60.0, ended_at_s=100.0 + second))
    assert not made.quarantined
    made.add_lease("a")
    task = made.assign("a")
    made.remove_lease("a")
    made.record_end(task, "a", ended("loss", "a", wall_s=60.0, ended_at_s=300.0))
    assert set(made.quarantined) == {"a"}


def test_a_node_that_is_lost_after_a_long_life_was_taken_away():
    for wall_s, is_bad in ((SHORT_LIFE_S, False), (SHORT_LIFE_S - 1, True)):
        made = scheduler(held="a", retries=Retries(strikes=2))
        for count in range(1, 3):
            end(made, "a", "loss", wall_s=wall_s, ended_at_s=1000.0 * count)
        assert bool(made.quarantined) is is_bad


def test_preemption_and_what_the_user_ended_are_no_strikes_however_often():
    for fate in ("preemption", "interruption"):
        made = scheduler(held="a", retries=Retries())
        for _ in range(30):
            assert end(made, "a", fate)[1].kind == "again"
        assert not made.quarantined


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
    for node in "abc":
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
        made = scheduler(held=NODES, history=history, retries=Retries(alike=3), trainer_hash="new")
        for node in "abc":
            end(made, node, "error", next_new(made, node))
        assert (made.paused is not None) is pauses


def test_nodes_that_go_before_any_success_do_not_pause_the_sweep():
    made = scheduler(held=NODES, retries=Retries(alike=2, strikes=10))
    for node in "abcabc":
        end(made, node, "loss")
    assert made.paused is None


def test_cells_that_fail_alike_on_one_node_of_several_do_not_pause_the_sweep():
    made = scheduler(held=NODES, retries=Retries(alike=2, strikes=9))
    for node in "aabb":
        end(made, node, "error", next_new(made, node))
    assert made.paused is None


def test_a_few_that_fail_alike_of_many_that_run_do_not_pause_the_sweep():
    cells = cells_of(sweep_spec(seeds=list(range(20))))
    made = scheduler(cells=cells, retries=Retries(alike=2))
    nodes = "abc" * 16
    for node in nodes:
        made.add_lease(node)
    tasks = [(node, made.assign(node)) for node in nodes]
    for node, task in tasks[:4]:
        end(made, node, "hang", task)
    assert made.paused is None
    for node, task in tasks[4:12]:
        end(made, node, "hang", task)
    assert made.paused is not None
