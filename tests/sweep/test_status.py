"""Where a sweep stands is told from its results: what runs, what failed, what is to come."""

import io
import json
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from sweep import open_sweep
from sweep.cli.status_text import as_json, cell_lines, summary_lines
from sweep.cli.watch import keep_on_screen, picture
from sweep.status import read_status
from sweep.store.files import StoreError
from sweep.store.store import Store
from tests.support.drivers import row_of
from trainer.config.config_errors import ConfigError

HOUR = timedelta(hours=1)
NAMES = ["asqu__seed1", "relu2__seed1", "asqu__seed2", "relu2__seed2", "asqu__seed3"]
IDS = [f"{number:016x}" for number in range(len(NAMES))]
BUDGET = {"budget_kind": "steps", "budget_value": 200.0}


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "trial")
    cells = [
        {"cell": name, "cell_id": cell_id, "values": {"cell": name, **BUDGET}}
        for name, cell_id in zip(NAMES, IDS, strict=True)
    ]
    made.write_sweep({"name": "trial", "cells": cells})
    return made


def end(store, index, state="succeeded", hours=1.0, **changes):
    attempt = store.announce(IDS[index], store.numbers().get(IDS[index], 0) + 1, {})
    began = datetime(2026, 11, 29, tzinfo=UTC) + changes.pop("after", 0) * HOUR
    row = row_of(attempt, state, started_at=began, ended_at=began + hours * HOUR, **BUDGET)
    store.commit(attempt, row | {"cell": NAMES[index], "node": "n1"} | changes)


def progress(**changes):
    running = {
        "cell_id": IDS[2],
        "attempt": 1,
        "node": "n3",
        "lease": "lease 0",
        "elapsed_s": 72.0,
        "phase": "train",
        "step": 120,
        "total_steps": 200,
        "expected_end": (datetime.now(UTC) + timedelta(seconds=600)).isoformat(),
        "train_loss": float("nan"),
        "of a newer version": {"x": 1},
    }
    said = {
        "at": datetime.now(UTC).isoformat(),
        "drain": False,
        "node_hours": 0.5,
        "ends_at": (datetime.now(UTC) + timedelta(hours=48.5)).isoformat(),
        "running": [running],
        "waiting": 2,
        "quarantined": {},
        "paused": None,
    }
    return json.dumps(said | changes).encode()


def lines(status, most=40):
    return [*cell_lines(status, most), *summary_lines(status)]


def test_what_runs_is_told_with_its_phase_its_step_and_the_time_left(store):
    end(store, 0)
    with Store(store.place).as_driver() as driver:
        store.announce(IDS[2], 1, {"driver": driver, "node": "n3"})
        store.announce(IDS[3], 1, {"driver": driver, "node": "n4"})
        store.files.replace(f"progress/{driver}.json", progress())
        text = lines(read_status(store))
    assert text[0].startswith("  asqu__seed2  running on n3: train, step 120 of 200, for 72 s, ")
    assert text[0].endswith(" min left")
    assert text[1] == "  relu2__seed2  running on n4"  # its driver has not spoken of it yet
    assert text[-1] == "sweep trial: 5 cells: 2 running, 1 succeeded, 2 waiting."
    assert any(line.startswith("Driver: process ") and line.endswith("UTC.") for line in text)
    assert any(
        "1 node-hours spent, about" in line and "; about 48.5 h left, until" in line
        for line in text
    )


def test_node_hours_are_those_in_which_a_node_had_a_cell_and_open_cells_cost_as_much_again(store):
    """Two cells at once on one node for an hour, and a third alone for an hour."""
    for index, after in ((0, 0), (1, 0), (2, 1)):
        end(store, index, after=after)
    end(store, 3, "lost", hours=100, failure="driver")  # nobody knows when it ended
    status = read_status(store)
    assert status.node_hours == pytest.approx(2)
    assert status.node_hours_left == pytest.approx(2 * 2 / 3)  # two cells, 1.5 at once


def test_before_the_first_success_no_cost_is_foretold(store):
    end(store, 0, "failed", failure="cell")
    status = read_status(store)
    assert status.node_hours_left is None
    assert "known once a cell has succeeded" in "\n".join(lines(status))


def test_failures_are_counted_by_class_and_shown_for_nodes_that_are_left_alone(store):
    end(store, 0, "oom", failure="memory", reason="too large", node="n4")
    end(store, 0, "oom", failure="memory", reason="too large", node="n4")
    end(store, 1, "hung", failure="hang", reason="silent", node="n1")
    with Store(store.place).as_driver() as driver:
        store.files.replace(
            f"progress/{driver}.json",
            progress(
                quarantined={"n4": "2 ends without an answer"},
                drain=True,
                paused="all alike",
                sharing="waits for its turn",
            ),
        )
        text = lines(read_status(store))
    assert "  asqu__seed1  oom (attempt 2): too large" in text
    assert "Attempts without an answer: 1 hung, 2 out of memory." in text
    assert "Node n4 gets no more cells (2 out of memory): 2 ends without an answer" in text
    assert any("starts no new cell" in line and "paused: all alike" in line for line in text)
    assert any("beside other sweeps it waits for its turn" in line for line in text)


@pytest.mark.parametrize("data", [b"{", b"[]", b"\xff", b"[" * 100_000, progress(running="none")])
def test_a_progress_file_that_is_not_understood_is_named_and_passed_over(store, data):
    with Store(store.place).as_driver() as driver:
        store.files.replace(f"progress/{driver}.json", data)
        text = lines(read_status(store))
    assert (
        sum(f"progress/{driver}.json: no driver writes such a file" in line for line in text) == 1
    )


def test_what_a_dead_driver_said_is_not_believed(store):
    store.files.replace("progress/gone.json", progress())
    store.announce(IDS[2], 1, {"driver": "gone"})
    text = lines(read_status(store))
    assert "  asqu__seed2  lost: its driver is gone; `make sweep` runs it again" in text
    assert "No driver is at work; `make sweep` goes on." in text


def test_a_driver_that_has_not_spoken_for_long_is_called_silent(store):
    with Store(store.place).as_driver() as driver:
        at = (datetime.now(UTC) - timedelta(seconds=400)).isoformat()
        store.files.replace(f"progress/{driver}.json", progress(at=at))
        assert "silent for 6.7 min" in "\n".join(lines(read_status(store)))


def test_of_many_cells_some_are_shown_and_the_rest_counted(store):
    for index in range(5):
        end(store, index, "failed", failure="cell")
    assert cell_lines(read_status(store), 2)[2].startswith("  … and 3 more without a score")


def test_the_json_has_what_the_text_says(store):
    with Store(store.place).as_driver() as driver:
        store.announce(IDS[2], 1, {"driver": driver, "node": "n3"})
        store.files.replace(f"progress/{driver}.json", progress())
        told = json.loads(json.dumps(as_json(read_status(store))))
    assert told["counts"] == {"running": 1, "waiting": 4}
    assert told["cells"][2]["running"]["step"] == 120


def test_the_picture_on_the_screen_fits_and_begins_with_the_counts(store):
    for index in range(5):
        end(store, index, "failed", failure="cell", reason="red \x1b[31m")
    text = picture(read_status(store), 12).plain
    assert text.splitlines()[0] == "sweep trial: 5 cells: 5 failed."
    assert len(text.splitlines()) <= 12
    assert "\x1b" not in text


def test_watching_ends_by_ctrl_c_and_leaves_the_last_picture(store):
    looks = iter([StoreError("no answer in time."), None, KeyboardInterrupt()])

    def look():
        if (error := next(looks)) is not None:
            raise error
        return read_status(store)

    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    keep_on_screen(console, 0.0, look)
    assert "no answer in time. Trying again." in console.file.getvalue()
    assert "5 waiting" in console.file.getvalue()
    with pytest.raises(ConfigError, match="make status"):
        keep_on_screen(Console(file=io.StringIO()), 0.0, look)


def test_a_sweep_is_opened_in_python(store):
    end(store, 0, post_quant_bpb=1.25)
    end(store, 1, "failed", failure="cell")
    opened = open_sweep(store.place)
    assert opened.status().counts == {"failed": 1, "succeeded": 1, "waiting": 3}
    assert [row["post_quant_bpb"] for row in opened.rows()] == [1.25, None]
    assert opened.table().num_rows == len(opened.attempts()) == 2
    with pytest.raises(ConfigError, match="no sweep has run here yet"):
        open_sweep(f"{store.place}/none")
