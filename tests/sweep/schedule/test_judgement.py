"""What is held against cells and nodes is read from rows, and does not know activations."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from sweep.schedule.plan import plan_failed, plan_unsettled
from sweep.schedule.quarantine import Quarantine, void_attempts
from sweep.schedule.retry import verdict
from sweep.schedule.scheduler import Scheduler
from sweep.spec.sweep_file import Retries
from sweep.store.history import by_time, select_attempt, void_divergences, with_void
from tests.support.grids import cells_of, sweep_spec
from tests.support.scheduling import FATES, REFERENCE, end, ended, scheduler

CELLS = cells_of(sweep_spec(seeds=[1, 2, 3, 4]))  # four blocks of three activations
DAY_S = 86400.0
POLICY = Retries()
ALL_NODES = ("a", "b", "c", "d")


def history_of(*ends):
    """(number of the cell, fate, node) in the order of time."""
    found = {}
    for second, (cell, fate, node) in enumerate(ends):
        attempts = found.setdefault(CELLS[cell].id, [])
        changes = {"to_confirm": True} if fate == "divergence" else {}
        at_s = 1000.0 * second
        attempts.append(ended(fate, node, len(attempts) + 1, ended_at_s=at_s, **changes))
    return found


def new_driver(history, now_s=0.0, *, plan=None, nodes=ALL_NODES):
    plan = plan or plan_unsettled(CELLS, history, POLICY)
    made = Scheduler(
        plan.todo, history, retries=POLICY, pairing="seed", reference=REFERENCE, now_s=now_s
    )
    made.set_reachable(nodes)
    return made


THREE_HANGS = [(0, "hang", "a"), (1, "hang", "a"), (2, "hang", "a"), (3, "success", "b")]


def test_a_new_driver_does_not_begin_to_trust_a_node_and_forgets_no_excuse():
    history = history_of(*THREE_HANGS, (0, "hang", "c"))
    assert set(new_driver(history).quarantined) == {"a"}
    plan = plan_unsettled(CELLS, history, POLICY)
    assert not plan.final, "one of its two hangs was on a node in quarantine"


def test_a_node_comes_back_when_its_strikes_have_aged_and_what_was_excused_stays_so():
    history = history_of(*THREE_HANGS, (0, "hang", "c"))
    assert set(new_driver(history, now_s=DAY_S + 1000.0).quarantined) == {"a"}  # the second's age
    assert not new_driver(history, now_s=DAY_S + 2000.0).quarantined
    history[CELLS[5].id] = [ended("success", "a", ended_at_s=9 * DAY_S)]
    assert not plan_unsettled(CELLS, history, POLICY).final


def test_who_runs_failed_cells_again_by_hand_begins_without_strikes():
    history = history_of(*THREE_HANGS)
    assert not new_driver(history, plan=plan_failed(CELLS, history)).quarantined


def test_a_machine_alone_is_never_in_quarantine_whatever_it_was_called_before():
    history = history_of((3, "success", "old name"), *THREE_HANGS[:3])
    assert not new_driver(history, nodes=("a",)).quarantined


def test_a_cell_that_was_given_up_is_open_again_when_its_node_goes_to_quarantine():
    made = scheduler(held="ab", cells=CELLS, retries=Retries(hang=0))
    assert end(made, "a", "hang")[1].kind == "final"
    before = made.num_waiting
    for _ in range(2):
        assert end(made, "a", "hang")[1].kind in ("final", "again")
    assert set(made.quarantined) == {"a"}
    assert made.num_waiting == before - 2 + 3


def test_a_cell_that_has_failed_is_not_given_to_a_node_that_fails():
    made = scheduler(held="ab", cells=CELLS, retries=Retries())
    fault, _ = end(made, "a", "fault")
    assert made.assign("a").cell != fault.cell
    assert made.assign("b").cell == fault.cell


def test_two_bad_nodes_do_not_excuse_each_other_and_one_that_succeeds_excuses_both():
    both = [(0, "hang", "a"), (0, "hang", "b"), (1, "hang", "a"), (2, "hang", "a")]
    assert void_attempts(history_of(*both, (3, "success", "c")), POLICY)
    trusted = history_of(*both, (4, "success", "b"), (3, "success", "c"))
    assert not void_attempts(trusted, POLICY)


# -- divergences


def test_where_there_is_no_other_node_a_divergence_settles_at_once():
    made = scheduler(held="a", cells=CELLS)
    made.set_reachable("a")
    assert end(made, "a", "divergence")[1].kind == "settled"


def test_a_divergence_is_confirmed_on_another_node_once():
    for second in ("divergence", "success"):
        made = scheduler(held="ab", cells=CELLS)
        first, follows = end(made, "a", "divergence")
        assert (follows.kind, follows.avoid) == ("again", {"a"})
        again, follows = end(made, "b", second)
        assert again.cell == first.cell
        assert follows.kind == "settled"


def test_a_new_driver_confirms_what_the_last_one_had_to():
    plan = plan_unsettled(CELLS, history_of((0, "divergence", "a")), POLICY)
    assert [task.avoid for task in plan.todo if task.cell == CELLS[0]] == [{"a"}]
    old = {CELLS[0].id: [ended("divergence", "a")]}  # of an earlier version
    assert plan_unsettled(CELLS, old, POLICY).settled == (CELLS[0],)


CONTRADICTED = [(0, "divergence", "a"), (0, "success", "b")]
TWICE = [*CONTRADICTED, (1, "divergence", "a"), (2, "divergence", "a"), (1, "success", "b")]


def states(history):
    void = with_void(history, void_divergences(history))
    return [select_attempt(void[cell.id]).state for cell in CELLS if cell.id in void]


def test_a_divergence_that_is_contradicted_stands_until_its_node_was_contradicted_twice():
    assert states(history_of(*CONTRADICTED)) == ["diverged"]
    assert states(history_of(*TWICE)) == ["succeeded", "succeeded", "diverged"]
    plan = plan_unsettled(CELLS, history_of(*TWICE), POLICY)
    assert CELLS[2] in [task.cell for task in plan.todo], "nobody has confirmed it"
    assert set(new_driver(history_of(*TWICE)).quarantined) == {"a"}


def test_a_node_that_succeeds_between_two_divergences_computes_no_nonsense():
    between = [*TWICE[:2], (3, "success", "a"), *TWICE[2:]]
    assert states(history_of(*between)) == ["diverged", "diverged", "diverged", "succeeded"]
    assert not new_driver(history_of(*between)).quarantined


def test_divergences_of_timed_cells_are_never_void():
    """They take as many steps as their node is fast."""
    timed = {
        cell: [replace(e, is_timed=True) for e in each] for cell, each in history_of(*TWICE).items()
    }
    assert states(timed) == ["diverged", "diverged", "diverged"]


# -- first principles

ENDS = st.lists(
    st.tuples(
        st.integers(0, len(CELLS) - 1), st.sampled_from(sorted(FATES)), st.sampled_from(ALL_NODES)
    ),
    max_size=30,
)


@given(ENDS, st.permutations(range(3)))
def test_no_judgement_depends_on_the_activation(ends, order):
    """Exchange activations within every block: their fates are exchanged, and nothing else."""
    by_block = {}
    for cell in CELLS:
        by_block.setdefault(cell.block, []).append(cell)
    partner = {
        cells[i].id: cells[order[i]].id for cells in by_block.values() for i in range(len(cells))
    }
    number = {cell.id: place for place, cell in enumerate(CELLS)}
    exchanged = [(number[partner[CELLS[cell].id]], *rest) for cell, *rest in ends]
    before = plan_unsettled(CELLS, history_of(*ends), POLICY)
    after = plan_unsettled(CELLS, history_of(*exchanged), POLICY)
    for one, other in ((before.todo, after.todo), (before.final, after.final)):
        said = {task.cell.id: (task.why, task.avoid) for task in other}
        assert {partner[task.cell.id]: (task.why, task.avoid) for task in one} == said
    assert {partner[c.id] for c in before.settled} == {c.id for c in after.settled}


@given(st.lists(st.sampled_from(sorted(FATES)), max_size=12))
def test_nothing_is_tried_until_it_succeeds(fates):
    """After an answer there is at most one other attempt that ends in one, and the first counts."""
    attempts, answers = [], []
    for number, fate in enumerate(fates, start=1):
        if verdict(attempts, POLICY, None).kind != "again":
            break
        first = fate == "divergence" and not answers
        attempts.append(ended(fate, "ab"[number % 2], number, to_confirm=first))
        answers += [attempts[-1]] if attempts[-1].is_answer else []
    assert len(answers) <= 2
    if answers:
        assert select_attempt(attempts) == answers[0]


@given(ENDS)
def test_a_new_driver_judges_as_the_one_that_saw_it_happen(ends):
    history, live = history_of(*ends), Quarantine(POLICY, {})
    for cell_id, attempt in by_time(history):
        live.record_end(cell_id, attempt, 1)
    read = Quarantine(POLICY, history)
    assert read.quarantined == live.quarantined
    assert read.void == live.void


@given(st.permutations(ALL_NODES), st.sampled_from(["error", "memory", "hang"]))
def test_a_cell_that_fails_everywhere_puts_no_node_in_quarantine(nodes, fate):
    """Three of its like neither: each is tried on two nodes, which have succeeded before."""
    ends = [(9 + i, "success", node) for i, node in enumerate(nodes[:3])]
    for cell in range(3):
        ends += [(cell, fate, nodes[cell]), (cell, fate, nodes[(cell + 1) % 3])]
    judged = Quarantine(Retries(strikes=1), history_of(*ends))
    assert not judged.quarantined
