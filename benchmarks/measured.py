"""Keep what was measured, with where and with what, or compare it with what was kept before."""

import json
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from benchmarks.turns import slower
from sweep.provenance import revision
from trainer.system.machine import installed_version

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("ray", "pyarrow", "pydantic")


def here() -> dict[str, Any]:
    """Hardware, versions (None of a package that is not installed) and revision."""
    commit = revision(ROOT)
    return {
        "machine": platform.platform(),
        "cpus": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "python": platform.python_version(),
        **{name: installed_version(name) for name in PACKAGES},
        "revision": commit.commit,
        "dirty": commit.dirty,
    }


def keep(name: str, result: Mapping[str, Any]) -> None:
    """Write ``benchmarks/results/NAME.json`` and say so."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    text = json.dumps({**here(), **result}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")
    print(f"wrote {path.relative_to(ROOT)}")


def conclude(name: str, result: Mapping[str, Any], *, check: bool) -> None:
    """Keep ``result``, or compare its "ratios" with the kept ones and exit with 1 if one has grown.

    A comparison keeps nothing. Absolute times are not compared: they are another machine's.
    """
    if not check:
        keep(name, result)
        return
    path = RESULTS / f"{name}.json"
    if not path.exists():
        sys.exit(f"{path}: nothing was kept to compare with; run without --check first.")
    grown = slower(result["ratios"], json.loads(path.read_text(encoding="utf-8"))["ratios"])
    if grown:
        sys.exit("\n".join(["ratios have grown past the noise:", *grown]))
    print(f"no ratio has grown past the noise of {path.name}")
