"""How does the sweep stand up to hundreds of faults, one after the other?

``python -m benchmarks.soak --seeds 0:200`` plays the rounds of the chaos test (docs/chaos.md), a
deck to a sweep, and adds a line per round to the table of results. A sweep's lines are added when
it has been seen to end as if undisturbed, so the command can be stopped at any time and goes on
with the seeds that have no line yet.
"""

import argparse
import csv
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the rounds belong to the tests, which are not installed

from tests.support.cluster import Cluster  # noqa: E402
from tests.support.faults import DECK  # noqa: E402
from tests.support.rounds import Outcome, survive  # noqa: E402
from tests.support.tiny import build_tiny_dataset  # noqa: E402

TABLE = Path(__file__).parent / "results" / "soak.csv"
COLUMNS = [field.name for field in fields(Outcome)]


def done(table: Path) -> set[int]:
    """Seeds that have a line."""
    if not table.exists():
        return set()
    with table.open(encoding="utf-8", newline="") as file:
        return {int(line["seed"]) for line in csv.DictReader(file)}


def sweeps(seeds: Sequence[int], known: set[int]) -> list[list[int]]:
    """The seeds that are not known, a deck to a sweep."""
    decks: dict[int, list[int]] = {}
    for seed in seeds:
        if seed not in known:
            decks.setdefault(seed // len(DECK), []).append(seed)
    return list(decks.values())


def add(table: Path, outcomes: Sequence[Outcome]) -> None:
    """All of one sweep in one write."""
    is_new = not table.exists()
    with table.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if is_new:
            writer.writeheader()
        writer.writerows(_rounded(outcome) for outcome in outcomes)
        file.flush()
        os.fsync(file.fileno())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=_seeds, default=range(200), metavar="FROM:TO")
    parser.add_argument("--table", type=Path, default=TABLE)
    arguments = parser.parse_args()
    todo = sweeps(arguments.seeds, done(arguments.table))
    print(f"{sum(map(len, todo))} of {len(arguments.seeds)} rounds to play", flush=True)
    if todo:
        play_all(todo, arguments.table)
    return 0


def play_all(todo: Sequence[Sequence[int]], table: Path) -> None:
    """Sweep after sweep on one cluster; the folder of one that fails is kept, and named."""
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    build_tiny_dataset(folder)
    with Cluster() as cluster:
        for seeds in todo:
            place = folder / f"{seeds[0]}"
            add(table, survive(cluster, place, folder, seeds, _show))
            print(f"  a sweep of {len(seeds)} rounds ended as if undisturbed", flush=True)
            shutil.rmtree(place)
    shutil.rmtree(folder)


def _show(outcome: Outcome) -> None:
    print(
        f"seed {outcome.seed:4}  {outcome.fault:15} gone {outcome.gone_s:5.1f} s  "
        f"recovered {outcome.recovery_s:5.1f} s  {outcome.happened}",
        flush=True,
    )


def _rounded(outcome: Outcome) -> dict[str, object]:
    values = asdict(outcome).items()
    return {key: round(value, 1) if isinstance(value, float) else value for key, value in values}


def _seeds(text: str) -> range:
    first, _, end = text.partition(":")
    return range(int(first), int(end))


if __name__ == "__main__":
    sys.exit(main())
