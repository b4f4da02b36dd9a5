"""On a simulated cluster that fails the real scheduler loses nothing and wastes little."""

from collections import defaultdict
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.cluster import SimulatedNode, World
from benchmarks.simulate import TARGET, Case, sweep_of, work_of
from benchmarks.simulation import Simulation, lower_bound_s
from sweep.store.schema import TERMINAL_STATES
from tests.support.grids import cells_of

CASE = Case("seed", num_nodes=60, num_seeds=80, claimed=TARGET)  # 48 cells a node
ROUGH = World(
    num_nodes=4,
    slots=2,
    mtbf_s=6 * 3600.0,
    wave_every_s=4 * 3600.0,
    wave_fraction=0.5,
    infrastructure=0.05,
    hang=0.05,
    tainted=0.05,
    broken=0.05,
)


def simulated(case, world, **retries):
    sweep = sweep_of(case)
    sweep = sweep.model_copy(update={"retries": sweep.retries.model_copy(update=retries)})
    cells = cells_of(sweep)
    return cells, Simulation(sweep, cells, world, work_of(world)).run()


@pytest.fixture(scope="module")
def large():
    return simulated(CASE, World(num_nodes=CASE.num_nodes))


def require_nothing_lost_or_doubled(cells, outcome):
    assert outcome.paused is None
    assert outcome.settled | set(outcome.final) == {cell.id for cell in cells}
    assert not outcome.settled & set(outcome.final)
    assert all(outcome.final.values())
    by_cell = defaultdict(list)
    for attempt in outcome.attempts:
        assert attempt.state is not None
        assert attempt.until_s >= attempt.from_s
        if not attempt.task.is_reference_rerun:
            by_cell[attempt.task.cell.id].append(attempt)
    for attempts in by_cell.values():
        attempts.sort(key=lambda attempt: attempt.from_s)
        for one, next_one in pairwise(attempts):
            assert one.until_s <= next_one.from_s
    for cell_id in outcome.settled:
        assert any(a.state in TERMINAL_STATES for a in by_cell[cell_id])


def require_nodes_that_are_there(outcome, world):
    up = {site.name: site.up for site in outcome.sites}
    for attempt in outcome.attempts:  # a death is known only some time after it
        assert any(
            from_s <= attempt.from_s <= (until_s or outcome.makespan_s) + world.notice_s
            for from_s, until_s in up[attempt.node]
        )
        assert not any(
            from_s < attempt.from_s < (until_s or outcome.makespan_s)
            for from_s, until_s in outcome.quarantines.get(attempt.node, ())
        )


def test_the_makespan_is_within_three_percent_of_the_least_there_could_be(large):
    _, outcome = large
    assert CASE.claimed <= outcome.ratio <= 1.0


def test_on_a_large_cluster_nothing_is_lost_or_doubled(large):
    cells, outcome = large
    require_nothing_lost_or_doubled(cells, outcome)
    require_nodes_that_are_there(outcome, World())
    assert {attempt.state for attempt in outcome.attempts} >= {"succeeded", "lost", "hung"}


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["seed", "node"]), st.sampled_from([1, 2]))
def test_on_a_cluster_where_everything_fails_often_nothing_is_lost_or_doubled(seed, pairing, slots):
    world = replace(ROUGH, seed=seed, slots=slots)
    cells, outcome = simulated(Case(pairing, 4, 4), world, strikes=1000, alike=1000)
    require_nothing_lost_or_doubled(cells, outcome)
    require_nodes_that_are_there(outcome, world)
    assert outcome.ratio <= 1.0
    # A lease is requested because a node has one, came back, or a cell has to move: never twice.
    came = sum(len(site.up) for site in outcome.sites) * slots
    moves = sum(a.state not in TERMINAL_STATES or a.tainted for a in outcome.attempts)
    assert outcome.num_granted <= came + moves


def test_nodes_that_always_fail_are_left_alone_and_the_others_do_the_work():
    world = replace(ROUGH, num_nodes=6, bad=("crash", "hang"))
    cells, outcome = simulated(Case("seed", 6, 6), world, alike=1000, infrastructure=50)
    assert set(outcome.quarantines) >= {"node-0000", "node-0001"}
    require_nothing_lost_or_doubled(cells, outcome)
    require_nodes_that_are_there(outcome, world)


def site(speed, *up):
    node = SimulatedNode("n", speed, World().chance(), 1)
    node.up = list(up)
    return node


def test_the_bound_is_what_can_be_computed_by_hand():
    assert lower_bound_s([10.0] * 4, [site(1.0, (0.0, None))] * 2, 1) == 20.0
    assert lower_bound_s([10.0] * 4, [site(2.0, (0.0, None))] * 2, 1) == 10.0
    assert lower_bound_s([10.0, 30.0], [site(1.0, (0.0, None))] * 9, 1) == 30.0  # the longest
    gone = [site(1.0, (0.0, 10.0), (20.0, None)), site(1.0, (0.0, 10.0))]
    assert lower_bound_s([10.0] * 3, gone, 1) == 30.0
    one_cell = [site(1.0, (0.0, None)), site(2.0, (0.0, None))]
    assert lower_bound_s([10.0], one_cell, 1) == 5.0  # one cell keeps one node busy
