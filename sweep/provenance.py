"""Which code is this? The checkout that the driver runs from, and the packages that run it."""

import hashlib
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

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
    return Software(platform.python_version(), _version("torch"), _version("ray"))


def lockfile_hash(root: Path) -> str | None:
    """SHA-256 of the versions that ``make setup`` installs; None where the file is absent."""
    try:
        return hashlib.sha256((root / LOCKFILE).read_bytes()).hexdigest()
    except FileNotFoundError:
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
