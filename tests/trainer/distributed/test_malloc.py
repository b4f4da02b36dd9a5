"""Freed memory is kept, so that using it again costs no page fault."""

import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
from trainer.distributed.malloc import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
for size in [2**21] * 3:  # whatever the library learns from the first blocks, it has learned
    bytearray(size)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    held = [bytearray(2**21) for _ in range(4)]
    del held
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how):
    run = [sys.executable, "-c", FAULTS, how]
    return int(subprocess.run(run, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="what glibc does")
def test_memory_that_is_freed_and_taken_again_is_not_zeroed_again():
    """Eight megabytes twenty times over: faulted in once, or twenty times. Huge pages have few
    faults, so the two are compared with each other."""
    assert faults("keep") < faults("give back") / 4
