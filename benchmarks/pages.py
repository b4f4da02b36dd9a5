"""Processor time of report and figures of a finished sweep: each alone, and both sharing the work.

    python -m benchmarks.pages

On the rows of ``results/example`` (36 cells), one after the other, round after round.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.measured import ROOT, conclude
from benchmarks.turns import in_turn, quartiles, ratios

EXAMPLE = ROOT / "results" / "example"
VERBS = {"figures": ["figures"], "report": ["report"], "both": ["report", "--figures"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--check", action="store_true", help="compare with what was kept")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(EXAMPLE, Path(folder) / "example")
        work: dict[str, Callable[[], object]] = {
            name: partial(_run, verb, folder) for name, verb in VERBS.items()
        }
        times = in_turn(work, rounds=options.rounds, warmup=0, clock=_of_children_s)
    for name, values in times.items():
        print(f"{name}: {quartiles(values)} s of processor time")
    found = {name: quartiles(values) for name, values in times.items()}
    conclude("pages", {"seconds": found, "ratios": ratios(times, "figures")}, check=options.check)


def _run(verb: list[str], results: str) -> None:
    command = [sys.executable, "-m", "analysis", *verb, "--sweep", "example", "--results", results]
    one_core = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env=one_core, stdout=subprocess.DEVNULL)


def _of_children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
