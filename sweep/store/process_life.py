"""Tell whether a process of this machine lives, by boot id, process namespace and start.

A number of a process means something on one machine, in one boot of it, in one container. Where
those cannot be read (macOS, a /proc that is hidden) nothing is told.
"""

import os
import socket
from pathlib import Path


def machine() -> str | None:
    """A name of this boot of this machine, as processes of one container see it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{socket.gethostname()} {boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def started_ticks(process: int) -> int | None:
    """When a process began, in clock ticks since boot; None where it cannot be read."""
    fields = _stat(process)
    return int(fields[19]) if fields else None


def is_running(process: int, ticks: int | None) -> bool | None:
    """Whether the process that began at ``ticks`` runs; None where it cannot be told."""
    try:
        os.kill(process, 0)  # tells of processes too that /proc hides from other users
    except PermissionError:
        pass
    except (OSError, OverflowError):
        return False
    fields = _stat(process)
    if not fields or ticks is None:
        return None
    return fields[0] not in "ZX" and int(fields[19]) == ticks  # a zombie waits for its parent


def _stat(process: int) -> list[str]:
    """The fields of /proc/…/stat from the state on; a name before it may have blanks."""
    try:
        return Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].decode().split()
    except OSError:
        return []
