"""Ranks find each other, notice each other's death, and say where they are when they are asked."""

import json
import os
import signal
import sys
import time

import pytest
import torch
import torch.distributed as dist

from tests.support.killed import PROCESSES, ended, group
from tests.support.tiny import answer, read_report, tiny_spec
from trainer.__main__ import run_rank
from trainer.contract import PROGRESS_FILE, REPORT_FILE, SPEC_FILE
from trainer.distributed import world as world_module
from trainer.distributed.world import World, open_world


@pytest.mark.parametrize(("rank", "order"), [(0, ["made", "met"]), (1, ["met", "made"])])
def test_the_others_begin_when_rank_0_has_ended_and_all_go_on_together(rank, order):
    events = []

    class Meeting(World):
        def sum_(self, tensor):
            events.append("met")
            return tensor

    world = Meeting(rank=rank, size=2, device=torch.device("cpu"))
    assert world.rank_0_first(lambda: events.append("made") or rank) == rank
    assert events == [*order, "met"]


# -- meeting in a file


def test_two_groups_on_one_host_at_once_keep_apart(data_dir, tmp_path):
    """Each answers its own question; one is compared with what it answers alone."""
    specs = {seed: tiny_spec(data_dir, seed=seed, budget="2steps") for seed in (1, 2)}
    at_once = [
        process
        for seed, spec in specs.items()
        for process in group(spec, tmp_path / f"both {seed}", None, num_ranks=2)
    ]
    assert ended(at_once) == [0] * 4
    assert ended(group(specs[1], tmp_path / "alone", None, num_ranks=2)) == [0, 0]
    one, other, alone = (read_report(tmp_path / name) for name in ("both 1", "both 2", "alone"))
    assert answer(one) == answer(alone)
    assert one.pre_quant_loss != other.pre_quant_loss


def _operate(rank, folder):
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "3", "RENDEZVOUS_FILE": str(folder / "meeting")}
    with open_world("cpu", 1) as world:
        largest = world.largest(torch.tensor([float(rank), -float(rank)])).tolist()
        whole_N11 = torch.arange(4.0).view(4, 1, 1)
        part_P11 = world.part(whole_N11)
        together = world.all_gather(part_P11, 4).wait().flatten().tolist()
    (folder / f"{rank}.json").write_text(json.dumps([largest, part_P11.numel(), together]))


def test_parts_are_gathered_again_and_the_largest_is_that_of_any_rank(tmp_path):
    ranks = [PROCESSES.Process(target=_operate, args=(rank, tmp_path)) for rank in range(3)]
    assert ended(ranks) == [0] * 3
    for rank in range(3):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found == [[2.0, 0.0], 2, [0.0, 1.0, 2.0, 3.0]]


def test_ranks_wait_for_each_other_as_long_as_for_a_collective_and_know_their_gpus(
    monkeypatch, tmp_path
):
    """Rank 0 may tune for minutes before the group's connections are first used."""
    asked = []
    monkeypatch.setattr(
        dist, "init_process_group", lambda *given, **how: asked.append((given, how))
    )
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RENDEZVOUS_FILE", str(tmp_path / "meeting"))
    for device in ("cpu", "cuda"):
        with open_world(device, threads=1):
            pass
    (_, on_cpu), ((backend,), on_gpu) = asked
    assert backend == "nccl"
    assert (on_cpu["device_id"], on_gpu["device_id"]) == (None, torch.device("cuda", 1))
    assert {how["store"].timeout for how in (on_cpu, on_gpu)} == {world_module.COLLECTIVE_TIMEOUT}
    assert {how["timeout"] for how in (on_cpu, on_gpu)} == {world_module.COLLECTIVE_TIMEOUT}


def _take_from_rank_0(rank, folder):
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "RENDEZVOUS_FILE": str(folder / "meeting")}
    calls = []

    def make():
        calls.append(rank)
        time.sleep(0.5)
        return {"bytes": b"x" * 10, "made_by": rank}

    def fail():
        raise ValueError("no artifact")

    world_module.STATUS_INTERVAL_S = 0.02  # some twenty times "not yet"
    with open_world("cpu", 1) as world:
        made = world.on_rank_0(make)
        (folder / f"{rank}.json").write_text(json.dumps([made["made_by"], len(calls)]))
        world.on_rank_0(fail)


def test_what_rank_0_alone_makes_every_rank_has_and_its_error_ends_them_all(tmp_path):
    ranks = [
        PROCESSES.Process(target=_take_from_rank_0, args=(rank, tmp_path)) for rank in range(2)
    ]
    assert ended(ranks) == [1] * 2
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert found == [[0, 1], [0, 0]]


# -- the trainer as a process

WAITING = ("all_reduce", "wait", "broadcast")


def _run_rank(rank, folder):
    """What ``python -m trainer`` does, in a process that has imported it."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "RENDEZVOUS_FILE": str(folder / "meeting")}
    log = os.open(folder / f"rank{rank}.log", os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(log, stream)
    sys.argv = ["trainer", "--spec", str(folder / SPEC_FILE), "--out", str(folder)]
    run_rank()


class Ranks:
    """Two rank processes of a run that takes hours, their logs and what they say of themselves."""

    def __init__(self, data_dir, folder):
        self.folder = folder
        spec = tiny_spec(data_dir, budget="1000000steps", log_every=1000)
        (folder / SPEC_FILE).write_text(spec.model_dump_json())
        self.processes = [PROCESSES.Process(target=_run_rank, args=(r, folder)) for r in range(2)]
        for process in self.processes:
            process.start()

    def log(self, rank):
        return (self.folder / f"rank{rank}.log").read_text()

    def until(self, condition):
        """Wait for ``condition()`` to be true, for as long as both processes live."""
        while not condition():
            assert all(process.is_alive() for process in self.processes), self.log(0)
            time.sleep(0.02)

    def step(self):
        """The last step in progress.json, None before the first."""
        try:
            return json.loads((self.folder / PROGRESS_FILE).read_bytes())["step"]
        except FileNotFoundError:
            return None

    def end(self):
        for process in self.processes:
            process.kill()
            process.join()


@pytest.fixture
def training(data_dir, tmp_path):
    ranks = Ranks(data_dir, tmp_path)
    try:
        ranks.until(ranks.step)
        yield ranks
    finally:
        ranks.end()


@pytest.mark.timeout(1200)  # a limit for what hangs, not for a busy machine
def test_a_blocked_rank_shows_where_it_is_and_goes_on_and_notices_a_death(training):
    """One pair of processes for three claims: starting them takes seconds. Events alone are waited
    for, however long they take."""
    waiting, stopped = training.processes
    os.kill(stopped.pid, signal.SIGSTOP)

    def shows_its_stack():
        os.kill(waiting.pid, signal.SIGUSR1)  # again, until it has come to where it waits
        # Which of a step's collectives waits depends on the moment at which the other was stopped.
        log = training.log(0)
        return "in advance" in log and any(f"in {name}" in log for name in WAITING)

    training.until(shows_its_stack)
    reached = training.step()
    os.kill(stopped.pid, signal.SIGCONT)
    training.until(lambda: training.step() > reached)

    stopped.kill()
    waiting.join()
    assert waiting.exitcode == 1
    assert "Traceback (most recent call last)" in training.log(0)
    assert not (training.folder / REPORT_FILE).exists()
