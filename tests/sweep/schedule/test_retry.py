"""What follows from the attempts at a cell depends on their classes, each with its own budget."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from sweep.schedule.retry import NOBODYS, verdict
from sweep.spec.sweep_file import Retries
from sweep.store.history import EndedAttempt
from sweep.store.schema import FAILURES, TERMINAL_STATES

POLICY = Retries()
NODES = ("a", "b", "c")
STATE_OF = {
    "cell": "failed",
    "memory": "oom",
    "infrastructure": "lost",
    "hang": "hung",
    "driver": "lost",
    "preemption": "lost",
    "user": "interrupted",
}


def ended(state, failure=None, **changes):
    values = {"attempt": 1, "tainted": False, "reason": "why", "wall_s": 1.0, "node": "a"}
    values["ended_at_s"] = 1.0
    return EndedAttempt(state=state, failure=failure, **(values | changes))


def failed(failure, **changes):
    return ended(STATE_OF[failure], failure, **changes)


def follows(*attempts, policy=POLICY, code_hash=None):
    numbered = [replace(ended, attempt=number) for number, ended in enumerate(attempts, 1)]
    return verdict(numbered, policy, code_hash)


def test_an_untainted_answer_settles_whatever_came_before():
    assert follows().kind == "again"
    for state in TERMINAL_STATES:
        for before in ([], [failed("memory")], [failed("cell")] * 5):
            assert follows(*before, ended(state)).kind == "settled"
            assert follows(ended(state), *before).kind == "settled"


def test_what_ran_out_of_memory_or_hung_is_tried_once_more_elsewhere():
    for failure in ("memory", "hang"):
        once = follows(failed(failure, node="b"))
        assert (once.kind, once.avoid) == ("again", {"b"})
        assert follows(failed(failure, node="b"), failed(failure, node="c")).kind == "final"


def test_the_same_error_is_final_when_it_has_come_on_two_nodes():
    first = failed("cell", node="a", signature="E")
    once = follows(first)
    assert (once.kind, once.avoid) == ("again", {"a"})
    twice = follows(first, failed("cell", node="b", signature="E"))
    assert twice.kind == "final"
    assert "on a, b" in twice.why
    assert "E" in twice.why


def test_errors_that_differ_are_not_one_error_but_end_too():
    errors = [failed("cell", node=f"n{i}", signature=f"E{i}") for i in range(4)]
    assert [follows(*errors[: i + 1]).kind for i in range(4)] == [
        "again",
        "again",
        "again",
        "final",
    ]
    assert follows(*errors[:3]).avoid == {"n0", "n1", "n2"}


def test_infrastructure_is_tried_again_many_times_twice_on_one_node():
    lost = [failed("infrastructure", node=n) for n in NODES * 3]
    for count in range(1, POLICY.infrastructure + 1):
        found = follows(*lost[:count])
        assert (found.kind, found.avoid) == ("again", frozenset(NODES[: max(0, count - 3)]))
    assert follows(*lost).kind == "final"


def test_a_budget_of_one_class_is_not_spent_by_another():
    mixed = [failed("infrastructure")] * POLICY.infrastructure + [failed("hang"), failed("cell")]
    assert follows(*mixed).kind == "again"


def test_what_nobody_is_to_blame_for_is_never_held_against_a_cell():
    for failure in NOBODYS:
        found = follows(*[failed(failure)] * 20)
        assert (found.kind, found.avoid) == ("again", frozenset())


def test_a_cell_that_was_preempted_often_says_so_and_what_that_has_cost():
    taken = failed("preemption", wall_s=5400.0)
    assert "preempted" not in follows(*[taken] * 2).why
    assert follows(*[taken] * 3).why.endswith("preempted 3 times, 4.5 h without an answer")


def test_a_tainted_answer_is_tried_once_more_elsewhere_and_then_taken():
    tainted = ended("succeeded", tainted=True, node="c")
    once = follows(tainted)
    assert (once.kind, once.avoid) == ("again", {"c"})
    assert "tainted" in once.why
    assert follows(tainted, ended("succeeded", tainted=True, node="a")).kind == "settled"


def test_failures_after_a_tainted_answer_end_with_that_answer():
    tainted = ended("succeeded", tainted=True, node="c")
    hang = failed("hang", node="a")
    once = follows(tainted, hang)
    assert (once.kind, once.avoid) == ("again", {"a", "c"})
    assert follows(tainted, hang, hang).kind == "settled"


def test_errors_of_other_trainer_code_are_not_held_against_a_cell():
    old = failed("memory", code_hash="old")
    assert follows(old, code_hash="new").kind == "again"
    assert follows(old, old, code_hash="new").kind == "again"
    assert follows(old, old, code_hash="old").kind == "final"
    assert follows(failed("memory"), failed("memory"), code_hash="new").kind == "final"


def test_a_failure_without_a_class_is_of_the_class_that_its_state_has():
    for failure in ("memory", "hang", "cell"):
        state = STATE_OF[failure]
        for count in range(1, 12):
            assert follows(*[ended(state)] * count) == follows(*[ended(state, failure)] * count)
    lost = [ended("lost")] * POLICY.infrastructure
    assert (follows(*lost).kind, follows(*lost, ended("lost")).kind) == ("again", "final")


CLASSED = st.sampled_from([c for c in FAILURES if c not in NOBODYS])
ATTEMPTS = st.one_of(
    st.builds(
        failed, CLASSED, node=st.sampled_from(NODES), signature=st.none() | st.sampled_from("EF")
    ),
    st.builds(
        ended, st.sampled_from(TERMINAL_STATES), node=st.sampled_from(NODES), tainted=st.just(True)
    ),
)


@given(
    st.lists(ATTEMPTS, min_size=40, max_size=40),
    st.builds(
        Retries,
        cell=st.integers(0, 3),
        memory=st.integers(0, 2),
        infrastructure=st.integers(0, 5),
        hang=st.integers(0, 3),
        tainted=st.integers(0, 3),
    ),
)
def test_every_cell_ends_within_its_budgets(attempts, policy):
    budgets = (2 * policy.cell + 1) + policy.memory + policy.infrastructure + policy.hang
    budgets += policy.tainted
    kinds = [follows(*attempts[:n], policy=policy).kind for n in range(1, len(attempts) + 1)]
    ends = next(i for i, kind in enumerate(kinds) if kind != "again")
    assert ends <= budgets
