"""The plan is the grid minus what is settled, and every remaining cell has a reason."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweep.schedule.plan import (
    estimate,
    match_cell,
    plan_failed,
    plan_one,
    plan_refresh,
    plan_unsettled,
    stale_cells,
)
from sweep.store.history import EndedAttempt, select_attempt
from sweep.store.schema import FAILURES, STATES, TERMINAL_STATES
from tests.support.grids import cells_of, sweep_spec
from trainer.config.config_errors import ConfigError

CELLS = cells_of(sweep_spec())
NAMES = [(cell.name, cell.id) for cell in CELLS]
ENDED = st.builds(
    EndedAttempt,
    attempt=st.integers(1, 5),
    state=st.sampled_from(STATES),
    tainted=st.booleans(),
    reason=st.none() | st.just("because"),
    wall_s=st.floats(0, 100),
    ended_at_s=st.floats(0, 1e6),
    failure=st.none() | st.sampled_from(FAILURES),
    node=st.none() | st.sampled_from(["node-a", "node-b"]),
    code_hash=st.none() | st.sampled_from(["a" * 64, "b" * 64]),
    generation=st.integers(0, 2),
)
NOW = "b" * 64
HISTORIES = st.dictionaries(
    st.sampled_from([cell.id for cell in CELLS]), st.lists(ENDED, min_size=1, max_size=3)
)


def ended(state, attempt=1, *, tainted=False, wall_s=1.0, trainer=NOW, generation=0):
    return EndedAttempt(
        attempt=attempt,
        state=state,
        tainted=tainted,
        reason="why",
        wall_s=wall_s,
        ended_at_s=float(attempt),
        code_hash=trainer,
        generation=generation,
    )


@given(HISTORIES)
def test_every_cell_is_settled_or_given_up_or_to_be_run_in_order(history):
    result = plan_unsettled(CELLS, history)
    settled = [cell.id for cell in result.settled]
    todo = [task.cell.id for task in result.todo]
    final = [task.cell.id for task in result.final]
    assert sorted(settled + todo + final) == sorted(cell.id for cell in CELLS)
    assert todo == [cell.id for cell in CELLS if cell.id in set(todo)]
    for cell in CELLS:
        if any(e.state in TERMINAL_STATES and not e.tainted for e in history.get(cell.id, [])):
            assert cell.id in settled
        if cell.id in final:
            assert history[cell.id]
    assert all(task.why for task in (*result.todo, *result.final))


@given(HISTORIES)
def test_rerunning_the_failed_runs_what_was_attempted_and_is_not_settled(history):
    everything, failed = plan_unsettled(CELLS, history), plan_failed(CELLS, history)
    open_ = {task.cell.id for task in (*everything.todo, *everything.final)} & set(history)
    assert [t.cell.id for t in failed.todo] == [c.id for c in CELLS if c.id in open_]
    assert all(task.ignores_failures for task in failed.todo)


def test_a_cell_is_found_by_any_prefix_that_only_it_has():
    cell = next(c for c in CELLS if c.name == "asqu__seed2__4steps")
    for selector in (cell.name, cell.id, "asqu__seed2", cell.id[:8]):
        assert match_cell(NAMES, selector) == cell.id


def test_an_ambiguous_or_unknown_cell_is_an_error_that_shows_names():
    with pytest.raises(ConfigError, match=r"prefix of 2 cells: .*asqu__seed"):
        match_cell(NAMES, "asqu")
    with pytest.raises(ConfigError, match="no cell of this sweep"):
        match_cell(NAMES, "gelu")


def test_a_name_that_is_a_prefix_of_another_name_means_itself():
    cells = cells_of(sweep_spec(seeds=[1, 13], budgets=["4steps", "40steps"]))
    assert plan_one(cells, "asqu__seed1__4steps", {}).todo[0].cell.spec.budget == "4steps"


def test_the_estimate_is_a_guess_until_a_cell_of_the_budget_has_been_measured():
    cells = cells_of(sweep_spec(budgets=["4steps", "8steps"]))
    short = [cell for cell in cells if cell.spec.budget == "4steps"]
    guess = estimate(plan_unsettled(cells, {}), {}, guess_cell_s=60.0, leases=4, nodes=2)
    assert (guess.cell_s, guess.measured, guess.wall_s) == (60.0, False, 3 * 60.0)
    assert guess.node_hours == pytest.approx(2 * 3 * 60 / 3600)

    history = {short[0].id: [ended("failed"), ended("succeeded", 2, wall_s=30.0)]}
    unplaced = estimate(plan_unsettled(cells, {}), {}, guess_cell_s=60.0, leases=0, nodes=0)
    assert (unplaced.wall_s, unplaced.node_hours) == (None, pytest.approx(12 * 60 / 3600))
    nothing = estimate(plan_unsettled([], {}), {}, guess_cell_s=60.0, leases=0, nodes=0)
    assert (nothing.wall_s, nothing.node_hours) == (0.0, 0.0)

    half = estimate(plan_unsettled(cells, history), history, guess_cell_s=60.0, leases=1, nodes=1)
    assert half.measured is False
    assert half.wall_s == pytest.approx(5 * 30 + 6 * 60)
    known = estimate(plan_unsettled(short, history), history, guess_cell_s=60.0, leases=1, nodes=1)
    assert (known.cell_s, known.measured, known.wall_s) == (30.0, True, 150.0)


@given(HISTORIES)
def test_what_is_planned_without_a_refresh_stays_in_the_generation_it_is_in(history):
    for planned in (plan_unsettled(CELLS, history), plan_failed(CELLS, history)):
        for task in planned.todo:
            attempts = history.get(task.cell.id, [])
            assert task.generation == max((e.generation for e in attempts), default=0)
    by_name = plan_one(CELLS, CELLS[0].name, history).todo[0]
    attempts = history.get(CELLS[0].id, [])
    assert by_name.generation == max((e.generation for e in attempts), default=0)


@given(HISTORIES)
def test_a_refresh_adds_the_stale_cells_to_the_plan_and_loses_none(history):
    planned, refreshed = plan_unsettled(CELLS, history), plan_refresh(CELLS, history, NOW)
    outdated = {cell.id for cell in stale_cells(CELLS, history, NOW)}
    todo = [task.cell.id for task in refreshed.todo]
    assert set(todo) == {task.cell.id for task in planned.todo} | outdated
    given_up = {task.cell.id for task in refreshed.final}
    assert {c.id for c in refreshed.settled} | set(todo) | given_up == {c.id for c in CELLS}
    assert todo == [cell.id for cell in CELLS if cell.id in set(todo)]


@given(HISTORIES)
def test_a_refresh_goes_on_only_with_a_generation_that_is_all_of_todays_trainer(history):
    for task in plan_refresh(CELLS, history, NOW).todo:
        attempts = history.get(task.cell.id, [])
        same = [e for e in attempts if e.generation == task.generation]
        assert all(e.code_hash == NOW for e in same)
        assert task.generation <= max((e.generation + 1 for e in attempts), default=0)


@given(HISTORIES, st.sampled_from(["succeeded", "diverged"]))
def test_once_a_stale_cell_has_been_refreshed_its_new_answer_counts(history, state):
    for task in plan_refresh(CELLS, history, NOW).todo:
        attempts = [*history.get(task.cell.id, [])]
        new = ended(state, attempt=9, generation=task.generation)
        settled_before = any(e.settles for e in attempts if e.generation == task.generation)
        assert settled_before or select_attempt([*attempts, new]) == new
        assert stale_cells([task.cell], {task.cell.id: [*attempts, new]}, NOW) == []


def test_a_refresh_that_fails_leaves_the_old_answer_and_is_gone_on_with():
    cell = CELLS[0]
    old = ended("succeeded", trainer="a" * 64)
    failed = ended("failed", 2, generation=1)
    history = {cell.id: [old, failed]}
    assert select_attempt(history[cell.id]) == old
    assert [task.generation for task in plan_refresh([cell], history, NOW).todo] == [1]
    assert [task.generation for task in plan_refresh([cell], history, "c" * 64).todo] == [2]


def test_a_cell_whose_trainer_is_not_known_is_not_called_stale():
    cell = CELLS[0]
    assert stale_cells([cell], {cell.id: [ended("succeeded", trainer=None)]}, NOW) == []
