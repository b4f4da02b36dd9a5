"""How long do 24 cells take that do nothing, through this driver and through Ray Tune?

What is measured is what an orchestrator adds. Here: real Ray, leases with their agents, a process
for each attempt (which leaves a prepared report in place of the trainer's), a checked report, and
a durable row for each. There: ``ray.tune.Tuner`` on the same Ray with a function that reports one
number. In turn, in one run; Ray and its workers' first start are outside both.
"""

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.driver_scale import Silent, driver_of
from benchmarks.measured import keep
from benchmarks.noop_rank import __file__ as NOOP_RANK
from sweep.cluster import ray as on_ray
from sweep.driver.display import EndedView
from sweep.environment import local_cpus
from sweep.messages import PrepareResult, Requirements
from sweep.node import ranks
from sweep.provenance import code_here
from sweep.schedule.plan import plan_unsettled
from sweep.spec.grid import Cell
from sweep.spec.sweep_file import SweepSpec
from sweep.store.store import Store
from tests.support.grids import cells_of, sweep_spec
from tests.support.reports import ARTIFACT, LAYERS, report_values
from trainer.contract import ARTIFACT_FILE, CURVE_FILE, LAYERS_FILE, REPORT_FILE

import ray  # isort: skip  (sweep.cluster.ray has set what it reads when it is imported)
from ray import tune as ray_tune  # isort: skip

CLAIMED = 10.0


class Quiet(Silent):
    """A display that nobody looks at, but for what is wrong."""

    def say(self, text: str) -> None:
        print(text, file=sys.stderr)

    def ended(self, ending: EndedView) -> None:
        if ending.state != "succeeded":
            print(f"{ending.cell}: {ending.state}: {ending.reason}", file=sys.stderr)


def sweep_of(num_cells: int) -> SweepSpec:
    return sweep_spec(seeds=list(range(num_cells // 3)))


def prepare_reports(cells: Sequence[Cell], folder: Path) -> None:
    """What the trainer would leave for each cell, by the hash of its specification."""
    for cell in cells:
        spec_json = cell.spec.model_dump_json()
        place = folder / hashlib.sha256(spec_json.encode()).hexdigest()
        place.mkdir(parents=True)
        (place / REPORT_FILE).write_text(json.dumps(report_values(cell.spec)), encoding="utf-8")
        (place / CURVE_FILE).write_bytes(b"curve")
        (place / ARTIFACT_FILE).write_bytes(ARTIFACT)
        (place / LAYERS_FILE).write_bytes(LAYERS)


def noop_agent(folder: Path) -> type:
    """The real agent, but for the program that it starts and the data that nobody reads."""

    class NoOpAgent(on_ray._AgentOnRay):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            vars(ranks)["TRAINER"] = (sys.executable, NOOP_RANK, str(folder))
            vars(ranks)["FORK_SERVER"] = None

        def prepare(self, requirements: Requirements) -> PrepareResult:
            return super().prepare(replace(requirements, datasets=()))

    return NoOpAgent


def drive(pool: on_ray.RayPool, sweep: SweepSpec, cells: Sequence[Cell], folder: Path) -> float:
    """Seconds from the plan to the last row."""
    code = code_here()
    store = Store(folder / sweep.name)
    with store.as_driver(say=lambda text: None) as driver_id:
        start_s = time.perf_counter()
        driver = driver_of(
            sweep, pool, store, driver_id, code=code, leases=local_cpus(), display=Quiet()
        )
        driver.run(plan_unsettled(cells, {}, sweep.retries, code.trainer_hash), {})
        taken_s = time.perf_counter() - start_s
        rows = store.read().rows
    if [row["state"] for row in rows] != ["succeeded"] * len(cells):
        raise SystemExit(f"not every cell succeeded: {[row['reason'] for row in rows]}")
    return taken_s


def tune(num_trials: int, folder: Path) -> float:
    """Seconds that Ray Tune takes for as many trials, each on one CPU."""

    def trial(config: dict[str, Any]) -> None:
        ray_tune.report({"bpb": float(config["index"])})

    start_s = time.perf_counter()
    found = ray_tune.Tuner(
        ray_tune.with_resources(trial, {"cpu": 1}),
        param_space={"index": ray_tune.grid_search(list(range(num_trials)))},
        run_config=ray_tune.RunConfig(storage_path=str(folder), name="noop", verbose=0),
    ).fit()
    taken_s = time.perf_counter() - start_s
    if found.num_errors or len(found) != num_trials:
        raise SystemExit(f"Ray Tune: {found.num_errors} of {len(found)} trials failed")
    return taken_s


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tune_comparison", description=__doc__
    )
    parser.add_argument("--cells", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    sweep = sweep_of(options.cells)
    cells = cells_of(sweep)
    rounds: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare_reports(cells, folder / "reports")
        on_ray._RemoteAgent = ray.remote(noop_agent(folder / "reports"))
        pool = on_ray.RayPool(None)
        try:
            for index in range(options.rounds):
                driver_s = drive(pool, sweep, cells, folder / f"driver-{index}")
                tune_s = tune(len(cells), folder / f"tune-{index}")
                rounds.append({"driver_s": driver_s, "tune_s": tune_s, "ratio": tune_s / driver_s})
                print(
                    f"round {index + 1}: {len(cells)} cells, driver {driver_s:.2f} s, "
                    f"Ray Tune {tune_s:.2f} s: {tune_s / driver_s:.1f} times as long",
                    flush=True,
                )
        finally:
            pool.close()
    keep("tune_comparison", {"cells": len(cells), "rounds": rounds})
    middle = median(one["ratio"] for one in rounds)
    print(f"median of {len(rounds)} rounds: {middle:.1f} times as fast")
    if middle < CLAIMED:
        raise SystemExit(f"less than {CLAIMED:g} times as fast")


if __name__ == "__main__":
    main()
