"""Put small faults into the product, one after the other, and see whether the tests notice.

Every ``[[mutant]]`` of ``benchmarks/mutants.toml`` replaces ``old``, which stands once in the
product, by ``new`` in a clone of the last commit, and runs ``tests``, the files that should notice.
The table gets a line for each that was tried; those are not tried again. Exit status 1: one
survived, or could not be tried.
"""

import argparse
import csv
import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MUTANTS = Path(__file__).with_name("mutants.toml")
TABLE = Path(__file__).parent / "results" / "mutants.csv"
PACKAGES = ("trainer", "sweep", "analysis")
COLUMNS = ("name", "room", "killed", "test", "seconds")
PYTEST = (sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow", "-p", "no:cacheprovider")
LIMIT_S = 300
NOTICED = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.MULTILINE)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", type=Path, default=TABLE, help="the table, a CSV file")
    parser.add_argument("--only", metavar="NAME", help="try this mutant alone")
    arguments = parser.parse_args()
    mutants = tomllib.loads(MUTANTS.read_text(encoding="utf-8"))["mutant"]
    with (
        tempfile.TemporaryDirectory() as folder,
        arguments.table.open("a+", encoding="utf-8", newline="") as file,
    ):
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        file.seek(0)
        killed = {row["name"]: row["killed"] == "true" for row in csv.DictReader(file)}
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if not file.tell():
            table.writeheader()
        for mutant in mutants:
            name = mutant["name"]
            if name in killed or arguments.only not in (None, name):
                continue
            try:
                row = try_one(clone, mutant)
            except LookupError as error:
                killed[name] = False
                print(f"{name}: {error}", flush=True)
                continue
            killed[name] = row["killed"] == "true"
            table.writerow(row)
            file.flush()
            print(f"{name}: {row['test'] or 'SURVIVED'} ({row['seconds']} s)", flush=True)
    return 0 if all(killed.values()) else 1


def try_one(clone: Path, mutant: dict[str, Any]) -> dict[str, str]:
    """The mutant's line of the table; LookupError where it cannot be tried."""
    paths = [path for package in PACKAGES for path in (clone / package).rglob("*.py")]
    found = [path for path in paths if mutant["old"] in path.read_text(encoding="utf-8")]
    text = found[0].read_text(encoding="utf-8") if found else ""
    if len(found) != 1 or text.count(mutant["old"]) != 1:
        raise LookupError(f"its code stands not once but in {len(found)} files; mend the list")
    start_s = time.monotonic()
    try:
        found[0].write_text(text.replace(mutant["old"], mutant["new"]), encoding="utf-8")
        test = first_failure(clone, mutant["tests"])
    finally:
        found[0].write_text(text, encoding="utf-8")
    took = f"{time.monotonic() - start_s:.0f}"
    values = (mutant["name"], mutant["room"], str(bool(test)).lower(), test, took)
    return dict(zip(COLUMNS, values, strict=True))


def first_failure(clone: Path, tests: list[str]) -> str:
    """The first test that fails; empty if all pass, LookupError where they cannot be run."""
    environment = os.environ | {"PYTHONPATH": str(clone), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        ended = subprocess.run(
            [*PYTEST, *tests],
            cwd=clone,
            env=environment,
            timeout=LIMIT_S,
            capture_output=True,
            text=True,
        )
    except subprocess.TimeoutExpired:
        return f"no end within {LIMIT_S} s"
    noticed = NOTICED.search(ended.stdout)
    if ended.returncode and noticed is None:
        raise LookupError(f"pytest ended with {ended.returncode}: {ended.stdout[-300:].strip()}")
    return noticed[1] if ended.returncode and noticed else ""


if __name__ == "__main__":
    sys.exit(main())
