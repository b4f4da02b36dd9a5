"""Waiting for processes ends with the first that ends, and in time."""

import os
import signal
import subprocess
import sys
import time

from sweep.processes.process_tree import Processes

LONG_S = 60.0


def started(processes, tmp_path, program):
    return processes.start(
        [sys.executable, "-S", "-c", program],
        cwd=tmp_path,
        environment=dict(os.environ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def test_a_wait_ends_when_the_first_process_does(tmp_path):
    processes = Processes()
    try:
        started(processes, tmp_path, f"import time; time.sleep({LONG_S})")
        mortal = started(processes, tmp_path, f"import time; time.sleep({LONG_S})")
        assert processes.codes() == [None, None]
        os.kill(mortal.pid, signal.SIGKILL)
        os.waitid(os.P_PID, mortal.pid, os.WEXITED | os.WNOWAIT)  # before the wait begins
        begun_s = time.monotonic()
        processes.wait(LONG_S)
        assert time.monotonic() - begun_s < LONG_S
        assert processes.codes() == [None, -signal.SIGKILL]
        begun_s = time.monotonic()
        processes.wait(0.05)  # what has been told to have ended is not waited for again
        assert time.monotonic() - begun_s >= 0.04
    finally:
        processes.kill()
