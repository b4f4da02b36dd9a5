"""Write an environment's constraints: ``python constraints.py default|system < constraints.txt``.

With ``system``, torch and what has to fit it stay as this interpreter finds them installed, and
what is not installed stays unpinned, so that no resolver replaces the torch of an image.
"""

import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version

KEPT = ("torch", "triton", "numpy", "sympy")  # an image has chosen them together
UNPINNED = (*KEPT, "setuptools")  # which torch bounds, and which builds this package


def constraints(pins: Iterable[str], *, keeps_torch: bool) -> Iterator[str]:
    """The lines of a constraints file, from those of ours."""
    for line in pins:
        name = line.partition("==")[0].strip()
        if not (keeps_torch and name in UNPINNED):
            yield line.rstrip("\n")
    for name in KEPT if keeps_torch else ():
        try:
            yield f"{name}=={version(name)}"
        except PackageNotFoundError:  # nothing to keep
            continue


if __name__ == "__main__":
    for text in constraints(sys.stdin, keeps_torch=sys.argv[1] == "system"):
        print(text)
