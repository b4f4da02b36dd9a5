"""Where was this measured, with what? What every result of a benchmark is kept with."""

import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from sweep.provenance import revision

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("ray", "pyarrow", "pydantic")


def here() -> dict[str, Any]:
    """Hardware, versions and revision."""
    commit = revision(ROOT)
    return {
        "machine": platform.platform(),
        "cpus": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
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
