"""Lock files: is a file or folder of this node in use by a process that lives?

The kernel gives the lock back when its holder ends, however that happens.
"""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout


def lock_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


@contextlib.contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Whether the lock of ``path`` could be had, without waiting; it is held meanwhile."""
    lock = FileLock(lock_path(path))
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
