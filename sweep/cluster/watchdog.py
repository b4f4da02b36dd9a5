"""The watchdog: it kills what is left of a driver on this machine, however the driver ends.

A small process that keeps note of the driver's descendants, waits for the driver to end, in
whatever way, and then kills those that are still there. It knows them in two ways: by looking from
time to time, and at the end by a mark in their environment, which finds those that came since the
last look and have lost their parent (a process that renames itself may overwrite the mark).

Nearly everything dies by itself (ranks die with their agent, Ray shares its driver's fate), but Ray
was seen to leave two helpers of its own for most of a minute after a SIGKILL.
"""

import contextlib
import os
import select
import subprocess
import sys
import time

import psutil

from sweep.environment import DRIVER_MARK, mark_descendants

DEADLINE_S = 10.0
LOOK_EVERY_S = 1.0
STARTING_S, LOOK_WHILE_STARTING_S = 60.0, 0.2  # while Ray starts, processes come several a second


class Watchdog:
    """Watches the process that makes it, until it ends or ``close`` is called."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sweep.cluster.watchdog", str(os.getpid()), mark_descendants()],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def close(self) -> None:
        """Let it clean up now and wait until it has."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(DEADLINE_S + 5)


def main() -> None:
    driver, known = psutil.Process(int(sys.argv[1])), set[psutil.Process]()
    started_s = time.monotonic()
    # The pipe is readable when the driver has gone or has closed its end; nothing is ever sent.
    while not select.select([sys.stdin], [], [], _pause_s(time.monotonic() - started_s))[0]:
        with contextlib.suppress(psutil.Error):
            known = {process for process in known if process.is_running()}
            known.update(driver.children(recursive=True))
    known.update(_marked(sys.argv[2]))  # those that came since the last look
    known.discard(psutil.Process())
    deadline_s = time.monotonic() + DEADLINE_S
    while known and time.monotonic() < deadline_s:
        for process in known:
            with contextlib.suppress(psutil.Error):
                process.kill()
        known = {process for process in known if _is_alive(process)} | _marked(sys.argv[2])
        time.sleep(0.05)


def _marked(mark: str) -> set[psutil.Process]:
    """Every other process that was started by the driver or by what it started."""
    found = set[psutil.Process]()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(DRIVER_MARK) == mark and _is_alive(process):
                found.add(process)
    return found - {psutil.Process()}


def _pause_s(elapsed_s: float) -> float:
    return LOOK_WHILE_STARTING_S if elapsed_s < STARTING_S else LOOK_EVERY_S


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


if __name__ == "__main__":
    main()
