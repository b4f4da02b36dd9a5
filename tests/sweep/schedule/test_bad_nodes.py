"""A bad node costs few attempts, preemption costs no node, a broken cell is no node's fault."""

from dataclasses import replace

import pytest

from benchmarks.cluster import World
from benchmarks.simulate import Case, sweep_of, work_of
from benchmarks.simulation import Simulation
from sweep.schedule.plan import plan_unsettled
from sweep.schedule.quarantine import void_attempts
from sweep.store.history import select_attempt, with_void
from tests.support.grids import cells_of

HOUR_S = 3600.0
QUIET = World(
    num_nodes=4,
    mtbf_s=1e9,
    wave_fraction=0.0,
    infrastructure=0.0,
    hang=0.0,
    tainted=0.0,
    broken=0.0,
)


def simulated(world, *, budget="600steps", num_seeds=10, is_broken=None):
    """The end of twelve activations under so many seeds, where a step takes a second.

    What a new driver reads from the rows is what the one that ran had concluded.
    """
    sweep = sweep_of(Case("seed", world.num_nodes, num_seeds))
    sweep = sweep.model_copy(update={"budgets": [budget]})
    cells = cells_of(sweep)
    simulation = Simulation(sweep, cells, world, work_of(world), is_broken)
    outcome = simulation.run()
    assert outcome.paused is None
    plan = plan_unsettled(cells, simulation.history, sweep.retries)
    assert {cell.id for cell in plan.settled} == outcome.settled
    assert {task.cell.id for task in plan.final} == set(outcome.final)
    void = void_attempts(simulation.history, sweep.retries)
    return cells, outcome, with_void(simulation.history, void)


def num_lost(nodes, outcome):
    ended = [attempt for attempt in outcome.attempts if attempt.node in nodes]
    return sum(attempt.state != "succeeded" or attempt.tainted for attempt in ended)


def first_nodes(count):
    return {f"node-{index:04}" for index in range(count)}


def require_answers(cells, history):
    chosen = [select_attempt(attempts) for attempts in history.values()]
    assert len(chosen) == len(cells)
    assert {(ended.state, ended.tainted) for ended in chosen} == {("succeeded", False)}


@pytest.mark.parametrize("kind", ["oom", "hang", "crash", "slow", "not finite"])
def test_a_node_that_fails_in_any_way_costs_three_attempts_and_every_cell_is_answered(kind):
    """With neither, 87, 56, 117, 27 and 102 of its attempts were lost, and 87 cells given up."""
    cells, outcome, history = simulated(
        replace(QUIET, bad=(kind,)), budget="600s" if kind == "slow" else "600steps"
    )
    assert num_lost(first_nodes(1), outcome) <= 3
    assert set(outcome.quarantined) == first_nodes(1)
    require_answers(cells, history)


def test_two_nodes_of_five_that_hang_make_nothing_final():
    for seed in range(2):
        world = replace(QUIET, seed=seed, num_nodes=5, bad=("hang", "hang"))
        cells, outcome, history = simulated(world)
        assert num_lost(first_nodes(2), outcome) <= 6
        require_answers(cells, history)


@pytest.mark.parametrize("says_preempted", [True, False])
@pytest.mark.parametrize("mtbf_h", [8, 4])
def test_where_nodes_are_taken_away_all_are_used_to_the_end(mtbf_h, says_preempted):
    """Cells take three hours; whether Ray calls a loss preemption or not."""
    world = replace(QUIET, num_nodes=20, mtbf_s=mtbf_h * HOUR_S, says_preempted=says_preempted)
    cells, outcome, history = simulated(world, budget="10680steps", num_seeds=7)
    assert not outcome.quarantines
    require_answers(cells, history)
    later = [a.node for a in outcome.attempts if a.from_s > outcome.makespan_s / 2]
    assert set(later) == first_nodes(20)


@pytest.mark.parametrize("num_nodes", [4, 20])
def test_an_activation_that_fails_everywhere_puts_no_node_in_quarantine(num_nodes):
    cells, outcome, _ = simulated(
        replace(QUIET, num_nodes=num_nodes),
        num_seeds=10,
        is_broken=lambda cell: cell.spec.activation.label == "asqu",
    )
    assert not outcome.quarantines
    broken = {cell.id for cell in cells if cell.spec.activation.label == "asqu"}
    assert set(outcome.final) == broken


def test_where_all_cells_of_the_first_seeds_fail_no_node_is_in_quarantine():
    cells, outcome, _ = simulated(
        replace(QUIET, num_nodes=20), num_seeds=5, is_broken=lambda cell: cell.spec.seed < 2
    )
    assert not outcome.quarantines
    assert set(outcome.final) == {cell.id for cell in cells if cell.spec.seed < 2}


def test_where_every_timing_is_disturbed_no_node_is_in_quarantine():
    _, outcome, history = simulated(replace(QUIET, tainted=1.0), budget="600s", num_seeds=5)
    assert not outcome.quarantines
    assert {len(attempts) for attempts in history.values()} == {2}
