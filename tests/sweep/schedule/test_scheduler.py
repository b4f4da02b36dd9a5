"""What a lease does next follows from what has been tried, in this run and in earlier ones."""

from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from sweep.schedule.plan import Task
from sweep.schedule.scheduler import Scheduler
from tests.support.grids import cells_of, sweep_spec
from tests.support.scheduling import (
    BENIGN,
    CELLS,
    FATES,
    NODES,
    REFERENCE,
    drain,
    end,
    ended,
    scheduler,
)


def test_with_pairing_by_seed_every_lease_takes_the_next_cell():
    made = scheduler(held=NODES)
    assert [made.assign(node).cell for node in "abcabc"] == CELLS
    assert made.assign("a") is None


def test_cells_of_long_budgets_come_first_and_the_others_keep_their_order():
    cells = cells_of(sweep_spec(budgets=["4steps", "60s", "16steps", "600s"]))
    handed = [task.cell for task, _ in drain(scheduler(cells=cells, held="a"), "a")]
    rank = ["16steps", "4steps", "600s", "60s"]
    assert handed == sorted(cells, key=lambda cell: rank.index(cell.spec.budget))


def test_a_cell_that_failed_comes_before_those_that_are_new():
    made = scheduler(held="ab")
    failed, follows = end(made, "a", "error")
    assert follows.kind == "again"
    assert made.assign("a").cell != failed.cell  # not where it failed
    assert made.assign("b").cell == failed.cell


def test_where_there_is_one_node_alone_a_cell_is_tried_again_there_after_all_others():
    made = scheduler(held="a")
    made.set_reachable(["a"])
    failed, _ = end(made, "a", "hang")
    handed = [task.cell for task, _ in drain(made, "a")]
    assert handed == [*(cell for cell in CELLS if cell != failed.cell), failed.cell]


def test_nodes_in_quarantine_are_no_other_nodes():
    made = scheduler(held="ab", cells=CELLS[:1])
    made.set_reachable("ab")
    end(made, "a", "hang")
    assert made.assign("a") is None
    made.quarantine("b", "its disk is full")
    assert made.assign("b") is None
    assert made.assign("a") is not None


def test_a_lease_whose_node_is_to_be_avoided_is_of_use_elsewhere():
    made = scheduler(held="a", cells=CELLS[:1])
    end(made, "a", "hang")
    assert made.avoided_by_retry("a") == {"a"}
    assert made.avoided_by_retry("b") is None
    assert made.useful_leases() == 1


def test_after_a_stop_nothing_is_handed_out_and_no_lease_is_useful_but_those_at_work():
    made = scheduler(held="ab")
    made.assign("a")
    made.stop()
    assert made.assign("b") is None
    assert (made.is_open, made.useful_leases()) == (False, 1)


# -- a run that goes on where another stopped


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_scheduler_made_from_the_history_of_another_decides_as_it_would(data):
    old, history = scheduler(held=NODES), defaultdict(list)
    fates = sorted(FATES)
    for _ in range(data.draw(st.integers(0, 20))):
        node = data.draw(st.sampled_from(NODES))
        task = old.assign(node)
        if task is not None:
            said = ended(data.draw(st.sampled_from(fates)), node, len(history[task.cell.id]) + 1)
            history[task.cell.id].append(said)
            old.record_end(task, node, said)
    history = {cell: list(attempts) for cell, attempts in history.items() if attempts}
    new = scheduler(held=NODES, history=history)
    order = data.draw(st.permutations(NODES))
    for node in order:  # what each may run, the others standing by
        assert everything(old, node) == everything(new, node)
    assert old.num_waiting == new.num_waiting == 0


def everything(made, node):
    """All that ``node`` may run now, and where it may not run."""
    handed = []
    while (task := made.assign(node)) is not None:
        handed.append((task.cell.id, task.avoid))
        made.skip(task, node)
    return sorted(handed, key=repr)


def test_a_cell_that_is_asked_for_anew_has_all_its_budgets():
    history = {CELLS[0].id: [ended("memory", "a")]}
    task = Task(CELLS[0], "asked for by name", ignores_failures=True)
    made = Scheduler([task], history, retries=BENIGN, pairing="seed", reference=REFERENCE)
    made.add_lease("a")
    assert end(made, "a", "fault")[1].kind == "again"


def test_attempts_of_another_generation_are_not_counted():
    history = {CELLS[0].id: [ended("hang", "a"), ended("hang", "b", 2)]}
    task = Task(CELLS[0], "stale", generation=1)
    made = Scheduler([task], history, retries=BENIGN, pairing="seed", reference=REFERENCE)
    made.set_reachable(NODES)
    made.add_lease("a")
    assert end(made, "a", "hang")[1].kind == "again"
