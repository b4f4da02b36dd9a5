"""The sweep as a user runs it: real Ray, real trainers, real kills, on the tiny recipe.

Not claimed: anything about several machines; the cluster here is one machine that declares GPUs.
"""

import contextlib
import json
import os
import signal
from ipaddress import ip_address
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from tests.support.cluster import Cluster
from tests.support.commands import (
    alive,
    descendants,
    ranks,
    rows,
    running_sweep,
    sweep,
    wait_until,
    write_sweep,
)
from tests.support.settled import assert_settled, cells_of_file, undisturbed
from tests.support.tiny import build_tiny_dataset
from trainer.contract import read_spec


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    build_tiny_dataset(root)
    return root


@pytest.fixture
def place(tmp_path, data):
    """Where a test's sweep lives: its file, its results, its arguments."""

    class Place:
        file = tmp_path / "trial.toml"
        results = tmp_path / "results"
        folder = results / "trial"
        arguments = ("--sweep", file, "--results", results, "--data", data)

        @property
        def attempts(self):
            return sorted(path.name for path in (self.folder / "attempts").glob("*.parquet"))

        @property
        def starts(self):
            return sorted(path.name for path in (self.folder / "attempts").glob("*.start"))

    return Place()


def test_a_sweep_runs_and_grows_and_an_orphan_is_closed(place):
    write_sweep(place.file, seeds=[1], slopes=[0.0])
    done = sweep("run", *place.arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 cells to run" in done.stdout
    first = rows(place.folder)
    assert [row["state"] for row in first] == ["succeeded", "succeeded"]
    by_activation = {row["activation"]: row for row in first}
    for name in ("pre_quant_bpb", "post_quant_bpb", "post_quant_sliding_bpb", "ttt_bpb"):
        assert by_activation["relu2"][name] == by_activation["leaky_relu2"][name]
    for row in first:
        attempt = f"{row['cell_id']}-1"
        curve = pq.read_table(place.folder / "curves" / f"{attempt}.parquet")
        assert curve.column("step").to_pylist() == [1, 2, 3, 4]
        layers = pq.read_table(place.folder / "layers" / f"{attempt}.parquet")
        assert set(layers.column("kind").to_pylist()) == {"activation", "tensor", "class"}
        artifact = (place.folder / "artifacts" / f"{attempt}.bin").stat().st_size
        assert row["artifact_bytes"] == artifact + row["code_bytes"]
        assert "step:4 train_loss:" in (place.folder / str(row["log"])).read_text()
        assert row["evidence"] == f"attempts/{attempt}.parquet"

    write_sweep(place.file, seeds=[1], slopes=[0.0, 0.5])
    cell_id = by_activation["relu2"]["cell_id"]
    orphan = place.folder / "attempts" / f"{cell_id}-2.start"
    orphan.write_text('{"driver": "one that is gone"}')
    grown = sweep("run", *place.arguments)
    assert grown.returncode == 0, grown.stdout + grown.stderr
    assert "Closed as lost: 1" in grown.stdout
    assert "1 cells to run, 2 settled" in grown.stdout
    status = json.loads(sweep("status", *place.arguments, "--json").stdout)
    assert status["counts"] == {"succeeded": 3}
    relu2 = next(row for row in rows(place.folder) if row["activation"] == "relu2")
    assert (relu2["state"], relu2["attempt"], relu2["num_attempts"]) == ("succeeded", 1, 2)
    attempts = json.loads(sweep("show", "relu2", *place.arguments, "--json").stdout)
    assert [row["state"] for row in attempts] == ["succeeded", "lost"]
    assert "step:4" in sweep("logs", "leaky_relu2-s0.5", *place.arguments).stdout


@pytest.mark.slow
def test_a_killed_sweep_leaves_no_process_and_resumes_to_the_same_answers(place, data, tmp_path):
    write_sweep(place.file, seeds=[1], slopes=[0.0, 0.5, 0.6], budget="12steps")

    def kill_when(moment):
        with running_sweep(*place.arguments) as process:
            wait_until(lambda: moment(process.pid))
            below = descendants(process.pid)
            finished = place.attempts
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            wait_until(lambda: not alive(below))
        return {name: (place.folder / "attempts" / name).read_bytes() for name in finished}

    kill_when(lambda pid: any("raylet" in p.name() for p in descendants(pid)))
    kept = kill_when(lambda pid: len(place.attempts) >= 2 and ranks(pid))
    resumed = sweep("run", *place.arguments)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    cells = cells_of_file(place.file, data)
    assert_settled(place.folder, cells, undisturbed(cells, tmp_path / "undisturbed"))
    for name, content in kept.items():
        assert (place.folder / "attempts" / name).read_bytes() == content


@pytest.mark.slow
def test_a_cell_that_may_not_be_tried_again_fails_alone_and_is_rerun_alone(place):
    write_sweep(place.file, seeds=[1], slopes=[0.5], budget="12steps", infrastructure=0)
    with running_sweep(*place.arguments) as process:
        wait_until(lambda: ranks(process.pid))
        victim = ranks(process.pid)[0]
        spec = read_spec(Path(victim.cwd()) / "spec.json")
        victim.kill()
        output, _ = process.communicate(timeout=240)
    assert process.returncode == 3, output
    states = {row["cell"]: row["state"] for row in rows(place.folder)}
    name = f"{spec.activation.label}__seed{spec.seed}__12steps"
    assert {cell for cell, state in states.items() if state != "succeeded"} == {name}
    assert states[name] == "failed"
    status = sweep("status", *place.arguments)
    assert status.returncode == 3
    assert f"{name}  failed: rank 0 was killed by SIGKILL" in status.stdout
    idle = sweep("run", *place.arguments)
    assert idle.returncode == 3
    assert "nothing to run" in idle.stdout
    assert f"{name}: 1 failures of class infrastructure, allowed are 0 retries" in idle.stdout

    again = sweep("rerun", "--failed", *place.arguments)
    assert again.returncode == 0, again.stdout + again.stderr
    assert len(place.attempts) == 3
    assert {row["state"] for row in rows(place.folder)} == {"succeeded"}


@pytest.mark.slow
def test_ctrl_c_lets_what_runs_end_and_starts_no_other_cell(place):
    write_sweep(place.file, seeds=[1], budget="12steps")
    with running_sweep(*place.arguments) as process:
        wait_until(lambda: ranks(process.pid))
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert {row["state"] for row in rows(place.folder)} == {"succeeded"}
    assert 1 <= len(rows(place.folder)) <= 2
    assert len(place.starts) == len(place.attempts)


@pytest.mark.slow
def test_a_sweep_listens_to_its_machine_alone_and_sigterm_ends_what_cannot_end_in_time(place):
    write_sweep(place.file, budget="4000steps", estimate_cell_s=500.0)
    with running_sweep(*place.arguments) as process:
        wait_until(lambda: len(ranks(process.pid)) == 2)
        below = ranks(process.pid)
        wait_until(lambda: _steps_taken(below))
        assert {ip_address(each).is_loopback for each in _heard(process.pid)} == {True}
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert alive(below) == []
    found = rows(place.folder)
    assert [row["state"] for row in found] == ["interrupted", "interrupted"]
    reason = "stopped before it ended: the scheduler ended the job (SIGTERM)"
    assert {row["reason"] for row in found} == {reason}
    logs = [(place.folder / row["log"]).read_text() for row in found]
    assert all("stopped as asked" in log for log in logs)


def _heard(pid):
    """The addresses that a driver and all below it listen to."""
    heard = set()
    for process in alive(descendants(pid)):
        with contextlib.suppress(psutil.NoSuchProcess):  # one of Ray's that has just ended
            connections = process.net_connections("inet")
            heard |= {c.laddr.ip for c in connections if c.status == "LISTEN"}
    return {address.removeprefix("::ffff:") for address in heard}


def _steps_taken(ranks):
    """Whether every rank has taken a step, as its progress file has it."""
    files = [Path(rank.cwd()) / "progress.json" for rank in ranks]
    return all(file.exists() and json.loads(file.read_text())["step"] for file in files)


@pytest.mark.slow
def test_a_driver_is_stopped_from_another_process_and_told_to_hold_less(place):
    write_sweep(place.file, seeds=range(1, 100), budget="40steps")  # the end is far
    nobody = sweep("stop", *place.arguments)
    assert nobody.returncode == 2
    assert "no driver is running this sweep" in nobody.stderr
    with running_sweep(*place.arguments) as process:
        wait_until(lambda: ranks(process.pid))
        less = sweep("stop", "--leases", 1, *place.arguments)
        assert (less.returncode, less.stderr) == (0, "")
        assert "holds at most 1 lease," in less.stdout
        drain = sweep("stop", *place.arguments)
        assert drain.returncode == 0, drain.stderr
        assert f"process {process.pid} on" in drain.stdout
        assert "Draining: no new cells" in drain.stdout
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert {row["state"] for row in rows(place.folder)} == {"succeeded"}
    assert len(place.starts) == len(place.attempts) < 300
    assert list((place.folder / "requests").iterdir()) == []


@pytest.mark.slow
def test_a_node_with_eight_gpus_is_seen_and_what_is_missing_is_said(tmp_path, data):
    with Cluster(names=("node-a",), cpus=64, gpus=8) as cluster:
        done = sweep("run", "--results", tmp_path, "--data", data, **cluster.variables)
    assert done.returncode == 2
    assert "Sweep slopes" in done.stdout
    assert "has a node with 8 GPUs" in done.stdout
    assert "needs the dataset 'fineweb10B_sp1024'" in done.stderr
    assert "make data RECIPE=pr549" in done.stderr
    assert "adopt" in done.stderr
    assert list(tmp_path.rglob("*.parquet")) == []


def test_a_cluster_that_is_not_there_is_named(place):
    write_sweep(place.file)
    done = sweep("run", *place.arguments, RAY_ADDRESS="127.0.0.1:1")
    assert done.returncode == 2
    assert "no Ray cluster answers there" in done.stderr
    assert "Traceback" not in done.stderr
    assert place.starts == []
