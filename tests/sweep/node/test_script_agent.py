"""A script runs under the same agent as the trainer: same ends, same watch, nothing left behind.

The scripts are small programs without torch; their ranks are real processes.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from sweep.node.agent import Agent
from sweep.node.scratch import scratch_root
from tests.support.commands import ROOT, wait_until
from tests.support.script_spec import script_spec
from tests.support.standin import order, scratch_under
from trainer.contract import parse_script_report

GOOD = """
import os, sys, time
rank = int(os.environ.get("RANK", "0"))
if rank == 0:
    print(f"seed:{os.environ['SEED']}", flush=True)
    for step in (1, 4):
        print(f"step:{step}/4 train_loss:3.0000 train_time:{step}ms step_avg:1.00ms", flush=True)
    slope = float(os.environ.get("SLOPE", "0"))
    print(f"final_int6_roundtrip_exact val_loss:2.00000000 val_bpb:{1 + slope:.8f}")
"""


@pytest.fixture(autouse=True)
def _scratch(monkeypatch, tmp_path):
    scratch_under(monkeypatch, tmp_path)


def delivered(source, *, ranks=1, agent=None, no_progress_s=60.0, **spec):
    asked = script_spec(source, ranks=ranks, **spec)
    return (agent or Agent()).run(
        order(
            program="script",
            spec_json=asked.model_dump_json(),
            ranks=ranks,
            no_progress_s=no_progress_s,
        )
    )


def test_a_script_that_ends_well_is_brought_back_with_its_files_and_its_whole_log():
    long = "print('x' * 400_000)\n"  # more than is kept of a rank's log
    patch = {"find": "1 + slope", "replace": "1 + {slope}", "count": 1}
    delivery = delivered(long + GOOD.strip(), slope=0.3, patch=[patch])
    assert (delivery.state, delivery.reason) == ("succeeded", None)
    report = parse_script_report(delivery.report or "")
    assert (report.post_quant_bpb, report.steps) == (1.3, 4)
    assert delivery.log.startswith("x" * 400_000)
    assert b"1 + 0.3" in delivery.kept["train.py"]
    assert b"+" in delivery.kept["script.diff"]
    assert delivery.curve
    assert list(scratch_root().iterdir()) == []


def test_the_ranks_find_what_torchrun_would_have_told_them():
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    source = f"""
    import os, json
    print("rank", json.dumps({{n: os.environ[n] for n in {names}}}), flush=True)
    """
    log = delivered(source, ranks=2).log
    told = [json.loads(line[5:]) for line in log.split("\n") if line.startswith("rank {")]
    assert [(each["RANK"], each["LOCAL_RANK"], each["WORLD_SIZE"]) for each in told] == [
        ("0", "0", "2"),
        ("1", "1", "2"),
    ]
    assert told[0]["MASTER_PORT"] == told[1]["MASTER_PORT"]


def test_a_variable_of_the_users_shell_does_not_reach_the_script(monkeypatch):
    monkeypatch.setenv("SLOPE_OVERRIDE", "0.9")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    monkeypatch.setenv("RANK", "7")
    source = """
    import os
    print("override", os.environ.get("SLOPE_OVERRIDE", "none"), os.environ["CUDA_DEVICE_ORDER"])
    print("rank", os.environ.get("RANK", "none"))
    """
    log = delivered(source, launch="python").log
    assert "override none PCI_BUS_ID" in log
    assert "rank none" in log


BAD = {
    "raise ValueError('the cause')": ("failed", "cell", "ValueError: the cause"),
    "import sys; sys.exit(3)": ("failed", "cell", "status 3"),
    "import os; os.kill(os.getpid(), 9)": ("failed", "infrastructure", "SIGKILL"),
    "class OutOfMemoryError(Exception): pass\nraise OutOfMemoryError('CUDA out of memory')": (
        *("oom", "memory"),
        "ran out of memory",
    ),
    "print('hello')": ("failed", "cell", "did not print post_quant"),
}


def test_a_script_that_ends_badly_is_named_by_its_cause():
    for source, (state, failure, reason) in BAD.items():
        delivery = delivered(source)
        assert (delivery.state, delivery.failure) == (state, failure), source
        assert reason in (delivery.reason or ""), source
        assert delivery.report is None


def test_the_rank_that_failed_first_is_named_and_the_others_are_ended():
    source = """
    import os, time
    if os.environ["RANK"] == "1":
        raise ValueError("of rank one")
    time.sleep(600)
    """
    started_s = time.monotonic()
    delivery = delivered(source, ranks=2)
    assert "rank 1 ended with status 1: ValueError: of rank one" in (delivery.reason or "")
    assert time.monotonic() - started_s < 60


def test_a_script_that_falls_silent_in_training_is_killed_and_says_where_it_was():
    source = """
    import time
    def training_for_ever():
        print("step:1/4 train_loss:3.0000 train_time:1ms step_avg:1.00ms", flush=True)
        time.sleep(600)
    training_for_ever()
    """
    delivery = delivered(source, no_progress_s=1.0)
    assert (delivery.state, delivery.failure) == ("hung", "hang")
    assert "in phase train" in (delivery.reason or "")
    assert "in training_for_ever" in delivery.log


def test_silence_that_the_recipe_declares_is_no_hang():
    read = {"post_quant": {"label": "final_int6_roundtrip_exact"}}
    for declared, pause_s, state in [("^compiling", 1.5, "succeeded"), ("^other", 600.0, "hung")]:
        source = f"import time\nprint('compiling now', flush=True)\ntime.sleep({pause_s})\n{GOOD}"
        quiet = {"quiet_after": [declared, "^final"]}
        assert delivered(source, no_progress_s=1.0, progress=quiet, read=read).state == state


def test_a_script_that_is_stopped_is_interrupted():
    agent = Agent()
    found = {}
    source = "import time; print('here', flush=True); time.sleep(600)"
    thread = threading.Thread(target=lambda: found.update(d=delivered(source, agent=agent)))
    thread.start()
    wait_until(lambda: (agent.progress() or {}).get("phase") is not None)
    agent.stop()
    thread.join()
    assert found["d"].state == "interrupted"


def test_no_rank_outlives_an_agent_that_is_killed(tmp_path):
    body = f"""
import tempfile
tempfile.tempdir = {str(tmp_path)!r}
from tests.sweep.node.test_script_agent import delivered
delivered("import time; print('up', flush=True); time.sleep(600)", ranks=2)
"""
    agent = subprocess.Popen([sys.executable, "-c", body], cwd=ROOT)
    below = psutil.Process(agent.pid)
    wait_until(lambda: len(_scripts(below)) == 2)
    ranks = _scripts(below)
    os.kill(agent.pid, signal.SIGKILL)
    agent.wait()
    gone, alive = psutil.wait_procs(ranks, timeout=30)
    assert (len(gone), alive) == (2, [])


def _scripts(parent):
    return [
        p
        for p in parent.children(recursive=True)
        if p.cmdline()[-1:] == ["train.py"] and "-S" not in p.cmdline()
    ]
