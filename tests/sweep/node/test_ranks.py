"""Ranks know their place, say where they are when asked, and die together, whoever dies first."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from sweep.environment import FLIGHT_RECORDER_ENTRIES, rank_environment
from sweep.node import ranks as ranks_module
from sweep.node.ranks import STACKS_MARK, RankLauncher, dump_stacks, rank_ends
from sweep.node.scratch import rank_log
from sweep.processes.process_tree import Processes
from tests.support.commands import wait_until
from tests.support.standin import order, stand_in
from trainer.system import parent_death


@pytest.fixture(params=["started", "forked"])
def start(monkeypatch, tmp_path, request):
    """Starts ranks that run a program in place of the trainer, and kills them in the end."""
    started, launcher, said = [], RankLauncher(), []

    def begin(code, num_ranks=1):
        stand_in(monkeypatch, code, forked=request.param == "forked")
        ranks = Processes()
        started.append(ranks)
        launcher.launch(
            ranks, order(ranks=num_ranks), tmp_path, stop=threading.Event(), say=said.append
        )
        return ranks

    yield begin
    for ranks in started:
        ranks.kill()
    launcher.close()
    assert said == []


def log(folder, rank=0):
    return rank_log(folder, rank).read_text()


# -- what they are told


def test_ranks_know_their_place_and_meet_at_a_file(start, tmp_path):
    keys = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "RENDEZVOUS_FILE"]
    ranks = start(f"print([os.environ[key] for key in {keys}], os.getcwd())", num_ranks=2)
    wait_until(lambda: ranks.codes() == [0, 0])
    for rank in range(2):
        assert log(tmp_path, rank) == (
            f"['{rank}', '{rank}', '2', '{tmp_path}/rendezvous'] {tmp_path}\n"
        )
    assert not (tmp_path / "rendezvous").exists()  # the ranks make it


def test_ranks_get_defaults_for_nccl_and_whatever_the_user_says():
    plain = rank_environment(Path("/p"), 3, {})
    assert plain == {
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
        "TORCH_FR_BUFFER_SIZE": FLIGHT_RECORDER_ENTRIES,
        "PYTHONPATH": "/p",
        "OMP_NUM_THREADS": "3",
        "PYTHONUNBUFFERED": "1",
    }
    said = {
        "NCCL_SOCKET_IFNAME": "ib0",
        "GLOO_SOCKET_IFNAME": "eth1",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "3",
        "TORCH_NCCL_TRACE_BUFFER_SIZE": "7",
    }
    given = rank_environment(Path("/p"), 3, said)
    assert given.items() >= said.items()
    assert "TORCH_FR_BUFFER_SIZE" not in given  # it would take precedence over what was said


# -- where they are


def test_every_rank_that_runs_shows_its_stack_even_a_stopped_one(start, tmp_path):
    ranks = start(
        """
        def waiting_for_godot():
            print("here", flush=True)
            time.sleep(60)
        waiting_for_godot() if rank else sys.exit(0)
        """,
        num_ranks=3,
    )
    wait_until(lambda: "here" in log(tmp_path, 1) and "here" in log(tmp_path, 2))
    wait_until(lambda: ranks.codes()[0] == 0)
    os.kill(ranks.pids[1], signal.SIGSTOP)
    dump_stacks(ranks, tmp_path)
    for rank in (1, 2):
        before, _, after = log(tmp_path, rank).partition(STACKS_MARK)
        assert before == "here\n"
        assert "waiting_for_godot" in after
    assert STACKS_MARK not in log(tmp_path, 0)
    assert ranks.codes() == [0, None, None]


def test_a_rank_that_cannot_answer_is_not_waited_for(start, tmp_path, monkeypatch):
    monkeypatch.setattr(ranks_module, "STACKS_S", 0.2)
    ranks = start("signal.signal(signal.SIGUSR1, signal.SIG_IGN); print('x'); time.sleep(60)")
    wait_until(lambda: log(tmp_path) == "x\n")
    dump_stacks(ranks, tmp_path)
    assert log(tmp_path) == "x\n" + STACKS_MARK


# -- how they end


def test_a_kill_takes_the_children_of_ranks_along(start, tmp_path):
    ranks = start(
        """
        import subprocess
        child = subprocess.Popen(["sleep", "60"])
        print(child.pid, flush=True)
        os._exit(0) if rank else time.sleep(60)
        """,
        num_ranks=2,
    )
    wait_until(lambda: log(tmp_path, 0).endswith("\n") and log(tmp_path, 1).endswith("\n"))
    wait_until(lambda: ranks.codes()[1] == 0)
    children = [psutil.Process(int(log(tmp_path, rank))) for rank in range(2)]
    assert ranks.kill() == []
    gone, _ = psutil.wait_procs(children, timeout=60)
    assert set(gone) == set(children)


def test_how_a_rank_ended_is_known_before_and_after_the_kill(start, tmp_path):
    ranks = start("sys.exit(3) if rank == 0 else os.kill(os.getpid(), signal.SIGTERM)", num_ranks=2)
    wait_until(lambda: None not in ranks.codes())
    assert ranks.codes() == ranks.codes() == [3, -signal.SIGTERM]
    assert ranks.kill() == []
    assert ranks.codes() == [3, -signal.SIGTERM]
    assert [end.code for end in rank_ends(ranks.codes(), tmp_path)] == [3, -signal.SIGTERM]


def test_a_program_whose_parent_has_gone_is_not_started(tmp_path):
    marker = tmp_path / "ran"
    program = f"open({str(marker)!r}, 'w')"
    command = [sys.executable, "-S", parent_death.__file__, "1", sys.executable, "-c", program]
    assert subprocess.run(command, timeout=30).returncode == 1
    assert not marker.exists()


@pytest.mark.parametrize("forked", [False, True])
def test_ranks_die_with_their_agent_even_if_it_can_do_nothing(tmp_path, forked):
    code = f"""
import pathlib, pytest, sys, threading, time
from sweep.node import ranks
from sweep.processes.process_tree import Processes
from tests.support.standin import order, stand_in
rank = "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
stand_in(pytest.MonkeyPatch(), rank, forked={forked})
processes = Processes()
ranks.RankLauncher().launch(
    processes, order(ranks=2), pathlib.Path({str(tmp_path)!r}), stop=threading.Event(), say=print
)
print(*processes.pids, flush=True)
time.sleep(60)
"""
    root = Path(__file__).resolve().parents[3]
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as agent:
        ranks = [psutil.Process(int(pid)) for pid in agent.stdout.readline().split()]
        assert len(ranks) == 2
        below = psutil.Process(agent.pid).children(recursive=True)  # the server is among them
        assert len(below) == 2 + forked
        agent.kill()
    gone, alive = psutil.wait_procs(below, timeout=60)
    with contextlib.suppress(psutil.Error):
        for process in alive:
            process.kill()
    assert set(gone) == set(below)
