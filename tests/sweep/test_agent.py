"""The agent brings back what really happened, leaves nothing running, and never waits for ever.

The ranks are real processes that run small programs in place of the trainer.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from sweep import agent as agent_module
from sweep.agent import Agent
from sweep.lease import Order, Supply
from tests.support.tiny import build_tiny_dataset
from trainer.contract import ARTIFACT_FILE, CURVE_FILE, PROGRESS_FILE, REPORT_FILE, SPEC_FILE
from trainer.data.manifest import read_manifest

PREAMBLE = """
import os, sys, time, json, signal, pathlib
rank = int(os.environ["RANK"])
"""


@pytest.fixture
def trainer(monkeypatch, tmp_path):
    """Sets the program that stands in for the trainer; scratch folders go under ``tmp_path``."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def stand_in(program):
        code = PREAMBLE + textwrap.dedent(program)
        monkeypatch.setattr(agent_module, "TRAINER", (sys.executable, "-c", code))

    return stand_in


def order(ranks=1, no_progress_s=30.0):
    return Order(spec_json='{"a": 1}', ranks=ranks, threads=1, no_progress_s=no_progress_s)


WELL = f"""
spec = json.loads(pathlib.Path("{SPEC_FILE}").read_text())
pathlib.Path("{REPORT_FILE}").write_text(json.dumps(spec))
pathlib.Path("{CURVE_FILE}").write_bytes(b"c")
pathlib.Path("{ARTIFACT_FILE}").write_bytes(b"a")
print("threads", os.environ["OMP_NUM_THREADS"])
"""


def test_a_run_that_ends_well_is_brought_back_whole(trainer, tmp_path):
    trainer(WELL)
    delivery = Agent().run(order())
    assert (delivery.state, delivery.reason) == ("succeeded", None)
    assert json.loads(delivery.report or "") == {"a": 1}
    assert (delivery.curve, delivery.artifact) == (b"c", b"a")
    assert delivery.log == "threads 1\n"
    assert list(tmp_path.iterdir()) == []


BAD = {
    "sys.exit(1)": ("failed", "status 1"),
    "raise ValueError('the cause')": ("failed", "the cause"),
    "sys.exit(2)": ("failed", "refused its input"),
    "sys.exit(12)": ("oom", "out of memory"),
    "os.kill(os.getpid(), signal.SIGSEGV)": ("failed", "SIGSEGV"),
    "os.kill(os.getpid(), signal.SIGKILL)": ("failed", "SIGKILL"),
    "pass": ("failed", "left no report.json"),
}


@pytest.mark.parametrize("program", BAD)
def test_a_run_that_ends_badly_is_named_by_its_cause(trainer, program, tmp_path):
    trainer(program)
    delivery = Agent().run(order())
    state, reason = BAD[program]
    assert delivery.state == state
    assert reason in (delivery.reason or "")
    assert list(tmp_path.iterdir()) == []


def test_a_kill_by_the_kernel_for_memory_is_told_from_any_other(trainer, monkeypatch, tmp_path):
    counters = tmp_path / "vmstat"
    counters.write_text("pgfault 7\noom_kill 3\n")
    monkeypatch.setattr(agent_module, "OOM_COUNTERS", (tmp_path / "absent", counters))
    trainer("os.kill(os.getpid(), signal.SIGKILL)")
    assert Agent().run(order()).state == "failed"
    trainer(
        f"""
        pathlib.Path({str(counters)!r}).write_text("oom_kill 4")
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    delivery = Agent().run(order())
    assert delivery.state == "oom"
    assert "out of memory" in (delivery.reason or "")


def test_a_run_without_progress_is_killed_at_its_deadline(trainer):
    trainer(
        f"pathlib.Path('{PROGRESS_FILE}').write_text('{{\"phase\": \"train\"}}'); time.sleep(60)"
    )
    begun = time.monotonic()
    delivery = Agent().run(order(no_progress_s=1.0))
    assert delivery.state == "hung"
    assert "phase train" in (delivery.reason or "")
    assert time.monotonic() - begun < 20


def test_a_run_that_keeps_reporting_is_not_killed(trainer):
    trainer(
        f"""
        for i in range(8):
            pathlib.Path("{PROGRESS_FILE}").write_text(json.dumps({{"phase": "train", "step": i}}))
            time.sleep(0.3)
        """
        + WELL.replace("\n", "\n        ")
    )
    assert Agent().run(order(no_progress_s=1.5)).state == "succeeded"


def test_when_one_rank_dies_the_others_are_killed_at_once(trainer):
    trainer("sys.exit(3) if rank == 1 else time.sleep(60)")
    begun = time.monotonic()
    delivery = Agent().run(order(ranks=3))
    assert delivery.state == "failed"
    assert "rank 1 ended with status 3" in (delivery.reason or "")
    assert time.monotonic() - begun < 20
    assert "--- rank 2 ---" in delivery.log


def test_ranks_know_their_place(trainer):
    keys = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR"]
    trainer(f"print([os.environ[key] for key in {keys}]); " + WELL.replace("\n", "; ").strip("; "))
    log = Agent().run(order(ranks=2)).log
    assert "['0', '0', '2', '127.0.0.1']" in log
    assert "['1', '1', '2', '127.0.0.1']" in log


def test_a_stopped_run_is_interrupted_and_leaves_no_process(trainer):
    trainer("time.sleep(60)")
    agent = Agent()
    threading.Timer(1.0, agent.stop).start()
    before = set(psutil.Process().children(recursive=True))
    delivery = agent.run(order(ranks=2))
    assert delivery.state == "interrupted"
    assert set(psutil.Process().children(recursive=True)) <= before


def test_progress_is_what_the_trainer_last_wrote(trainer):
    trainer(f"pathlib.Path('{PROGRESS_FILE}').write_text('{{\"step\": 7}}'); time.sleep(60)")
    agent, seen = Agent(), []

    def look():
        while agent.progress() is None:
            time.sleep(0.05)
        seen.append(agent.progress())
        agent.stop()

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    agent.run(order())
    watcher.join(5)
    assert seen == [{"step": 7}]
    assert agent.progress() is None


def test_a_long_log_is_cut_at_its_start_and_says_so(trainer):
    trainer("print('x' * 10**6); print('the end'); sys.exit(1)")
    delivery = Agent().run(order())
    assert delivery.log.startswith("[the first ")
    assert delivery.log.endswith("the end\n")
    assert len(delivery.log) < 300_000


def test_ranks_die_with_their_agent_however_it_ends(tmp_path):
    marker = tmp_path / "pid"
    program = f"import os, time; open({str(marker)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    code = textwrap.dedent(
        f"""
        import sys
        from sweep import agent
        from sweep.lease import Order
        agent.TRAINER = (sys.executable, "-c", {program!r})
        agent.Agent().run(Order(spec_json="", ranks=1, threads=1, no_progress_s=60))
        """
    )
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen([sys.executable, "-c", code], cwd=root) as process:
        deadline = time.monotonic() + 30
        while not (marker.exists() and marker.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        rank = psutil.Process(int(marker.read_text()))
        os.kill(process.pid, signal.SIGKILL)
    gone, _ = psutil.wait_procs([rank], timeout=5)
    assert gone == [rank]


def test_a_tether_whose_parent_has_gone_starts_nothing(tmp_path):
    path = Path(agent_module.__file__).with_name("tether.py")
    marker = tmp_path / "ran"
    command = [
        sys.executable,
        "-S",
        str(path),
        "1",
        sys.executable,
        "-c",
        f"open({str(marker)!r}, 'w')",
    ]
    done = subprocess.run(command, timeout=30)
    assert done.returncode == 1
    assert not marker.exists()


# -- the data of a node


def supply_of(folder, **changes):
    manifest = read_manifest(folder)
    values = {
        "data_dir": str(folder),
        "dataset": manifest.dataset,
        "vocab_size": manifest.vocab_size,
        "corpus_sha256": manifest.corpus_sha256,
        "tokenizer_sha256": manifest.tokenizer_sha256,
        "train_shards": 1,
        "cache": None,
        "missing": "refuse",
    }
    return Supply(**(values | changes))


@pytest.fixture(scope="module")
def tiny_data(tmp_path_factory):
    return build_tiny_dataset(tmp_path_factory.mktemp("data"))


def test_a_staged_dataset_is_what_the_ranks_read(tiny_data, tmp_path):
    agent = Agent()
    assert agent.prepare([supply_of(tiny_data, cache=str(tmp_path / "cache"))]) is None
    spec = json.dumps({"data_dir": str(tiny_data), "seed": 7})
    given = json.loads(agent._with_data_here(replace(order(), spec_json=spec)))
    assert given["seed"] == 7
    assert Path(given["data_dir"]).parent == tmp_path / "cache"
    assert read_manifest(Path(given["data_dir"])) == read_manifest(tiny_data)


def test_a_node_without_the_data_says_so_in_a_line(tiny_data, tmp_path):
    refused = Agent().prepare([supply_of(tiny_data, data_dir=str(tmp_path / "gone"))])
    assert refused is not None
    assert "there is no such folder" in refused
    assert "\n" not in refused
    other = Agent().prepare([supply_of(tiny_data, corpus_sha256="c" * 64)])
    assert "the sweep asks for corpus cccccccccccc" in other
