"""Where does the time go between one cell and the next on a warm lease?

From the moment at which a cell's report is written to the first training step of the next cell, in
parts, read from the files of the attempts while they are made:

- hand-over: the process ends, its files are brought back, (with a driver: the row is stored, the
  next order comes,) the node's code is checked, the scratch folder made;
- start: the rank begins and imports what it needs;
- setup: it reads the shards and builds the model;
- warm-up: the untimed steps before the first that counts.

The real agent makes real cells of some steps, in turn with ranks that are forked by its server and
ranks that are started as programs; then, of recipes that need no GPU, a real driver makes some over
Ray, forked. The first cell on each lease is not warm and is told apart. Any recipe trains on the
text that the local one trains on.
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

import torch

from benchmarks.contenders import CONTENDERS, REFERENCE, spec_of
from benchmarks.hardware import need_gpu, versions
from benchmarks.measured import ROOT, conclude
from benchmarks.turns import quartiles
from sweep.messages import Order
from sweep.node import ranks
from sweep.node.agent import Agent
from sweep.node.scratch import STEM, rank_log, scratch_root
from trainer.config import load_recipe
from trainer.contract import PROGRESS_FILE, REPORT_FILE, SPEC_FILE, RunSpec
from trainer.data.manifest import read_manifest
from trainer.source import trainer_source

sys.path.insert(0, str(ROOT))  # a sweep of a few cells is what the tests run
from tests.support.commands import environment, write_sweep

LOOK_S = 0.002
GOAL_S = {"cpu": 0.5, "cuda": 8.0}
A_FEW_STEPS = "20steps"
MAX_TARGETS = 12288
TEXT = "local"
"""The recipe whose dataset any machine can build."""
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
            for entry in os.scandir(scratch_root()):
                if STEM.fullmatch(entry.name) and entry.is_dir():
                    _look(Path(entry.path), self.seen.setdefault(entry.name, Times()))

    def stop(self) -> None:
        self._end.set()
        self.join()


def _look(folder: Path, times: Times) -> None:
    times.begun = times.begun or _written_at(folder / SPEC_FILE)
    times.started = times.started or _written_at(rank_log(folder, 0))
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


def question(recipe_name: str, device: str, folder: Path) -> RunSpec:
    """A cell of a few steps; its data is made in ``folder``."""
    dataset = load_recipe(TEXT).data.dataset
    command = [sys.executable, "-m", "trainer.data", "prepare", "--recipe", TEXT]
    subprocess.run([*command, "--root", str(folder)], cwd=ROOT, check=True, capture_output=True)
    manifest = read_manifest(folder / dataset)
    recipe = load_recipe(recipe_name, {"data.dataset": dataset, "scoring.max_targets": MAX_TARGETS})
    spec = spec_of(recipe_name, recipe, CONTENDERS[REFERENCE], device)
    about = {
        "budget": A_FEW_STEPS,
        "data_dir": str(folder / dataset),
        "corpus_sha256": manifest.corpus_sha256,
        "tokenizer_sha256": manifest.tokenizer_sha256,
    }
    return spec.model_copy(update=about)


def order(spec: RunSpec, number: int) -> Order:
    return Order(
        stem=f"{number:016x}-1",
        cell_id=f"{number:016x}",
        spec_json=spec.model_dump_json(),
        ranks=torch.cuda.device_count() if spec.device == "cuda" else 1,
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


def with_driver(spec: RunSpec, folder: Path, num_cells: int) -> list[Times]:
    """Cells one after the other on one lease of a driver over Ray."""
    file = folder / "overhead.toml"
    write_sweep(file, seeds=range(num_cells), slopes=(0.5,), budget=spec.budget)
    text = file.read_text(encoding="utf-8").replace("max_leases = 2", "max_leases = 1")
    text = text.replace('recipe = "tiny"', f'recipe = "{spec.recipe_name}"')
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
    parser.add_argument("--recipe", help="default: local, and pr549 on CUDA")
    parser.add_argument("--device", choices=tuple(GOAL_S), default="cpu")
    parser.add_argument("--check", action="store_true", help="compare with what was kept")
    options = parser.parse_args()
    device: str = options.device
    need_gpu("cell_overhead --device cuda", device)
    name = options.recipe or ("pr549" if device == "cuda" else "local")
    forking = ranks.FORK_SERVER
    found: dict[str, list[dict[str, float]]] = {"forked": [], "started": []}
    first_s: list[float] = []
    with tempfile.TemporaryDirectory(prefix="overhead-", dir="/tmp") as temporary:
        tempfile.tempdir = temporary
        folder = Path(temporary)
        spec = question(name, device, folder)
        for _ in range(options.rounds):
            begun_s = time.time()
            seen = on_agents(spec, options.cells, forking)
            first_s.append(seen[0].phases["train"] - begun_s)
            found["forked"] += gaps(seen)
            found["started"] += gaps(on_agents(spec, options.cells, None))
        vars(ranks)["FORK_SERVER"] = forking
        if device == "cpu" and not options.no_driver:
            found["forked, driver over Ray"] = gaps(with_driver(spec, folder, options.cells))
    table = {name: summary(parts) for name, parts in found.items()}
    show(table)
    started_s = table["started"]["total s"]
    ratio = quartiles([sum(parts.values()) / started_s for parts in found["forked"]])
    print(f"first cell on a lease, server included: {statistics.median(first_s):.2f} s")
    print(f"recipe {name}: forked / started {ratio}; goal of the total: {GOAL_S[device]} s")
    about = {**versions(), "recipe": name, "goal_s": GOAL_S[device], "first_s": first_s}
    result = {**about, "ratios": {"forked / started": ratio}, "ways": table}
    conclude(f"cell_overhead-{name}-{device}", result, check=options.check)


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
