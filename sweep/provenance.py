"""Which code is this? The commit and state of the checkout that the driver runs from."""

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Revision:
    """``commit`` and ``dirty`` are None outside a git checkout."""

    commit: str | None
    dirty: bool | None


def revision(root: Path) -> Revision:
    """The revision of the checkout at ``root``."""
    commit = _git(root, "rev-parse", "HEAD")
    status = _git(root, "status", "--porcelain")
    return Revision(commit or None, None if status is None else bool(status))


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
