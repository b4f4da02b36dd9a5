"""Start a program that dies with the process that started it, however that one ends.

``python parent_death.py PARENT_PID COMMAND …``. On Linux the kernel is asked to kill this process
when its parent goes, and the process becomes the command; elsewhere it stays and watches. Imports
nothing of the project: it runs before every rank and should cost nothing.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1
POLL_S = 0.2


def dying_with_this_process(command: Sequence[str]) -> list[str]:
    """The command that starts ``command`` so that it dies with the process that asks."""
    return [sys.executable, "-S", __file__, str(os.getpid()), *command]


def main() -> int:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        import ctypes

        if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
        if os.getppid() != parent:  # it died before the kernel was asked
            return 1
        os.execvp(command[0], command)
    child = subprocess.Popen(command)
    while child.poll() is None:
        if os.getppid() != parent:
            child.kill()
        time.sleep(POLL_S)
    return child.returncode


if __name__ == "__main__":
    sys.exit(main())
