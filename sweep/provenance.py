"""The code that runs: git revision, hashes of sources and pinned versions, versions of packages."""

import hashlib
import platform
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from trainer.source import Source, source_of, trainer_source
from trainer.system.machine import installed_version

PROJECT = Path(__file__).resolve().parents[1]
LOCKFILE = "constraints.txt"
NO_CODE = "benchmarks/results"
"""What a benchmark has just kept makes the next one's revision no other."""


@dataclass(frozen=True, slots=True)
class Revision:
    """``commit`` and ``dirty`` are None outside a git checkout."""

    commit: str | None
    dirty: bool | None


def revision(root: Path) -> Revision:
    """The revision of the checkout at ``root``, dirty where it differs in more than ``NO_CODE``."""
    commit = _git(root, "rev-parse", "HEAD")
    status = _git(root, "status", "--porcelain", "--", ".", f":(exclude){NO_CODE}")
    return Revision(commit or None, None if status is None else bool(status))


@dataclass(frozen=True, slots=True)
class Software:
    """Versions; None where a package is not installed."""

    python: str
    torch: str | None
    ray: str | None


def software() -> Software:
    """What this interpreter has; imports none of it."""
    return Software(platform.python_version(), installed_version("torch"), installed_version("ray"))


def sweep_hash() -> str:
    """Of the sweep's own source files: what a driver and its nodes must have alike."""
    return _sweep_source().sha256


def lockfile_hash(root: Path) -> str | None:
    """SHA-256 of the versions that ``make setup`` installs; None where the file is absent."""
    try:
        return hashlib.sha256((root / LOCKFILE).read_bytes()).hexdigest()
    except FileNotFoundError:
        return None


@dataclass(frozen=True, slots=True)
class Code:
    """What a node must run too: ``lockfile_hash`` is None without the file of pinned versions."""

    trainer_hash: str
    lockfile_hash: str | None
    software: Software | None = None
    sweep_hash: str | None = None


def code_here() -> Code:
    """The code that this process runs from."""
    return Code(trainer_source().sha256, lockfile_hash(PROJECT), software(), sweep_hash())


@cache
def _sweep_source() -> Source:
    return source_of(Path(__file__).parent)


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
