"""A check of a GPU that fails, hangs or is cut off costs no other check, and nothing that was told.

Small programs stand in for the checks; the slow test at the end rehearses the real ones on a CPU.
"""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from benchmarks import measured
from benchmarks.gpu_check import CHECKS, LOG, RESULTS, TABLE, Record, run
from benchmarks.measured import ROOT
from tests.support.commands import wait_until

TELL = "import os, sys, time, json; pipe = open(int(sys.argv[1]), 'w', buffering=1)\n"
PROGRAMS = {
    "passes": "print(json.dumps({'a': 1}), file=pipe); print(json.dumps({'says': 'b'}), file=pipe)",
    "fails": "print(json.dumps({'a': 1}), file=pipe); sys.exit('no such kernel')",
    "dies": "os.kill(os.getpid(), 9)",
    "hangs": "print(json.dumps({'pid': os.getpid()}), file=pipe); time.sleep(600)",
    "passes too": "print('heard', flush=True)",
}

LACKING = ("matplotlib", "pandas", "pynvml", "ray", "rich", "scipy", "statsmodels", "tomli_w")
LACKS = f"""
from importlib.machinery import PathFinder

finds = PathFinder.find_spec

def find_spec(name, path=None, target=None):
    lacks = name.partition(".")[0] in {(*LACKING, "huggingface_hub")}
    return None if lacks else finds(name, path, target)

PathFinder.find_spec = find_spec
"""
# One process imports what all checks need, learns a tokenizer of little text, and asks one fresh
# process for a gradient instead of three: nothing is compiled here.
REHEARSAL = """
import functools, json, sys
from benchmarks import gpu_checks, warm_compile
from tests.support.tiny import word_corpus

asked = warm_compile.asked
answer = functools.cache(lambda recipe, device, *kept: asked(recipe, device, 0.5, *kept))
warm_compile.asked = lambda recipe, device, slope, *kept: answer(recipe, device, *kept)
gpu_checks.stdlib_corpus = word_corpus
found = {}
for name, check in gpu_checks.CHECKS.items():
    found[name] = {key: value for told in check(gpu_checks.TINY) for key, value in told.items()}
with open(sys.argv[1], "w") as file:
    json.dump(found, file)
"""


def command_of(name):
    return [sys.executable, "-S", "-c", TELL + PROGRAMS[name]]


def known(folder):
    return json.loads((folder / RESULTS).read_text(encoding="utf-8"))["checks"]


def runs(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def checked(tmp_path):
    """Every program in turn, the one that hangs for half a second."""
    limits = {name: 0.5 if name == "hangs" else 60.0 for name in PROGRAMS}
    assert not run(limits, Record(tmp_path, {"torch": "2"}), command_of, 600.0)
    return tmp_path


def test_a_check_that_fails_dies_or_hangs_keeps_what_it_told_and_the_next_begins(checked):
    found = known(checked)
    assert {name: check["state"] for name, check in found.items()} == {
        "passes": "passed",
        "fails": "failed",
        "dies": "failed",
        "hangs": "over its limit",
        "passes too": "passed",
    }
    assert found["passes"]["found"] == {"a": 1, "says": "b"}
    assert (found["fails"]["found"], found["fails"]["error"]) == ({"a": 1}, "no such kernel")
    assert not runs(found["hangs"]["found"]["pid"])
    assert [line.split()[0] for line in (checked / TABLE).read_text().splitlines()] == [
        name.split()[0] for name in PROGRAMS
    ]
    assert (checked / LOG).read_text().endswith("--- passes too ---\nheard\n")


def test_what_is_kept_with_a_result_does_not_ask_for_a_package_that_is_not_there(monkeypatch):
    """Ray was asked for its version after everything had been measured."""
    monkeypatch.setattr(measured, "PACKAGES", ("psutil", "no-such-package"))
    about = measured.here()
    assert about["psutil"] is not None
    assert about["no-such-package"] is None


def test_what_no_time_is_left_for_is_not_begun(tmp_path):
    limits = dict.fromkeys(("hangs", "passes"), 60.0)
    assert not run(limits, Record(tmp_path, {}), command_of, 0.3)
    states = [check["state"] for check in known(tmp_path).values()]
    assert states == ["over its limit", "not begun"]


def test_killed_at_any_moment_it_leaves_what_was_told_and_no_process(tmp_path):
    code = (
        "from pathlib import Path; from benchmarks.gpu_check import Record, run; "
        "from tests.benchmarks.test_gpu_check import command_of; "
        f"run(dict.fromkeys(('passes', 'hangs'), 60.0), Record(Path({str(tmp_path)!r}), {{}}), "
        "command_of, 600.0)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    try:
        while not (tmp_path / RESULTS).exists() or "pid" not in str(known(tmp_path)):
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    found = known(tmp_path)
    assert [check["state"] for check in found.values()] == ["passed", "running"]
    assert found["passes"]["found"] == {"a": 1, "says": "b"}
    wait_until(lambda: not runs(found["hangs"]["found"]["pid"]))


@pytest.fixture
def lacking(tmp_path):
    """Runs Python with no package but those that the checks need."""
    (tmp_path / "sitecustomize.py").write_text(LACKS)
    compiled = {"TORCH_COMPILE_DISABLE": "1", "TORCHINDUCTOR_CACHE_DIR": f"{tmp_path}/c/inductor"}

    def python(*arguments):
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=os.environ | compiled | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    return python


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_check_finds_something_at_tiny_size(lacking, tmp_path):
    lacking("-c", REHEARSAL, str(tmp_path / "found.json"))
    found = json.loads((tmp_path / "found.json").read_text())
    assert list(found) == list(CHECKS)
    assert all("says" in told for told in found.values())
    assert set(found["steps"]["seconds"]) > {"fused asqu", "compiled leaky_relu2-s0.5"}
    assert found["losses"]["apart"] < 1e-5
    assert found["cell"]["leaky_relu2-s0.0"]["report"]["state"] == "succeeded"


@pytest.mark.slow
def test_the_command_keeps_what_a_check_finds_and_nothing_else(lacking, tmp_path):
    command = ["-m", "benchmarks.gpu_check", "--tiny", "--checks", "kernel"]
    lacking(*command, "--out", str(tmp_path / "out"))
    assert known(tmp_path / "out")["kernel"]["found"]["mlp_backend"] == "torch"
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted([LOG, RESULTS, TABLE])
