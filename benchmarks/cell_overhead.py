"""Where does the time go between one cell and the next on a warm lease?

From the moment at which a cell's report is written to the first training step of the next cell, in
parts, read from the files of the attempts while they are made:

- hand-over: the process ends, its files are brought back, (with a driver: the row is stored, the
  next order comes,) the node's code is checked, the scratch folder made;
- start: the rank begins and imports what it needs;
- setup: it reads the shards and builds the model;
- warm-up: the untimed steps before the first that counts.

The real agent makes real cells of the tiny recipe, in turn with ranks that are forked by its server
and ranks that are started as programs; then a real driver makes some over Ray, forked. The first
cell on each lease is not warm and is told apart.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measured import ROOT, keep
from sweep import ranks
from sweep.agent import Agent
from sweep.lease import Order
from sweep.scratch import STEM, log_of, place
from trainer.contract import PROGRESS_FILE, REPORT_FILE, SPEC_FILE, RunSpec
from trainer.source import trainer_source

sys.path.insert(0, str(ROOT))  # the tiny recipe's text belongs to the tests
from tests.support.commands import environment, write_sweep
from tests.support.tiny import build_tiny_dataset, tiny_spec

LOOK_S = 0.002
GOAL_S = 0.5
PARTS = ("hand-over", "start", "setup", "warm-up")


@dataclass
class Times:
    """When a cell came to each point (of time.time); the files' own times."""

    begun: float | None = None
    started: float | None = None
    phases: dict[str, float] = field(default_factory=dict)
    reported: float | None = None


class Onlooker(threading.Thread):
    """Sees what becomes of the attempts in the scratch folders of this user, by their stems."""

    def __init__(self) -> None:
        super().__init__(name="onlooker", daemon=True)
        self.seen: dict[str, Times] = {}
        self._end = threading.Event()

    def run(self) -> None:
        while not self._end.wait(LOOK_S):
            for entry in os.scandir(place()):
                if STEM.fullmatch(entry.name) and entry.is_dir():
                    _look(Path(entry.path), self.seen.setdefault(entry.name, Times()))

    def stop(self) -> None:
        self._end.set()
        self.join()


def _look(folder: Path, times: Times) -> None:
    times.begun = times.begun or _written_at(folder / SPEC_FILE)
    times.started = times.started or _written_at(log_of(folder, 0))
    times.reported = times.reported or _written_at(folder / REPORT_FILE)
    try:
        at = (folder / PROGRESS_FILE).stat().st_mtime
        phase = json.loads((folder / PROGRESS_FILE).read_bytes())["phase"]
    except (OSError, ValueError):
        return
    times.phases.setdefault(phase, at)


def _written_at(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def gaps(seen: Sequence[Times]) -> list[dict[str, float]]:
    """The parts between each cell and the next, in seconds; ``seen`` is in the order of making."""
    found = []
    for before, after in itertools.pairwise(seen):
        points = (
            before.reported,
            after.started,
            after.phases.get("setup"),
            after.phases.get("warmup"),
            after.phases.get("train"),
        )
        known = [point for point in points if point is not None]
        if len(known) == len(points):
            lengths = (late - early for early, late in itertools.pairwise(known))
            found.append(dict(zip(PARTS, lengths, strict=True)))
    return found


def watched(make: Callable[[], None]) -> list[Times]:
    onlooker = Onlooker()
    onlooker.start()
    try:
        make()
    finally:
        onlooker.stop()
    return sorted(onlooker.seen.values(), key=lambda times: times.begun or 0.0)


def order(spec: RunSpec, number: int) -> Order:
    return Order(
        stem=f"{number:016x}-1",
        cell_id=f"{number:016x}",
        spec_json=spec.model_dump_json(),
        ranks=1,
        threads=1,
        no_progress_s=60.0,
        slow_phase_s=300.0,
        trainer_hash=trainer_source().sha256,
    )


def on_agents(spec: RunSpec, num_cells: int, server: tuple[str, ...] | None) -> list[Times]:
    """Cells one after the other on one agent."""
    vars(ranks)["FORK_SERVER"] = server
    agent = Agent()

    def make() -> None:
        for number in range(num_cells):
            delivery = agent.run(order(spec, number))
            if delivery.state != "succeeded":
                raise SystemExit(f"a cell failed: {delivery.reason}\n{delivery.log}")

    try:
        return watched(make)
    finally:
        agent.close()


def with_driver(folder: Path, num_cells: int) -> list[Times]:
    """Cells one after the other on one lease of a driver over Ray."""
    file = folder / "overhead.toml"
    write_sweep(file, seeds=range(num_cells), slopes=(0.5,), budget="4steps")
    text = file.read_text(encoding="utf-8").replace("max_leases = 2", "max_leases = 1")
    text = text.replace('[[activations]]\nname = "relu2"\n', "").replace(
        'reference = "relu2"', 'reference = "leaky_relu2-s0.5"'
    )
    file.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "sweep", "run", "--sweep", str(file)]
    command += ["--results", str(folder / "results"), "--data", str(folder)]
    variables = environment(TMPDIR=tempfile.gettempdir())

    def make() -> None:
        done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"the sweep ended with {done.returncode}:\n{done.stdout}{done.stderr}")

    return watched(make)


def summary(found: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Medians of the parts and quartiles of their sum."""
    totals = [sum(parts.values()) for parts in found]
    low, middle, high = statistics.quantiles(totals, n=4)
    return {
        "num_gaps": len(found),
        **{f"{part} s": statistics.median(parts[part] for parts in found) for part in PARTS},
        "total s": middle,
        "quartiles s": [low, high],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=6, help="on each lease (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="of both ways (default: %(default)s)")
    parser.add_argument("--no-driver", action="store_true", help="agents alone")
    options = parser.parse_args()
    forking = ranks.FORK_SERVER
    found: dict[str, list[dict[str, float]]] = {"forked": [], "started": []}
    first_s: list[float] = []
    with tempfile.TemporaryDirectory(prefix="overhead-", dir="/tmp") as temporary:
        tempfile.tempdir = temporary
        folder = Path(temporary)
        spec = tiny_spec(build_tiny_dataset(folder))
        for _ in range(options.rounds):
            begun_s = time.time()
            seen = on_agents(spec, options.cells, forking)
            first_s.append(seen[0].phases["train"] - begun_s)
            found["forked"] += gaps(seen)
            found["started"] += gaps(on_agents(spec, options.cells, None))
        vars(ranks)["FORK_SERVER"] = forking
        if not options.no_driver:
            found["forked, driver over Ray"] = gaps(with_driver(folder, options.cells))
    table = {name: summary(parts) for name, parts in found.items()}
    show(table)
    ratio = table["forked"]["total s"] / table["started"]["total s"]
    print(f"first cell on a lease, server included: {statistics.median(first_s):.2f} s")
    print(f"forked / started: {ratio:.3f}; goal of the total: {GOAL_S} s")
    keep(
        "cell_overhead",
        {"goal_s": GOAL_S, "first_s": first_s, "ratio": ratio, "ways": table},
    )


def show(table: dict[str, dict[str, Any]]) -> None:
    names = [*(f"{part} s" for part in PARTS), "total s"]
    print("| ranks | " + " | ".join(names) + " | quartiles | gaps |")
    print("|---|" + "---:|" * (len(names) + 2))
    for way, row in table.items():
        low, high = row["quartiles s"]
        cells = " | ".join(f"{row[name]:.3f}" for name in names)
        print(f"| {way} | {cells} | {low:.3f}, {high:.3f} | {row['num_gaps']} |")


if __name__ == "__main__":
    main()
