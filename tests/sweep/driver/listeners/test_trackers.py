"""A tracker gets every attempt as a run of its own; whatever it does, the sweep goes on.

Not claimed: that every attempt arrives where the tracker is slower than the sweep, nor anything of
their servers.
"""

import json
import stat
import struct
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import pytest

from sweep.cli import verbs
from sweep.driver.display import EndedView
from sweep.driver.listeners import tracker as module
from sweep.driver.listeners.attempt_metrics import TrackedAttempt, tracked
from sweep.driver.listeners.tracker import Tracker
from sweep.environment import tracker_environment
from tests.support.commands import wait_until
from tests.support.grids import cells_of, sweep_spec
from tests.support.reports import curve_of, delivered, failed
from tests.support.trial import invocation, said
from tests.sweep.driver.test_display import view
from trainer.config.config_errors import ConfigError
from trainer.contract import RunSpec

STARTED = datetime(2026, 1, 1, tzinfo=UTC)
POINTS = [
    {"step": 1, "train_s": 0.5, "train_loss": 4.0, "lr_mult": 1.0, "val_bpb": None},
    {"step": 3, "train_s": 1.5, "train_loss": 2.0, "lr_mult": 0.5, "val_bpb": 1.75},
]
ROW = {
    "cell": "leaky_relu2-s0.5__seed1",
    "cell_id": "0123456789abcdef",
    "attempt": 2,
    "activation": "leaky_relu2",
    "slope": 0.5,
    "params_json": '{"slope":0.5}',
    "set_json": "{}",
    "seed": 1,
    "budget_kind": "steps",
    "budget_value": 3.0,
    "recipe": "tiny",
    "node": "n1",
    "started_at": STARTED,
    "ended_at": STARTED + timedelta(seconds=60),
    "steps": 3,
    "pre_quant_bpb": 1.5,
    "ttt_bpb": None,
    "model_bytes": 8,
    "artifact_bytes": 108,
}
ENDING = EndedView(
    cell=ROW["cell"],
    state="succeeded",
    reason=None,
    wall_s=60.0,
    row=ROW,
    done=1,
    total=2,
    curve=curve_of(*POINTS),
)


@pytest.fixture
def warnings():
    return []


@pytest.fixture
def opened(tmp_path, warnings, monkeypatch):
    """Opens a tracker whose process is a script of the shell; without one it does not exist."""

    def open_(script=None):
        monkeypatch.setitem(module.NEEDS, "nothing", ())
        if script is not None:
            program = tmp_path / "program"
            program.write_text(f"#!/bin/sh\n{script}\n")
            program.chmod(program.stat().st_mode | stat.S_IXUSR)
            monkeypatch.setattr(sys, "executable", str(program))
        tracker = Tracker("nothing", sweep_spec(), tmp_path / "kept", warnings.append)
        tracker.show(view())
        return tracker

    return open_


def test_an_attempt_is_its_cells_values_its_curve_and_its_scores():
    told = tracked(ENDING, sweep_spec())
    assert (told.sweep, told.name) == ("test", "leaky_relu2-s0.5__seed1, attempt 2")
    assert told.config == {
        **{name: ROW[name] for name in ("cell", "cell_id", "attempt", "activation", "slope")},
        **{name: ROW[name] for name in ("seed", "budget_kind", "budget_value", "recipe", "node")},
        "params": {"slope": 0.5},
        "set": {},
    }
    assert [(point["step"], point["train_s"]) for point in told.points] == [(1, 0.5), (3, 1.5)]
    assert [point["values"] for point in told.points] == [
        {"train/loss": 4.0, "train/lr_mult": 1.0},
        {"train/loss": 2.0, "train/lr_mult": 0.5, "val/bpb": 1.75},
    ]
    assert told.metrics == {"score/pre_quant_bpb": 1.5, "artifact/bytes": 108}
    assert told.facts == {"state": "succeeded", "artifact": "artifacts/0123456789abcdef-2.bin"}
    assert told.has_answer
    assert told.ended_at_s - told.started_at_s == 60.0
    assert TrackedAttempt(**json.loads(json.dumps(asdict(told)))) == told


def test_an_attempt_without_an_answer_has_its_reason_and_no_number():
    row = {**ROW, "steps": None, "model_bytes": None, "reason": "rank 0 ended"}
    row |= {"pre_quant_bpb": None, "artifact_bytes": None}
    told = tracked(replace(ENDING, state="failed", row=row, curve=None), sweep_spec())
    assert (told.points, told.metrics, told.has_answer) == ([], {}, False)
    assert told.facts == {"state": "failed", "reason": "rank 0 ended"}


def test_an_artifact_that_is_not_kept_has_no_name():
    assert "artifact" not in tracked(ENDING, sweep_spec(keep_artifacts=False)).facts


def test_what_a_tracker_is_told_is_one_line_an_attempt(opened, tmp_path, warnings):
    tracker = opened(f"cat > {tmp_path / 'told'}")
    tracker.show(view())
    tracker.ended(ENDING)
    tracker.ended(replace(ENDING, state="diverged"))
    tracker.close()
    told = [json.loads(line) for line in (tmp_path / "told").read_text().splitlines()]
    assert [each["facts"]["state"] for each in told] == ["succeeded", "diverged"]
    assert warnings == []


def test_a_sweep_that_runs_nothing_starts_no_tracker(tmp_path, monkeypatch):
    monkeypatch.setitem(module.NEEDS, "nothing", ())
    Tracker("nothing", sweep_spec(), tmp_path / "kept", pytest.fail).close()
    assert not (tmp_path / "kept").exists()


def test_a_tracker_that_fails_is_said_once_with_the_place_of_its_words(opened, tmp_path, warnings):
    tracker = opened("cat > /dev/null; echo no room >&2; exit 7")
    tracker.ended(ENDING)
    tracker.close()
    (warning,) = warnings
    assert "nothing ended with status 7; the sweep goes on" in warning
    assert (tmp_path / "kept" / "log.txt").read_text() == "no room\n"
    assert str(tmp_path / "kept" / "log.txt") in warning


def test_a_tracker_that_has_ended_is_told_no_more(opened, warnings):
    tracker = opened("exit 3")
    wait_until(lambda: tracker._process)
    tracker._process.wait(240.0)
    for _ in range(3):
        tracker.ended(ENDING)
    tracker.close()
    (warning,) = warnings
    assert "nothing ended with status 3" in warning


def test_a_tracker_that_hangs_holds_nothing_up(opened, warnings, monkeypatch):
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    monkeypatch.setattr(module, "CLOSE_S", 0.1)
    tracker = opened("sleep 600 & wait")
    wait_until(lambda: tracker._process)
    long = replace(ENDING, curve=curve_of(*POINTS * 5000))  # more than a pipe takes
    for _ in range(6):
        tracker.ended(long)
    tracker.close()
    (warning,) = warnings
    assert "is behind by 3 attempts" in warning
    tracker._thread.join(30.0)
    assert not tracker._thread.is_alive()
    assert tracker._process.wait(30.0) != 0


def test_a_folder_that_cannot_be_made_is_said_once_and_stops_nothing(opened, tmp_path, warnings):
    (tmp_path / "kept").write_text("a file where a folder should be")
    tracker = opened()
    tracker.ended(ENDING)
    tracker.close()
    (warning,) = warnings
    assert "nothing could not be told" in warning


@pytest.mark.parametrize("kind", ["wandb", "mlflow"])
def test_a_missing_package_is_said_before_any_cell_is_begun(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    run = trial(tmp_path, kind)
    with pytest.raises(ConfigError, match=rf"pip install --editable '\.\[{kind}\]'"):
        verbs.run(run)
    assert run.store.numbers() == {}


def test_a_folder_of_the_packages_name_is_not_the_package(tmp_path, monkeypatch):
    (tmp_path / "a_folder_of_runs").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not module._is_installed("a_folder_of_runs")
    assert module._is_installed("json")


def test_the_question_stays_the_same_and_nothing_leaves_this_machine_unless_asked(tmp_path):
    watched = sweep_spec(wandb=True, mlflow=True)
    assert [cell.id for cell in cells_of(watched)] == [cell.id for cell in cells_of(sweep_spec())]
    kept = tracker_environment(tmp_path, {})
    assert kept["WANDB_MODE"] == "offline"
    assert kept["MLFLOW_TRACKING_URI"] == f"sqlite:///{tmp_path}/mlflow.db"
    theirs = {"WANDB_MODE": "online", "MLFLOW_TRACKING_URI": "http://tracker:5000"}
    assert tracker_environment(tmp_path, theirs).items() >= theirs.items()


def work(order, stop):
    """One activation never gives an answer."""
    if RunSpec.model_validate_json(order.spec_json).activation.label == "relu2":
        return failed("failed", "rank 0 ended")
    return replace(delivered(order), curve=curve_of(*POINTS))


def trial(folder, kind):
    run = invocation(folder, work, seeds=[3])
    file = folder / "trial.toml"
    file.write_text(f"{kind} = true\n{file.read_text()}")
    return run


@pytest.mark.slow
def test_wandb_keeps_a_run_of_every_attempt_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="Weights & Biases is of `pip install .[wandb]`")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setattr(module, "CLOSE_S", 240.0)
    for name in ("WANDB_MODE", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    run = trial(tmp_path, "wandb")
    verbs.run(run)
    assert "warning" not in said(run)
    rows = {f"{row['cell']}, attempt {row['attempt']}": row for row in run.store.read().rows}
    files = list((tmp_path / "results" / "trial" / "wandb").rglob("offline-run-*/run-*.wandb"))
    shown = {}
    for file in files:
        records = [Record.FromString(data) for data in log_records(file.read_bytes())]
        (start,) = [record.run for record in records if record.HasField("run")]
        assert (start.run_group, start.project) == ("trial", "activation-sweep")
        config = {each.key: json.loads(each.value_json) for each in start.config.update}
        row = rows[start.display_name]
        assert (config["seed"], config["activation"]) == (3, row["activation"])
        assert config["params"] == json.loads(row["params_json"])
        items = [
            {".".join(each.nested_key) or each.key: json.loads(each.value_json) for each in h.item}
            for h in (record.history for record in records if record.HasField("history"))
        ]
        losses = [(item["_step"], item["train/loss"]) for item in items]
        assert losses == ([(1, 4.0), (3, 2.0)] if row["state"] == "succeeded" else [])
        summary = {
            ".".join(each.nested_key) or each.key: json.loads(each.value_json)
            for record in records
            for each in record.summary.update
        }
        assert summary["state"] == row["state"]
        assert summary.get("score/ttt_bpb") == row["ttt_bpb"]
        assert summary.get("artifact/bytes") == row["artifact_bytes"]
        (end,) = [record.exit.exit_code for record in records if record.HasField("exit")]
        shown[start.display_name] = end
    assert shown == {name: int(row["state"] == "failed") for name, row in rows.items()}


def log_records(data):
    """What a file in the format of LevelDB's logs holds: blocks of 32 KiB, records in parts."""
    at, parts = 7, b""  # W&B's own header; a part's: CRC, length, kind (1 whole, 4 the last part)
    while at + 7 <= len(data):
        if 2**15 - at % 2**15 < 7:
            at += 2**15 - at % 2**15
            continue
        length, kind = struct.unpack("<4xHB", data[at : at + 7])
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield parts
            parts = b""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's use of SQLAlchemy
def test_mlflow_keeps_a_run_of_every_attempt_beside_the_results(tmp_path, monkeypatch):
    for name in module.NEEDS["mlflow"]:
        pytest.importorskip(name, reason="MLflow is of `pip install .[mlflow]`")
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(module, "CLOSE_S", 240.0)  # it makes its tables first
    run = trial(tmp_path, "mlflow")
    verbs.run(run)
    assert "warning" not in said(run)
    client = MlflowClient(f"sqlite:///{tmp_path}/results/trial/mlflow/mlflow.db")
    rows = {f"{row['cell']}, attempt {row['attempt']}": row for row in run.store.read().rows}
    shown = client.search_runs([client.get_experiment_by_name("trial").experiment_id])
    assert {each.info.run_name for each in shown} == set(rows)
    for each in shown:
        row, (info, data) = rows[each.info.run_name], (each.info, each.data)
        has_answer = row["state"] == "succeeded"
        assert info.status == ("FINISHED" if has_answer else "FAILED")
        started_ms = round(row["started_at"].timestamp() * 1000)
        assert info.start_time == started_ms
        assert (data.params["seed"], data.params["activation"]) == ("3", row["activation"])
        assert json.loads(data.params["params"]) == json.loads(row["params_json"])
        assert data.tags["state"] == row["state"]
        assert data.metrics.get("score/ttt_bpb") == row["ttt_bpb"]
        assert data.metrics.get("artifact/bytes") == row["artifact_bytes"]
        if has_answer:
            curve = client.get_metric_history(info.run_id, "train/loss")
            points = [(point.step, point.value, point.timestamp) for point in curve]
            assert points == [(1, 4.0, started_ms + 500), (3, 2.0, started_ms + 1500)]
