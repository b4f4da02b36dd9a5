"""The agent brings back what really happened, leaves nothing running, and never waits for ever.

The ranks are real processes that run small programs in place of the trainer.
"""

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from sweep.messages import Requirements
from sweep.node import data, memory_use
from sweep.node.agent import EXIT_DRIVER_GONE, Agent
from sweep.node.scratch import read_abandoned_log, scratch_root
from sweep.spec.sweep_file import NodeShape
from tests.support.commands import ROOT, wait_until
from tests.support.nodes import required_dataset
from tests.support.standin import STEM, WELL, order, scratch_under, stand_in
from tests.support.tiny import build_tiny_dataset
from trainer.data.manifest import read_manifest
from trainer.source import trainer_source

TRAINING = 'say(phase="train", step=7)\n'


@pytest.fixture(params=[pytest.param("started", marks=pytest.mark.slow), "forked"])
def trainer(monkeypatch, tmp_path, request):
    """Sets the program that stands in for the trainer; scratch folders go under ``tmp_path``."""
    scratch_under(monkeypatch, tmp_path)
    return lambda code: stand_in(monkeypatch, code, forked=request.param == "forked")


@pytest.fixture(
    params=[pytest.param(False, marks=pytest.mark.slow), True], ids=["started", "forked"]
)
def agent_process(tmp_path, monkeypatch, request):
    """Starts a process with an agent in it, which gives up on its driver after ``silence_s``."""
    scratch_under(monkeypatch, tmp_path)

    def start(body, ranks_do="", silence_s=1.0):
        code = f"""
import pytest, tempfile, threading, time
tempfile.tempdir = {str(tmp_path)!r}
from sweep.node.agent import Agent
from tests.support.standin import order, stand_in
stand_in(pytest.MonkeyPatch(), {ranks_do!r}, forked={request.param})
agent = Agent(driver_silence_s={silence_s})
{body}
"""
        return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)

    return start


@pytest.fixture
def make_agent():
    """Makes agents that end with the test."""
    agents = []

    def make(*arguments, **options):
        agents.append(Agent(*arguments, **options))
        return agents[-1]

    yield make
    for agent in agents:
        agent.close()


def left_here():
    return list(scratch_root().iterdir())


def test_a_run_that_ends_well_is_brought_back_whole(trainer, make_agent):
    trainer(WELL + "print('threads', os.environ['OMP_NUM_THREADS'])")
    delivery = make_agent().run(order())
    assert (delivery.state, delivery.reason) == ("succeeded", None)
    assert (delivery.failure, delivery.signature, delivery.telemetry) == (None, None, {})
    assert json.loads(delivery.report or "") == {"a": 1}
    assert (delivery.curve, delivery.artifact, delivery.layers) == (b"c", b"a", b"l")
    assert delivery.log == "threads 1\n"
    assert left_here() == []


BAD = {
    "sys.exit(1)": ("failed", "cell", "status 1"),
    "raise ValueError('the cause')": ("failed", "cell", "the cause"),
    "sys.exit(2)": ("failed", "cell", "refused its input"),
    "sys.exit(12)": ("oom", "memory", "GiB available"),
    "os.kill(os.getpid(), signal.SIGSEGV)": ("failed", "cell", "SIGSEGV"),
    "os.kill(os.getpid(), signal.SIGKILL)": ("failed", "infrastructure", "SIGKILL"),
    "raise OSError(28, os.strerror(28))": ("failed", "infrastructure", "No space left on device"),
    "pass": ("failed", "cell", "left no report.json"),
}


def test_a_run_that_ends_badly_is_named_by_its_cause(trainer, make_agent):
    agent = make_agent()
    for program, (state, failure, reason) in BAD.items():
        trainer(program)
        delivery = agent.run(order())
        assert (delivery.state, delivery.failure) == (state, failure), program
        assert reason in (delivery.reason or "")
        assert delivery.signature
    assert left_here() == []


def test_a_kill_by_the_kernel_for_memory_is_told_from_any_other(
    trainer, monkeypatch, tmp_path, make_agent
):
    counters = tmp_path / "vmstat"
    counters.write_text("pgfault 7\noom_kill 3\n")
    monkeypatch.setattr(memory_use, "OOM_COUNTERS", (tmp_path / "absent", counters))
    trainer("os.kill(os.getpid(), signal.SIGKILL)")
    assert make_agent().run(order()).state == "failed"
    trainer(
        f"""
        pathlib.Path({str(counters)!r}).write_text("oom_kill 4")
        time.sleep(0.3)  # in which the agent looks at its memory
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    delivery = make_agent().run(order())
    assert (delivery.state, delivery.failure) == ("oom", "memory")
    assert "out of memory" in (delivery.reason or "")
    assert "the ranks together had" in (delivery.reason or "")


# -- hanging


def test_a_run_without_progress_is_killed_at_its_deadline_and_says_where_it_was(
    trainer, make_agent
):
    trainer(
        TRAINING
        + """
def a_collective_that_never_ends():
    time.sleep(60)
a_collective_that_never_ends()
"""
    )
    delivery = make_agent().run(order(ranks=2, no_progress_s=1.0))
    assert (delivery.state, delivery.failure) == ("hung", "hang")
    assert "phase train" in (delivery.reason or "")
    assert delivery.signature == "no progress in phase train"
    assert delivery.log.count("stacks when it hung") == 2
    assert delivery.log.count("in a_collective_that_never_ends") == 2
    assert left_here() == []


def test_a_run_that_keeps_reporting_is_not_killed(trainer, make_agent):
    trainer(
        """
for step in range(13):
    say(phase="train", step=step)
    time.sleep(0.25)
"""
        + WELL
    )
    assert make_agent().run(order(no_progress_s=3.0)).state == "succeeded"


def test_what_cannot_speak_for_long_is_given_more_time(trainer, make_agent):
    trainer(TRAINING.replace("train", "warmup") + "time.sleep(0.8)\n" + WELL)
    assert make_agent().run(order(no_progress_s=0.2)).state == "succeeded"


def test_what_never_speaks_is_given_no_more_than_that(trainer, make_agent):
    trainer("time.sleep(60)")
    delivery = make_agent().run(order(no_progress_s=0.2, slow_phase_s=0.5))
    assert (delivery.state, delivery.signature) == ("hung", "no progress in phase start")


def test_when_one_rank_dies_the_others_are_killed_at_once(trainer, make_agent):
    trainer("sys.exit(3) if rank == 1 else time.sleep(60)")
    delivery = make_agent().run(order(ranks=3))
    assert (delivery.state, delivery.failure) == ("failed", "cell")
    assert "rank 1 ended with status 3" in (delivery.reason or "")
    assert "--- rank 2 ---" in delivery.log


def test_the_rank_that_failed_is_told_from_those_that_lost_it(trainer, make_agent):
    trainer(
        """
        if rank == 1:
            import atexit
            atexit.register(time.sleep, 60)  # a group of ranks is slow to be taken down
            raise ValueError("its own")
        log = pathlib.Path("rank1.log")
        while not log.exists() or "its own" not in log.read_text():
            time.sleep(0.01)
        raise ConnectionResetError(104, "Connection reset by peer")
        """
    )
    delivery = make_agent().run(order(ranks=3))
    assert delivery.failure == "cell"
    assert delivery.reason == "rank 1 failed: ValueError: its own"


# -- stopping, and what is seen meanwhile


def test_a_run_tells_its_progress_and_is_interrupted_and_leaves_no_process(trainer, make_agent):
    trainer(TRAINING + "time.sleep(60)")
    agent, seen = make_agent(), []

    def look():
        wait_until(agent.progress)
        seen.append(agent.progress())
        agent.stop()

    threading.Thread(target=look, daemon=True).start()
    before = set(psutil.Process().children(recursive=True))
    delivery = agent.run(order(ranks=2))
    assert (delivery.state, delivery.failure) == ("interrupted", "user")
    assert seen == [{"phase": "train", "step": 7, "log_end": "", "log_bytes": 0}]
    assert agent.progress() is None
    agent.close()
    assert set(psutil.Process().children(recursive=True)) <= before
    assert left_here() == []


class Glance:
    """A sampler that keeps what it is told."""

    def __init__(self, pids, phase):
        self.pids, self.phase, self.seen = pids, phase, []

    def start(self):
        wait_until(lambda: self.phase() == "train")
        self.seen.append((len(self.pids()), self.phase()))
        return self

    def stop(self):
        assert all(not psutil.pid_exists(pid) or is_dead(pid) for pid in self.pids())
        return {"telemetry_samples": self.seen}


def is_dead(pid):
    return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_the_node_is_looked_at_while_the_ranks_run(trainer, make_agent):
    trainer(TRAINING + "time.sleep(0.5)\n" + WELL)
    delivery = make_agent(sampler_factory=Glance).run(order(ranks=2))
    assert delivery.telemetry == {"telemetry_samples": [(2, "train")]}


def test_a_sampler_that_fails_costs_no_result(trainer, monkeypatch, make_agent):
    def fail(self):
        raise RuntimeError("NVML is gone")

    trainer(TRAINING + WELL)
    for broken in ("start", "stop"):
        with monkeypatch.context() as patch:
            patch.setattr(Glance, broken, fail)
            delivery = make_agent(sampler_factory=Glance).run(order())
        assert (delivery.state, delivery.telemetry) == ("succeeded", {})
        assert "the node's telemetry: RuntimeError: NVML is gone" in delivery.log


# -- what the node cannot do


def test_a_disk_without_room_is_the_nodes_failure(trainer, monkeypatch, make_agent):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    trainer(WELL)
    monkeypatch.setattr(Path, "write_text", full)
    delivery = make_agent().run(order())
    assert (delivery.state, delivery.failure) == ("failed", "infrastructure")
    assert "No space left on device" in delivery.reason
    assert left_here() == []


def test_a_rank_that_cannot_be_killed_is_the_nodes_failure(trainer, monkeypatch, make_agent):
    trainer("sys.exit(3)")
    monkeypatch.setattr(
        "sweep.processes.process_tree._ended", lambda process, deadline_s: process.wait() is None
    )
    delivery = make_agent().run(order())
    assert delivery.failure == "infrastructure"
    assert "rank 0 could not be killed" in delivery.reason


def test_a_node_with_other_code_refuses_cell_and_lease(trainer, make_agent):
    trainer(WELL)
    delivery = make_agent().run(order(trainer_hash="f" * 64))
    assert (delivery.state, delivery.failure) == ("failed", "infrastructure")
    assert "the driver's is ffffffffffff" in delivery.reason
    refusal = Agent().prepare(requirements(trainer_hash="f" * 64)).refusal
    assert "the driver's is ffffffffffff" in refusal


# -- a driver that has gone


def rank_pids(folder, num_ranks):
    logs = [folder / f"rank{rank}.log" for rank in range(num_ranks)]
    wait_until(lambda: all(log.exists() and log.read_text().endswith("\n") for log in logs))
    return [psutil.Process(int(log.read_text())) for log in logs]


SAYS_ITS_NUMBER = TRAINING + "print(os.getpid(), flush=True); time.sleep(60)"


def test_an_agent_that_hears_nothing_leaves_no_process_and_its_log(agent_process):
    folder = scratch_root() / STEM
    body = f"""
import pathlib, types
from sweep.node import liveness
threading.Thread(target=agent.run, args=[order(ranks=2)], daemon=True).start()
while not pathlib.Path({str(folder / "heard")!r}).exists():
    time.sleep(0.05)
    agent.progress()
liveness.time = types.SimpleNamespace(monotonic=lambda: time.monotonic() + 600, sleep=time.sleep)
time.sleep(60)
"""
    with agent_process(body, SAYS_ITS_NUMBER, silence_s=600.0) as agent:
        ranks = rank_pids(folder, 2)
        (folder / "heard").touch()  # from now on the driver is silent, and ten minutes pass at once
        assert agent.wait(60) == EXIT_DRIVER_GONE
    gone, _ = psutil.wait_procs(ranks, timeout=60)
    assert set(gone) == set(ranks)
    left = read_abandoned_log(STEM)
    assert "no word from the driver for 600 s" in left
    assert '"step": 7' in left
    assert left_here() == []


def test_an_idle_agent_that_hears_nothing_ends_too(agent_process):
    with agent_process("time.sleep(60)") as agent:
        assert agent.wait(60) == EXIT_DRIVER_GONE


@pytest.mark.slow
def test_an_agent_that_is_asked_lives_on(agent_process):
    body = """
threading.Thread(target=agent.run, args=[order()], daemon=True).start()
for _ in range(100):
    time.sleep(0.05)
    agent.progress()
agent.stop()
"""
    with agent_process(body, SAYS_ITS_NUMBER, silence_s=4.0) as agent:
        assert agent.wait(30) == 0


@pytest.mark.slow
def test_an_agent_that_stood_still_for_too_long_ends_when_it_goes_on(agent_process):
    body = """
threading.Thread(target=agent.run, args=[order()], daemon=True).start()
while True:
    time.sleep(0.05)
    agent.progress()
"""
    with agent_process(body, SAYS_ITS_NUMBER, silence_s=4.0) as agent:
        [rank] = rank_pids(scratch_root() / STEM, 1)
        agent.send_signal(signal.SIGSTOP)
        time.sleep(4.1)  # by then the driver has given up
        assert rank.is_running()
        agent.send_signal(signal.SIGCONT)
        assert agent.wait(60) == EXIT_DRIVER_GONE
    assert psutil.wait_procs([rank], timeout=60)[0] == [rank]


# -- the data of a node


def requirements(*datasets, trainer_hash=None):
    return Requirements(
        shape=NodeShape(),
        datasets=datasets,
        trainer_hash=trainer_hash or trainer_source().sha256,
        lockfile_hash=None,
        checkpoint_folder=None,
        timed=False,
    )


@pytest.fixture(scope="module")
def tiny_data(tmp_path_factory):
    return build_tiny_dataset(tmp_path_factory.mktemp("data"))


def test_a_staged_dataset_is_what_the_ranks_read(trainer, tiny_data, tmp_path, make_agent):
    trainer(WELL)  # its report is its specification
    agent, place = make_agent(), tmp_path / "cache"
    datasets = required_dataset(tiny_data, cache=str(place))
    assert agent.prepare(requirements(datasets)).refusal is None
    spec = json.dumps({"data_dir": str(tiny_data), "seed": 7})
    given = json.loads(agent.run(order(spec_json=spec)).report)
    assert given["seed"] == 7
    assert Path(given["data_dir"]).parent == place
    assert read_manifest(Path(given["data_dir"])) == read_manifest(tiny_data)


def test_a_node_without_the_data_says_so_in_a_line(tiny_data, tmp_path):
    gone = required_dataset(tiny_data, data_dir=str(tmp_path / "gone"))
    refused = Agent().prepare(requirements(gone)).refusal
    assert refused is not None
    assert "not on this node" in refused
    assert "\n" not in refused
    other = (
        Agent().prepare(requirements(required_dataset(tiny_data, corpus_sha256="c" * 64))).refusal
    )
    assert "not what the sweep asks for" in other


def test_staging_that_does_not_end_is_ended(tiny_data, monkeypatch):
    monkeypatch.setattr(data, "_command", lambda dataset: ["sleep", "60"])
    before = set(psutil.Process().children(recursive=True))
    with pytest.raises(data.NotStaged, match="has not ended within"):
        data.stage(required_dataset(tiny_data), deadline_s=0.2)
    assert set(psutil.Process().children(recursive=True)) <= before
