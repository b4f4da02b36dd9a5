"""The project speaks of itself alone, and stays inside its rooms."""

import re
import subprocess
import sys
from importlib.metadata import requires, version

import pytest
from packaging.requirements import Requirement

from constraints import constraints
from tests.support.commands import ROOT


def test_planning_imports_neither_torch_nor_ray():
    code = (
        "import sys, sweep.__main__, sweep.cli.verbs, analysis.figures.catalog;"
        "print(sorted({'torch', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


ENVIRON = re.compile(r"os\.environ|os\.getenv")
READS_ENVIRONMENT = {"trainer/distributed/world.py", "sweep/environment.py"}
GIVES_ENVIRONMENT = {
    "trainer/fork_server/fork.py",
    "trainer/fork_server/server.py",
    "trainer/script/run.py",
}  # to ranks and to libraries


@pytest.mark.parametrize("package", ["trainer", "sweep", "analysis"])
def test_the_environment_is_read_in_the_places_that_are_known(package):
    reading = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / package).rglob("*.py")
        if ENVIRON.search(path.read_text(encoding="utf-8"))
    }
    assert reading <= READS_ENVIRONMENT | GIVES_ENVIRONMENT


def test_pins_satisfy_the_ranges():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.lower().split("==") for line in lines if "==" in line)
    for text in requires("activation-sweep") or []:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": "dev"}):
            continue  # `make setup` does not install it
        assert requirement.specifier.contains(pins[requirement.name.lower()]), text


def test_the_torch_of_the_system_keeps_what_fits_it():
    pins = ["# pins\n", "numpy==0.1\n", "rich==14.0\n", "torch==0.1\n", "sympy==0.1\n"]
    assert list(constraints(pins, keeps_torch=False)) == [line.strip() for line in pins]
    kept = dict(line.split("==") for line in constraints(pins, keeps_torch=True) if "==" in line)
    assert kept["rich"] == "14.0"
    assert {name: kept[name] for name in ("torch", "numpy", "sympy")} == {
        name: version(name) for name in ("torch", "numpy", "sympy")
    }
