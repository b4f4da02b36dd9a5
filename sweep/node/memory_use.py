"""Memory of the node and of its ranks: the numbers that explain an attempt that ran out."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil

LOOK_EVERY_S = 1.0
GROWN = 1.05
OOM_COUNTERS = (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat"))
CGROUPS = Path("/sys/fs/cgroup")
GIB = 2**30


class MemoryWatch:
    """Looks once a second at the node and at the ranks of one attempt.

    A page that several processes share (libraries; what ranks were forked with) counts in each of
    them as its part, so that the ranks together have what they take. The kernel walks all pages to
    tell that (10 ms for each GiB), so it is asked again only once the ranks have grown.
    """

    def __init__(self) -> None:
        self._oom_kills = oom_kills()
        self._least_available = psutil.virtual_memory().available
        self.peak_ranks_bytes: int | None = None
        self._looked_s: float | None = None
        self._resident_then = 0  # when it was last asked what is shared
        self._shared = 0

    def look(self, pids: Callable[[], Sequence[int]]) -> None:
        """Look at the processes that ``pids`` names, if it is time."""
        now = time.monotonic()
        if self._looked_s is not None and now - self._looked_s < LOOK_EVERY_S:
            return
        self._looked_s = now
        self._least_available = min(self._least_available, psutil.virtual_memory().available)
        resident = {pid: size for pid in pids() if (size := _resident_bytes(pid))}
        total = sum(resident.values())
        if total > GROWN * self._resident_then:
            self._resident_then = total
            self._shared = sum(size - _own_bytes(pid, size) for pid, size in resident.items())
        if total:
            self.peak_ranks_bytes = max(self.peak_ranks_bytes or 0, total - self._shared)

    @property
    def kernel_has_killed(self) -> bool:
        """The kernel has killed for memory since this watch was made."""
        return oom_kills() > self._oom_kills

    def __str__(self) -> str:
        """What was seen; the limit is the control group's."""
        total = psutil.virtual_memory().total
        had = f"{self._least_available / GIB:.1f} of {total / GIB:.1f} GiB"
        parts = [f"the node had {had} available at the least"]
        if limits := [limit for limit in _limits() if limit < total]:
            parts.append(f"the limit of the control group is {min(limits) / GIB:.1f} GiB")
        if self.peak_ranks_bytes is not None:
            parts.append(f"the ranks together had {self.peak_ranks_bytes / GIB:.1f} GiB at most")
        return ", ".join(parts)


def oom_kills() -> int:
    """Processes that the kernel has killed for memory: in this container, else on this machine.

    0 where neither is told, which then cannot be told apart from any other SIGKILL.
    """
    for counters in OOM_COUNTERS:
        with contextlib.suppress(OSError):
            for line in counters.read_text(encoding="ascii").splitlines():
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count)
    return 0


def _resident_bytes(pid: int) -> int:
    with contextlib.suppress(psutil.Error):
        size: int = psutil.Process(pid).memory_info().rss
        return size
    return 0


def _own_bytes(pid: int, resident_bytes: int) -> int:
    """The proportional set size of a process; the resident one where the kernel tells no other."""
    with contextlib.suppress(psutil.Error, AttributeError):
        return min(resident_bytes, int(psutil.Process(pid).memory_full_info().pss))
    return resident_bytes


def _limits() -> Iterator[int]:
    """Limits of this process's control group and of those that hold it, of either version."""
    files = [CGROUPS / "memory" / "memory.limit_in_bytes", CGROUPS / "memory.max"]
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            if line.startswith("0::/"):
                own = CGROUPS / line.removeprefix("0::/")
                files += [at / "memory.max" for at in (own, *own.parents) if CGROUPS in at.parents]
    for file in files:
        with contextlib.suppress(OSError, ValueError):  # a file that says "max" sets no limit
            yield int(file.read_text(encoding="ascii"))
