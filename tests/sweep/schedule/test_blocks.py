"""With pairing by node a block stays together, and where it cannot its reference goes along."""

from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from sweep.schedule.plan import plan_refresh
from sweep.schedule.scheduler import Scheduler
from sweep.spec.sweep_file import Retries
from tests.support.scheduling import (
    BENIGN,
    BLOCKS,
    CELLS,
    NODES,
    REFERENCE,
    drain,
    end,
    ended,
    scheduler,
)


def test_without_failures_a_block_stays_on_one_node():
    made = scheduler("node", held="aab")
    places = defaultdict(set)
    for task, node in drain(made, "aab"):
        places[task.cell.block].add(node)
        assert not task.is_reference_rerun
    assert sorted(map(len, places.values())) == [1, 1]
    assert set.union(*places.values()) == {"a", "b"}


def test_a_cell_that_failed_waits_for_the_home_of_its_block():
    made = scheduler("node", held="ab")
    made.assign("b")
    failed, _ = end(made, "a", "fault")
    drain(made, "b")
    assert made.assign("b") is None
    assert made.avoided_by_retry("b") is None
    assert made.assign("a").cell == failed.cell


def test_a_cell_that_hung_at_home_runs_elsewhere_and_its_reference_is_taken_along():
    made = scheduler("node", held="ab", cells=[c for c in CELLS if c.block == BLOCKS[0]])
    hung = next(iter(end(made, "a", "hang")))
    rest = drain(made, "a")
    assert [node for _, node in rest] == ["a", "a"]
    ran = drain(made, "b")
    is_reference = hung.cell.spec.activation.label == REFERENCE
    assert ran[0][0].cell == hung.cell
    along = [task for task, _ in [*ran[1:], *drain(made, "a")] if task.is_reference_rerun]
    if not is_reference:
        assert [task.cell.spec.activation.label for task in along] == [REFERENCE]


def test_a_block_whose_home_is_gone_moves_once_and_whole():
    made = scheduler("node", held="a", cells=[c for c in CELLS if c.block == BLOCKS[0]])
    end(made, "a")
    made.remove_lease("a")
    for node in "bc":
        made.add_lease(node)
    first = made.assign("b")
    assert made.assign("c") is None
    end(made, "b", task=first)
    made.add_lease("a")
    assert made.assign("a") is None or made.num_waiting == 0  # it has a new home


def test_a_block_returns_to_its_home_in_the_next_run():
    block = [cell for cell in CELLS if cell.block == BLOCKS[1]]
    history = {cell.id: [ended("success", "c")] for cell in block[:2]}
    made = scheduler("node", history=history, held="abc")
    handed = {node: made.assign(node).cell for node in "ca"}
    assert handed["c"] == block[2]
    assert handed["a"].block == BLOCKS[0]


def test_blocks_that_are_settled_already_ask_for_no_leases():
    history = {cell.id: [ended("success", "c")] for cell in CELLS if cell.block == BLOCKS[0]}
    assert scheduler("node", history=history).useful_leases() == 1


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_node_with_an_answer_has_the_reference_too_unless_its_lease_is_lost(data):
    retries = Retries(infrastructure=100, strikes=100, alike=1000)
    made = scheduler("node", held=NODES, retries=retries)
    held, answers, rerun = set(NODES), set(), set()
    for _ in range(data.draw(st.integers(0, 25))):
        node = data.draw(st.sampled_from(NODES))
        if node not in held:
            held.add(node)
            made.add_lease(node)
        elif (task := made.assign(node)) is not None:
            fate = data.draw(st.sampled_from(["success", "success", "fault", "loss", "hang"]))
            if fate == "loss":
                held.discard(node)
                made.remove_lease(node)
            if fate == "success":
                answers.add((task.cell.block, node, task.cell.spec.activation.label))
            elif task.is_reference_rerun:
                rerun.add((task.cell.block, node))
            end(made, node, fate, task)
    for node in set(NODES) - held:
        made.add_lease(node)
    for task, node in drain(made, NODES):
        answers.add((task.cell.block, node, task.cell.spec.activation.label))
    assert made.num_waiting == 0
    # A reference that hung twice is given up: at home its block has none, elsewhere that node.
    known = {block for block, _, label in answers if label == REFERENCE}
    given_up = {(b, n) for b, n, _ in answers if b in known} - {
        (b, n) for b, n, label in answers if label == REFERENCE
    }
    assert given_up <= rerun


def test_a_reference_that_was_taken_along_and_failed_is_tried_again_there():
    block = [cell for cell in CELLS if cell.block == BLOCKS[0]]
    reference = next(c for c in block if c.spec.activation.label == REFERENCE)
    history = {reference.id: [ended("success", "a", generation=2)]}
    made = scheduler("node", cells=block, history=history, held="b")
    first, _ = end(made, "b")
    along = made.assign("b")
    assert (along.is_reference_rerun, along.cell, along.generation) == (True, reference, 2)
    end(made, "b", "fault", along)
    again = made.assign("b")
    assert (again.is_reference_rerun, again.cell) == (True, reference)
    end(made, "b", task=again)
    assert [task.is_reference_rerun for task, _ in drain(made, "b")] == [False]
    assert first.cell != reference


def test_an_answer_that_is_being_refreshed_is_taken_along_nowhere():
    block = [cell for cell in CELLS if cell.block == BLOCKS[0]]
    then, now = "old", "new"
    history = {
        c.id: [ended("success", n, code_hash=then)] for c, n in zip(block, "aab", strict=True)
    }
    planned = plan_refresh(block, history, now)
    made = Scheduler(
        planned.todo,
        history,
        retries=BENIGN,
        pairing="node",
        reference=REFERENCE,
        trainer_hash=now,
        settled=planned.settled,
    )
    for node in "ab":
        made.add_lease(node)
    tasks = [task for task in map(made.assign, "abababab") if task is not None]
    assert sorted(task.cell.id for task in tasks) == sorted(cell.id for cell in block)
    assert {task.generation for task in tasks} == {1}
