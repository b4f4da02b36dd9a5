"""Is a file or folder of this node in use by a process that lives? A lock beside it tells.

The kernel gives the lock back when its holder ends, however that happens.
"""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout


def lock_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


@contextlib.contextmanager
def held(path: Path) -> Iterator[bool]:
    """Whether the lock of ``path`` could be had, without waiting; it is held meanwhile."""
    lock = FileLock(lock_of(path))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def age_s(path: Path) -> float:
    """Time since it was last written; 0 where it is not there."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
