"""The plan is the grid minus what is settled, and every remaining cell has a reason."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweep.plan import Ended, estimate, find_cell, plan, plan_failed, plan_one
from sweep.schema import STATES, TERMINAL_STATES
from tests.support.grids import cells_of, sweep_spec
from trainer.strict import ConfigError

CELLS = cells_of(sweep_spec())
ENDED = st.builds(
    Ended,
    attempt=st.integers(1, 5),
    state=st.sampled_from(STATES),
    tainted=st.booleans(),
    reason=st.none() | st.just("because"),
    wall_s=st.floats(0, 100),
)
HISTORIES = st.dictionaries(
    st.sampled_from([cell.id for cell in CELLS]), st.lists(ENDED, min_size=1, max_size=3)
)


def ended(state, attempt=1, *, tainted=False, wall_s=1.0):
    return Ended(attempt=attempt, state=state, tainted=tainted, reason="why", wall_s=wall_s)


@given(HISTORIES)
def test_every_cell_is_either_settled_or_to_be_run_in_order(history):
    result = plan(CELLS, history)
    settled = {cell.id for cell in result.settled}
    todo = [task.cell.id for task in result.todo]
    assert settled.isdisjoint(todo)
    assert settled | set(todo) == {cell.id for cell in CELLS}
    assert todo == [cell.id for cell in CELLS if cell.id in set(todo)]
    for cell in CELLS:
        good = any(e.state in TERMINAL_STATES and not e.tainted for e in history.get(cell.id, []))
        assert (cell.id in settled) == good
    assert all(task.why for task in result.todo)


@given(HISTORIES)
def test_rerunning_the_failed_runs_what_was_attempted_and_is_not_settled(history):
    everything, failed = plan(CELLS, history), plan_failed(CELLS, history)
    expected = [task.cell.id for task in everything.todo if task.cell.id in history]
    assert [task.cell.id for task in failed.todo] == expected


def test_a_cell_asked_for_by_name_is_run_even_if_it_is_settled():
    cell = CELLS[2]
    assert [task.cell for task in plan_one(CELLS, cell.name).todo] == [cell]


@pytest.mark.parametrize("selector", ["name", "id", "prefix of name", "prefix of id"])
def test_a_cell_is_found_by_any_prefix_that_only_it_has(selector):
    cell = next(c for c in CELLS if c.name == "asqu__seed2__4steps")
    text = {
        "name": cell.name,
        "id": cell.id,
        "prefix of name": "asqu__seed2",
        "prefix of id": cell.id[:8],
    }[selector]
    assert find_cell(CELLS, text) is cell


def test_an_ambiguous_or_unknown_cell_is_an_error_that_shows_names():
    with pytest.raises(ConfigError, match=r"prefix of 2 cells: .*asqu__seed"):
        find_cell(CELLS, "asqu")
    with pytest.raises(ConfigError, match="no cell of this sweep"):
        find_cell(CELLS, "gelu")


def test_a_name_that_is_a_prefix_of_another_name_means_itself():
    cells = cells_of(sweep_spec(seeds=[1, 13], budgets=["4steps", "40steps"]))
    assert find_cell(cells, "asqu__seed1__4steps").spec.budget == "4steps"


def test_the_estimate_is_a_guess_until_a_cell_of_the_budget_has_been_measured():
    cells = cells_of(sweep_spec(budgets=["4steps", "8steps"]))
    short = [cell for cell in cells if cell.spec.budget == "4steps"]
    guess = estimate(plan(cells, {}), {}, guess_cell_s=60.0, leases=4, nodes=2)
    assert (guess.cell_s, guess.measured, guess.wall_s) == (60.0, False, 3 * 60.0)
    assert guess.node_hours == pytest.approx(2 * 3 * 60 / 3600)

    history = {short[0].id: [ended("failed"), ended("succeeded", 2, wall_s=30.0)]}
    half = estimate(plan(cells, history), history, guess_cell_s=60.0, leases=1, nodes=1)
    assert half.measured is False
    assert half.wall_s == pytest.approx(5 * 30 + 6 * 60)
    known = estimate(plan(short, history), history, guess_cell_s=60.0, leases=1, nodes=1)
    assert (known.cell_s, known.measured, known.wall_s) == (30.0, True, 150.0)


def test_attempts_at_cells_that_the_grid_no_longer_has_tell_nothing_of_its_cost():
    history = {"f" * 16: [ended("succeeded", wall_s=1.0)]}
    cost = estimate(plan(CELLS, history), history, guess_cell_s=60.0, leases=1, nodes=1)
    assert (cost.cell_s, cost.measured) == (60.0, False)
