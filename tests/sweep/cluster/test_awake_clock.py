"""Time in which a process did not run is no time in which others were silent."""

import signal
import subprocess
import sys
import time

import pytest

from sweep.cluster.awake_clock import LONGEST_TICK_S, AwakeClock
from tests.support.commands import ROOT, environment, wait_until

SAY = """
import sys, time
from sweep.cluster.awake_clock import AwakeClock
start_s, clock = time.monotonic(), AwakeClock()
print("ready", flush=True)
sys.stdin.readline()
print(clock.now_s, time.monotonic() - start_s)
"""
STOPPED_S = 1.5 * LONGEST_TICK_S


def test_the_clock_goes_on_while_its_process_runs():
    clock, start_s = AwakeClock(), time.monotonic()
    wait_until(lambda: clock.now_s >= 0.3, 10)
    assert time.monotonic() - start_s >= 0.3


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot be stopped there")
def test_the_time_of_a_stopped_process_is_left_out():
    with subprocess.Popen(
        [sys.executable, "-c", SAY],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
        time.sleep(STOPPED_S)  # it is the passing of time that is tested
        process.send_signal(signal.SIGCONT)
        output, _ = process.communicate("\n", timeout=30)
    awake_s, elapsed_s = map(float, output.split())
    assert elapsed_s >= STOPPED_S
    assert awake_s <= elapsed_s - STOPPED_S + LONGEST_TICK_S
