"""Ranks are told to take what they take together, and a limit is told."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from sweep.node import memory_use
from sweep.node.memory_use import MemoryWatch

MIB = 2**20
FAMILY = """
import os, sys, time
shared = b"x" * (64 * 2**20)
copies = [os.getpid()]
for _ in range(2):
    if (copy := os.fork()) == 0:
        time.sleep(60)
    copies.append(copy)
print(*copies, flush=True)
sys.stdin.readline()
grown = b"x" * (32 * 2**20)
print("grown", flush=True)
time.sleep(60)
"""


@pytest.fixture
def family():
    """A process that has 64 MiB, and 32 more when told to; two copies share the 64."""
    with subprocess.Popen(
        [sys.executable, "-c", FAMILY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        start_new_session=True,
    ) as process:
        yield process
        os.killpg(process.pid, signal.SIGKILL)


def peak_mib(watch):
    return watch.peak_ranks_bytes / MIB


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="told by Linux alone")
def test_what_processes_share_counts_once(family, monkeypatch):
    monkeypatch.setattr(memory_use, "LOOK_EVERY_S", 0.0)
    pids, watch = [int(pid) for pid in family.stdout.readline().split()], MemoryWatch()
    watch.look(lambda: pids)
    assert 64 < peak_mib(watch) < 64 + 3 * 16
    family.stdin.write("\n")
    family.stdout.readline()
    before = peak_mib(watch)
    watch.look(lambda: pids)
    assert peak_mib(watch) == pytest.approx(before + 32, abs=4)


def denied(process):
    raise psutil.AccessDenied(process.pid)


def test_where_nothing_is_told_of_sharing_resident_sizes_are_added(family, monkeypatch):
    monkeypatch.setattr(psutil.Process, "memory_full_info", denied)
    pids, watch = [int(pid) for pid in family.stdout.readline().split()], MemoryWatch()
    watch.look(lambda: [*pids, 2**22 + 1])  # the last is no process
    resident = sum(psutil.Process(pid).memory_info().rss for pid in pids)
    assert peak_mib(watch) == pytest.approx(resident / MIB, abs=4)
    assert resident > 3 * 64 * MIB


def test_a_limit_of_the_control_group_is_told(monkeypatch, tmp_path):
    (tmp_path / "memory.max").write_text(f"{2**30}\n")
    monkeypatch.setattr(memory_use, "CGROUPS", tmp_path)
    assert "the limit of the control group is 1.0 GiB" in str(MemoryWatch())
    (tmp_path / "memory.max").write_text("max\n")
    assert "control group" not in str(MemoryWatch())
