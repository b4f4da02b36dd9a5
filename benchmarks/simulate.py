"""How near does the scheduler come to the best possible makespan, on 1,000 nodes that fail?

The bound is that of ``benchmarks.simulation.lower_bound_s``; what goes wrong is in
``benchmarks.cluster.World``. Asserted at a smaller size in tests/sweep/schedule/test_simulation.py.
"""

import argparse
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.cluster import World
from benchmarks.measured import keep
from benchmarks.simulation import Outcome, Simulation
from sweep.spec.grid import Cell
from sweep.spec.sweep_file import SweepSpec
from tests.support.grids import cells_of, sweep_spec

SETUP_S = 120.0  # compiling, scoring and adapting: part of every cell
BUDGETS = ("300s", "600s", "1200s")  # from short to long: the scheduler begins with the long ones
SLOPES = tuple(round(0.1 * i, 1) for i in range(10))
TARGET = 0.97


@dataclass(frozen=True, slots=True)
class Case:
    """A cluster and a grid; ``claimed``: the ratio that is asserted of it, None if none is."""

    pairing: str
    num_nodes: int
    num_seeds: int
    claimed: float | None = None

    @property
    def num_cells(self) -> int:
        return (2 + len(SLOPES)) * len(BUDGETS) * self.num_seeds


CASES = (
    Case("seed", 1000, 2000, TARGET),
    Case("seed", 1000, 1000),
    Case("seed", 1000, 500),
    Case("seed", 1000, 200),
    Case("node", 1000, 2000),
    Case("seed", 100, 30),
    Case("seed", 100, 300),
    Case("seed", 100, 3000),
)


def sweep_of(case: Case) -> SweepSpec:
    """12 activations, 3 budgets, and as many seeds as it takes."""
    return sweep_spec(
        name="simulated",
        seeds=list(range(case.num_seeds)),
        budgets=list(BUDGETS),
        pairing=case.pairing,
        estimate_cell_s=600.0,
        activations=[
            {"name": "relu2"},
            {"name": "asqu"},
            {"name": "leaky_relu2", "slope": list(SLOPES)},
        ],
    )


def work_of(world: World) -> Callable[[Cell], float]:
    """Seconds that a cell takes on a node of speed 1: its budget, its setup, and a spread."""
    known: dict[str, float] = {}

    def work_s(cell: Cell) -> float:
        if cell.id not in known:
            spread = max(0.5, world.chance("work", cell.id).gauss(1.0, world.cell_spread))
            known[cell.id] = SETUP_S * spread + cell.spec.parsed_budget.value
        return known[cell.id]

    return work_s


def simulate(case: Case, world: World) -> Outcome:
    sweep = sweep_of(case)
    return Simulation(sweep, cells_of(sweep), world, work_of(world)).run()


def row_of(case: Case, outcome: Outcome) -> dict[str, Any]:
    states = Counter(attempt.state for attempt in outcome.attempts)
    return {
        **asdict(case),
        "num_cells": case.num_cells,
        "cells_per_node": case.num_cells / case.num_nodes,
        "makespan_s": outcome.makespan_s,
        "bound_s": outcome.bound_s,
        "ratio": outcome.ratio,
        "settled": len(outcome.settled),
        "final": len(outcome.final),
        "shunned": len(outcome.quarantined),
        "states": dict(sorted(states.items())),
        "companions": sum(attempt.task.is_reference_rerun for attempt in outcome.attempts),
        "leases_granted": outcome.num_granted,
        "us_per_decision": 1e6 * outcome.deciding_s / outcome.decisions,
        "decisions": outcome.decisions,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulate", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows = []
    print("| pairing | nodes | cells | cells per node | makespan | ratio | µs per decision |")
    print("|---|---|---|---|---|---|---|")
    for case in CASES:
        world = World(seed=options.seed, num_nodes=case.num_nodes)
        row = row_of(case, simulate(case, world))
        rows.append(row)
        print(
            f"| {case.pairing} | {case.num_nodes:,} | {case.num_cells:,} "
            f"| {row['cells_per_node']:.1f} | {row['makespan_s'] / 3600:.2f} h "
            f"| {row['ratio']:.4f} | {row['us_per_decision']:.1f} |",
            flush=True,
        )
    keep("simulate", {"world": asdict(World(seed=options.seed)), "cases": rows})
    missed = [row for row in rows if row["claimed"] and row["ratio"] < row["claimed"]]
    if missed:
        raise SystemExit(f"below what is claimed: {missed}")


if __name__ == "__main__":
    main()
