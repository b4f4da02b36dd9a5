"""Run tests under other versions: ``make test-stacks STACKS="lowest image"``. Needs uv.

Each stack is an environment that uv builds from the package index and forgets. torch for CUDA is
gigabytes, so this is no part of what every change must pass.
"""

import subprocess
import sys
from dataclasses import dataclass

from tests.support.commands import ROOT

TESTS = (
    "tests/test_house.py",
    "tests/trainer",
    "tests/analysis/figures",
    "tests/sweep/cli",
    "tests/sweep/processes",  # forked ranks need an import of torch that opens no GPU
)


@dataclass(frozen=True)
class Stack:
    """A Python, exact ``pins``, and which version of the rest: ``highest`` or ``lowest-direct``."""

    python: str
    pins: tuple[str, ...] = ()
    resolution: str = "highest"


# Triton 3.5 and 3.6 interpret kernels with numpy before 2.4 alone.
STACKS = {
    "image": Stack("3.12", ("torch==2.9.1", "triton==3.5.1", "numpy==2.3.5")),
    "bare": Stack("3.12", ("torch==2.11.0", "triton==3.6.0", "numpy<2.4")),
    "newest": Stack("3.13"),
    "lowest": Stack("3.11", resolution="lowest-direct"),
}


def command(stack: Stack) -> list[str]:
    """What runs the tests under ``stack``."""
    build = ["uv", "run", "--isolated", "--no-project", "--python", stack.python]
    build += ["--resolution", stack.resolution, "--with-editable", f"{ROOT}[dev]"]
    build += [argument for pin in stack.pins for argument in ("--with", pin)]
    # Other versions warn of other things, which is no fault of what they run.
    return [*build, "python", "-m", "pytest", "-q", "-W", "default", "-m", "not slow", *TESTS]


def main(names: list[str]) -> int:
    """Run each stack's tests, all of them where none is named; 1 if any fails."""
    unknown = [name for name in names if name not in STACKS]
    if unknown:
        print(f"error: stack {unknown[0]!r} is not known. Known: {', '.join(STACKS)}.")
        return 2
    failed = [
        name
        for name in names or STACKS
        if subprocess.run(command(STACKS[name]), cwd=ROOT).returncode != 0
    ]
    print(f"stacks that failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
