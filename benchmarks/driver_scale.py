"""Does the driver's own cost per cell stay the same from 100 cells to 100,000?

The real driver, scheduler, record and store; in place of nodes, leases that answer at once. Each
size runs in a process of its own. Time is processor time, which other work on the machine hardly
changes; what the stubs take is measured and subtracted. Memory is what the resident set grows by
from one size to the next, per cell: imports and caches, which every size has, are not in it. The
results go to a folder in memory, so that the disk's time to make files durable is not measured.

With ``--slow-store`` the store takes as long for every file as an object store does, and a thousand
leases wait for it: how soon has each its first cell, and how many rows are written in a second?
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from benchmarks.measured import ROOT, keep
from sweep.cluster.interface import Pool
from sweep.driver.attempt_row import Versions
from sweep.driver.attempts import Attempts
from sweep.driver.control import Control
from sweep.driver.display import Display, EndedView, SweepView
from sweep.driver.driver import Driver
from sweep.driver.requirements import order_for
from sweep.messages import Delivery, Order, PrepareResult, Requirements
from sweep.provenance import Code, Revision
from sweep.schedule.plan import plan_unsettled
from sweep.spec.grid import Cell
from sweep.spec.sweep_file import SweepSpec
from sweep.store.files import LocalFiles, RemoteFiles
from sweep.store.store import Attempt, Store
from tests.support.grids import cells_of, sweep_spec
from tests.support.pool import FakeLease, FakePool
from tests.support.reports import delivered

SIZES = (100, 1_000, 10_000, 100_000)
COMPARED = (1_000, 100_000)  # a run of 100 cells is over before it has warmed up
FLAT = 0.2
NUM_LEASES = 16
CODE = Code("0" * 64, None)
SLOW_S, SLOW_LEASES, SLOW_CELLS = 0.06, 1_000, 2_000
FIRST_CELLS_S, CLOSINGS = 10.0, 20.0  # what is asked of it
SLOPES = tuple(round(0.125 * i, 3) for i in range(8))


class StubLease(FakeLease):
    """Has every answer at once, and adds what that took to ``stub_s``."""

    stub_s = 0.0

    def prepare(self, requirements: Requirements) -> "Future[PrepareResult]":
        return _done(PrepareResult())

    def submit(self, order: Order) -> "Future[Delivery]":
        start_s = time.process_time()
        answer = delivered(order)
        StubLease.stub_s += time.process_time() - start_s
        return _done(answer)


def stub_pool() -> FakePool:
    """Sixteen nodes of one lease."""
    names = [f"node-{i}" for i in range(NUM_LEASES)]
    return FakePool(_never, names=names, per_node=1, lease=StubLease)


class Silent:
    """A display that nobody looks at."""

    def show(self, view: SweepView) -> None: ...

    def say(self, text: str) -> None: ...

    def ended(self, ending: EndedView) -> None: ...


class SlowFiles(LocalFiles):
    """A folder that takes as long as an object store for every file, and as many at once."""

    readers, at_once = RemoteFiles.readers, RemoteFiles.at_once

    def create(self, name: str, data: bytes) -> bool:
        time.sleep(SLOW_S)
        return super().create(name, data)

    def replace(self, name: str, data: bytes) -> None:
        time.sleep(SLOW_S)
        super().replace(name, data)


class OncePool(FakePool):
    """A lease for every node, which nobody takes back: so it is granted without a search."""

    def _room(self, avoid: frozenset[str]) -> str | None:
        return self.names[len(self.leases)] if len(self.leases) < len(self.names) else None


class Watched(Silent):
    """When each row was written."""

    def __init__(self) -> None:
        self.at_s: list[float] = []

    def ended(self, ending: EndedView) -> None:
        self.at_s.append(time.perf_counter())


def measure_slow_store(folder: Path) -> dict[str, float]:
    """A thousand leases with their first cell, and the rows of two thousand."""
    sweep, started = sweep_of(SLOW_CELLS), {}
    cells = cells_of(sweep)
    answers = {cell.id: _done(delivered(_order(sweep, cell))) for cell in cells}

    class Noting(StubLease):
        def submit(self, order: Order) -> "Future[Delivery]":
            started.setdefault(self.name, time.perf_counter())
            return answers[order.cell_id]

    pool = OncePool(_never, names=[f"node-{i}" for i in range(SLOW_LEASES)], lease=Noting)
    store, display = Store(folder / "sweep"), Watched()
    with store.as_driver(say=lambda text: None) as driver_id:
        todo = plan_unsettled(cells, {}, sweep.retries, CODE.trainer_hash)
        store.files = SlowFiles(folder / "sweep")
        driver = driver_of(sweep, pool, store, driver_id, leases=SLOW_LEASES, display=display)
        start_s, cpu_s = time.perf_counter(), time.process_time()
        driver.run(todo, {})
        cpu_s = time.process_time() - cpu_s
    return {
        "leases": len(started),
        "first_cells_s": max(started.values()) - start_s,
        "closings_per_s": (len(display.at_s) - 1) / (display.at_s[-1] - display.at_s[0]),
        "processor_s": cpu_s,
    }


def sweep_of(num_cells: int) -> SweepSpec:
    """10 activations, and as many seeds as it takes."""
    return sweep_spec(
        seeds=list(range(num_cells // (2 + len(SLOPES)))),
        activations=[
            {"name": "relu2"},
            {"name": "asqu"},
            {"name": "leaky_relu2", "slope": list(SLOPES)},
        ],
        reference="leaky_relu2-s0.5",
        keep_artifacts=False,
    )


def _order(sweep: SweepSpec, cell: Cell) -> Order:
    return order_for(sweep, cell, Attempt(cell.id, 1, datetime.now(UTC)), CODE, "nowhere")


def measure(num_cells: int, folder: Path) -> dict[str, Any]:
    """One sweep from the sweep file to the last row, and the plan of a second one."""
    sweep, process = sweep_of(num_cells), psutil.Process()
    before_bytes = process.memory_info().rss
    cells, grid_s = _timed(lambda: cells_of(sweep))
    store = Store(folder / "sweep")
    with store.as_driver(say=lambda text: None) as driver_id:
        todo, plan_s = _timed(lambda: plan_unsettled(cells, {}, sweep.retries, CODE.trainer_hash))
        driver = driver_of(sweep, stub_pool(), store, driver_id)
        start_s = time.perf_counter()
        _, drive_s = _timed(lambda: driver.run(todo, {}))
        wall_s = time.perf_counter() - start_s
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    settled, again_s = _timed(lambda: _plan_again(store, sweep, cells))
    if settled != num_cells:
        raise SystemExit(f"{settled} of {num_cells} cells were settled")
    return {
        "num_cells": num_cells,
        "grid_s": grid_s,
        "plan_s": plan_s,
        "drive_s": drive_s - StubLease.stub_s,
        "stub_s": StubLease.stub_s,
        "drive_wall_s": wall_s,
        "plan_again_s": again_s,
        "before_bytes": before_bytes,
        "peak_bytes": peak_bytes,
        "peak_again_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def driver_of(
    sweep: SweepSpec,
    pool: Pool,
    store: Store,
    driver_id: str,
    *,
    code: Code = CODE,
    leases: int = NUM_LEASES,
    display: Display | None = None,
) -> Driver:
    """The real driver, over ``pool``."""
    display = display or Silent()
    versions = Versions(driver_id, Revision(None, None), pool.version, code.trainer_hash)
    attempts = Attempts(sweep=sweep, store=store, versions=versions, say=display.say)
    attempts.load(store.read().rows, store.numbers())
    return Driver(
        sweep=sweep,
        pool=pool,
        attempts=attempts,
        display=display,
        control=Control(),
        lease_limit=lambda quarantined, wanted: leases,
        code=code,
    )


def _plan_again(store: Store, sweep: SweepSpec, cells: Sequence[Cell]) -> int:
    found = plan_unsettled(cells, store.read().history(), sweep.retries, CODE.trainer_hash)
    return len(found.settled)


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start_s = time.process_time()
    answer = work()
    return answer, time.process_time() - start_s


def _done(answer: Any) -> "Future[Any]":
    future: Future[Any] = Future()
    future.set_result(answer)
    return future


def _never(*_: Any) -> Any:
    raise AssertionError("a stub lease answers by itself")


def measure_apart(num_cells: int, place: str | None) -> dict[str, Any]:
    """``measure`` in a process of its own, whose results are removed."""
    with tempfile.TemporaryDirectory(dir=place) as folder:
        command = [sys.executable, "-m", "benchmarks.driver_scale", "--one", str(num_cells)]
        done = subprocess.run(
            [*command, "--place", folder], cwd=ROOT, stdout=subprocess.PIPE, check=True
        )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def table(rows: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
    """Costs per cell; memory by the difference to the size before.

    Planning is the grid and what is open of it: a pass of the garbage collector falls into one or
    the other, and takes longer than making the tasks.
    """
    before = [None, *rows]
    return [
        {
            "num_cells": row["num_cells"],
            "plan_us": 1e6 * (row["grid_s"] + row["plan_s"]) / row["num_cells"],
            "drive_us": 1e6 * row["drive_s"] / row["num_cells"],
            "plan_again_us": 1e6 * row["plan_again_s"] / row["num_cells"],
            "memory_kb": _growth(smaller, row, "peak_bytes"),
            "memory_again_kb": _growth(smaller, row, "peak_again_bytes"),
        }
        for smaller, row in zip(before, rows, strict=False)
    ]


def _growth(smaller: dict[str, Any] | None, row: dict[str, Any], name: str) -> float:
    """Kilobytes per cell more than at the smaller size; for the first one, than before."""
    then, cells = (smaller[name], smaller["num_cells"]) if smaller else (row["before_bytes"], 0)
    growth: float = (row[name] - then) / (row["num_cells"] - cells) / 1000
    return growth


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.driver_scale", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--rounds", type=int, default=3, help="the least of so many is reported")
    parser.add_argument("--place", default="/dev/shm" if Path("/dev/shm").is_dir() else None)
    parser.add_argument("--slow-store", action="store_true", help=f"{SLOW_S:g} s for every file")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.slow_store:
        _report_slow_store(options.place)
        return
    if options.one is not None:
        print(json.dumps(measure(options.one, Path(options.place))))
        return
    rows = []
    for num_cells in options.sizes:
        rounds = options.rounds if num_cells <= COMPARED[0] * 10 else 1
        found = [measure_apart(num_cells, options.place) for _ in range(rounds)]
        rows.append({key: min(one[key] for one in found) for key in found[0]})
        print(f"measured {num_cells:,} cells", file=sys.stderr)
    costs = table(rows)
    names = list(costs[0])
    print("| " + " | ".join(names) + " |\n|" + "---|" * len(names))
    for row in costs:
        print("| " + " | ".join(f"{row[name]:,.1f}" for name in names) + " |")
    keep("driver_scale", {"place": options.place, "leases": NUM_LEASES, "sizes": rows})
    _require_flat({row["num_cells"]: row for row in costs})


def _report_slow_store(place: str | None) -> None:
    with tempfile.TemporaryDirectory(dir=place) as folder:
        found = measure_slow_store(Path(folder))
    print(f"{SLOW_S * 1000:g} ms a file, {SLOW_CELLS:,} cells: {json.dumps(found)}")
    keep("driver_scale_slow_store", {"file_s": SLOW_S, "cells": SLOW_CELLS, **found})
    if found["first_cells_s"] > FIRST_CELLS_S or found["closings_per_s"] < CLOSINGS:
        raise SystemExit(
            f"asked: first cells in {FIRST_CELLS_S:g} s, {CLOSINGS:g} closings a second"
        )


def _require_flat(costs: dict[float, dict[str, float]]) -> None:
    if not set(COMPARED) <= set(costs):
        return
    small, large = (costs[size] for size in COMPARED)
    found = {name: large[name] / small[name] - 1 for name in small if name not in ("num_cells",)}
    for name, change in found.items():
        print(f"{name}: {change:+.1%} from {COMPARED[0]:,} to {COMPARED[1]:,} cells")
    steep = [name for name, change in found.items() if change > FLAT]
    if steep:
        raise SystemExit(f"not flat within {FLAT:.0%}: {', '.join(steep)}")


if __name__ == "__main__":
    main()
