"""Be the first process of a machine: reap whatever loses its parent, end when nothing is left.

``python init.py COMMAND …``. Everything that the command starts stays below this process however
its parents end, so that nothing can hide and no zombie makes others believe that it lives. SIGTERM,
and the death of whoever started this, kill all of it. The command's status is passed on.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from types import FrameType

import psutil

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def main() -> int:
    signal.signal(signal.SIGTERM, _kill_all)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    command = subprocess.Popen(sys.argv[1:], start_new_session=True)
    status = 0
    with contextlib.suppress(ChildProcessError):  # nobody is left
        while True:
            pid, ended = os.wait()
            if pid == command.pid:
                command.returncode = status = os.waitstatus_to_exitcode(ended)
    return status if status >= 0 else 128 - status


def _kill_all(number: int, frame: FrameType | None) -> None:
    while below := [p for p in psutil.Process().children(recursive=True) if _runs(p)]:
        for process in below:
            with contextlib.suppress(psutil.Error):
                process.kill()
        time.sleep(0.02)


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


if __name__ == "__main__":
    sys.exit(main())
