"""TensorBoard's files hold what the record holds, and never stand in the sweep's way."""

import builtins
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sweep.driver.listeners import tensorboard as module
from sweep.driver.listeners.tensorboard import Curves
from tests.support.reports import curve_of
from trainer.config.config_errors import ConfigError

pytest.importorskip("tensorboardX")
FULL = Path("/dev/full")
STARTED = datetime(2026, 1, 1, tzinfo=UTC)
ROW = {"started_at": STARTED, "ended_at": STARTED + timedelta(seconds=60), "steps": 3}


def events(folder):
    """Every (tag, step, value, wall time) below ``folder``: length, its CRC, record, its CRC."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.rglob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + length])
            found += [
                (v.tag, event.step, v.simple_value, event.wall_time) for v in event.summary.value
            ]
            data = data[16 + length :]
    return found


@pytest.fixture
def warnings():
    return []


@pytest.fixture
def curves(tmp_path, warnings):
    return Curves(tmp_path / "tensorboard", warnings.append)


def test_an_attempts_whole_curve_and_its_scores_are_its_own_run(curves, tmp_path):
    points = [
        {"step": i, "train_s": i / 2, "train_loss": 4.0 / i, "lr_mult": 1.0, "val_bpb": b}
        for i, b in ((1, None), (2, None), (3, 1.5))
    ]
    row = {**ROW, "pre_quant_bpb": 1.5, "post_quant_bpb": 1.625, "ttt_bpb": None}
    curves.add("relu2__seed1", 2, row, curve_of(*points))
    found = events(tmp_path / "tensorboard" / "relu2__seed1" / "attempt2")
    losses = [(step, value) for tag, step, value, _ in found if tag == "train/loss"]
    assert losses == [(1, 4.0), (2, 2.0), (3, pytest.approx(4 / 3, rel=2**-24))]  # float32
    assert [(s, v) for tag, s, v, _ in found if tag == "val/bpb"] == [(3, 1.5)]
    assert {(tag, s, v) for tag, s, v, _ in found if tag.startswith("score/")} == {
        ("score/pre_quant_bpb", 3, 1.5),
        ("score/post_quant_bpb", 3, 1.625),
    }
    at = {step: wall for tag, step, _, wall in found if tag == "train/loss"}
    assert at[3] - at[1] == 1.0  # the clock of the training, not of the writing


def test_live_points_carry_what_the_trainer_says_and_no_more(curves, tmp_path):
    curves.progress("cell", 1, None)
    curves.progress("cell", 1, {"phase": "warmup", "step": None, "step_ms": None})
    curves.progress("cell", 1, {"phase": "train", "step": 7, "step_ms": 50.0, "train_loss": None})
    for step in (8, 8, 7):  # a step is shown once
        now = {"phase": "train", "step": step, "step_ms": 25.0, "train_loss": 2.0}
        curves.progress("cell", 1, now)
    curves.add("cell", 1, {**ROW, "steps": None}, None)
    assert [(tag, step, value) for tag, step, value, _ in events(tmp_path)] == [
        ("live/step_ms", 7, 50.0),
        ("live/train_loss", 8, 2.0),
        ("live/step_ms", 8, 25.0),
    ]


def test_a_folder_that_cannot_be_written_is_said_once_and_stops_nothing(tmp_path, warnings):
    (tmp_path / "taken").write_text("a file where a folder should be")
    curves = Curves(tmp_path / "taken", warnings.append)
    for step in range(3):
        curves.progress("cell", 1, {"step": step, "step_ms": 1.0})
    curves.add("cell", 1, ROW, b"a torn curve")
    curves.close()
    assert len(warnings) == 1
    assert "the sweep goes on without them" in warnings[0]


@pytest.mark.skipif(not FULL.exists(), reason="needs a device that is always full")
def test_a_full_disk_is_said_once_and_stops_nothing(curves, warnings, monkeypatch):
    import tensorboardX.record_writer as writer

    monkeypatch.setattr(writer, "open_file", lambda path: FULL.open("wb", buffering=0))
    monkeypatch.setattr(module, "FLUSH_EVERY_S", 0.0)
    for step in range(3):
        curves.progress("cell", 1, {"step": step, "step_ms": 1.0})
    curves.add("cell", 1, ROW, None)
    curves.close()
    assert len(warnings) == 1
    assert "No space left" in warnings[0]


def test_where_the_package_is_missing_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **named):
        if name.startswith("tensorboardX"):
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install --editable '\.\[tensorboard\]'"):
        Curves(tmp_path, pytest.fail)
