"""Start processes that never outlive this one, and kill them with all that they have started.

They are direct children that the kernel kills when this process dies
(trainer/system/parent_death.py, and trainer/fork_server/fork.py for those that were adopted), each
in a session of its own, so that no signal of a terminal reaches them and a kill takes their
children along.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from multiprocessing import connection
from pathlib import Path
from typing import IO, TypeAlias

import psutil

from trainer.system.parent_death import dying_with_this_process

KILL_S = 10.0
WAIT_POLL_S = 0.002


class Adopted:
    """A child of this process that another one has started, as ``subprocess`` shows its own."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # somebody took its status: no success was seen
                self.returncode = -signal.SIGKILL
            else:
                self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline_s = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline_s is not None and time.monotonic() >= deadline_s:
                raise subprocess.TimeoutExpired([str(self.pid)], timeout or 0.0)
            time.sleep(WAIT_POLL_S)
        return code


Child: TypeAlias = "subprocess.Popen[bytes] | Adopted"


class Processes:
    """Processes that live and die as one. ``kill`` may be called by any thread."""

    def __init__(self) -> None:
        self._started: list[Child] = []
        self._known: set[int] = set()  # of these ``codes`` has said that they have ended

    def start(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        environment: Mapping[str, str],
        stdout: IO[bytes] | int,
        stderr: int,
    ) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            dying_with_this_process(command),
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def adopt(self, pid: int) -> None:
        """Take charge of a child that leads a session of its own and dies with this process."""
        self._started.append(Adopted(pid))

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._started]

    def family(self) -> list[int]:
        """The processes that run, and all that they have started."""
        found = []
        for pid in self.pids:
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                found += [pid, *(child.pid for child in process.children(recursive=True))]
        return found

    def codes(self) -> list[int | None]:
        """Exit statuses; None for what still runs, negative for what a signal ended."""
        codes = [_code(process) for process in self._started]
        self._known = {i for i, code in enumerate(codes) if code is not None}
        return codes

    def wait(self, timeout_s: float) -> None:
        """Until one has ended of which ``codes`` said last that it runs; at most ``timeout_s``."""
        with contextlib.ExitStack() as opened:
            watched = []
            for i, process in enumerate(self._started):
                if i not in self._known and (fd := _descriptor(process.pid)) is not None:
                    opened.callback(os.close, fd)
                    watched.append(fd)
            if watched:
                connection.wait(watched, timeout_s)
            else:
                time.sleep(timeout_s)

    def signal(self, number: signal.Signals) -> None:
        """Send it to every process that still runs."""
        for process in self._started:
            if _code(process) is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, number)

    def kill_now(self) -> None:
        """End every process with all of its group, and wait for none."""
        for process in list(self._started):
            if process.returncode is None:  # else the number may be another's by now
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def kill(self) -> list[int]:
        """End every process with all of its group; which of them, by number, would not die."""
        self.kill_now()
        deadline_s = time.monotonic() + KILL_S
        return [i for i, process in enumerate(self._started) if not _ended(process, deadline_s)]


def _code(process: Child) -> int | None:
    """How it ended, without waiting for it: so its number, which is its group's, stays taken until
    the group is killed."""
    if process.returncode is None and hasattr(os, "waitid"):
        with contextlib.suppress(ChildProcessError):
            end = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if end is None:
                return None
            return end.si_status if end.si_code == os.CLD_EXITED else -end.si_status
    return process.poll()


def _descriptor(pid: int) -> int | None:
    """What becomes readable when the process ends; None where the kernel has no such thing."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _ended(process: Child, deadline_s: float) -> bool:
    try:
        process.wait(max(0.0, deadline_s - time.monotonic()))
    except subprocess.TimeoutExpired:  # in the kernel, with a broken disk or driver
        return False
    return True
