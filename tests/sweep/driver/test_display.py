"""What people see: how far, how long, and every ending, on a terminal and in a log."""

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from sweep.driver.control import DRAINING
from sweep.driver.display import (
    MAX_LINES,
    EndedView,
    LeaseView,
    LiveDisplay,
    PlainDisplay,
    SweepView,
    end_time,
    render,
    running_sentence,
)

AT = datetime(2026, 1, 1, tzinfo=UTC)
ENDS = AT + timedelta(seconds=20)
TRAINING = {"phase": "train", "step": 36, "remaining_steps": 100.0, "step_ms": 90.0}
ROW = {"pre_quant_bpb": 3.25, "post_quant_bpb": 3.5, "ttt_bpb": None}
ENDINGS = [
    EndedView(
        cell="asqu__seed1",
        state="succeeded",
        reason=None,
        wall_s=20.0,
        row=ROW,
        done=8,
        total=36,
    ),
    EndedView(
        cell="relu2__seed1",
        state="failed",
        reason="rank 0 ended; it is tried again",
        wall_s=3.0,
        row={},
        done=None,
        total=36,
    ),
]


def view(**changes):
    lease = LeaseView(
        name="lease 0",
        node="n1",
        cell="asqu__seed1",
        cell_id="0" * 16,
        attempt=2,
        started_at=AT,
        elapsed_s=5.0,
        expected_end=ENDS,
        progress=TRAINING,
    )
    values = {
        "name": "local",
        "total": 36,
        "settled_before": 3,
        "ended": {"succeeded": 6, "failed": 1},
        "waiting": 28,
        "leases": [lease],
        "idle": 1,
        "durations_s": [20.0],
        "stopping": None,
        "node_hours": 0.5,
        "quarantined": {"n2": "too hot"},
        "paused": None,
    }
    return SweepView(**values | changes)


def drawn(renderable):
    console = Console(file=io.StringIO(), width=140)
    console.print(renderable)
    return console.file.getvalue()


def test_the_live_picture_shows_the_sweep_and_each_lease():
    text = drawn(render(view()))
    for part in (
        "7/36 cells done (1 failed, 6 succeeded), 1 running, 3 kept from before",
        "lease 0 on n1",
        "asqu__seed1",
        "train",
        "36",
        "90",
        "9 s",
    ):
        assert part in text


def test_a_lease_that_has_said_nothing_yet_is_starting():
    silent = replace(view().leases[0], progress=None)
    assert "starting" in drawn(render(view(leases=[silent])))


def test_of_many_leases_the_first_are_shown_and_the_rest_counted():
    text = drawn(render(view(leases=[*view().leases] * 100)))
    assert text.count("lease 0 on n1") == MAX_LINES
    assert "and 70 leases more" in text


def test_what_is_waited_for_is_said():
    assert "waiting: busy: 8 GPUs wanted" in drawn(render(view(note="busy: 8 GPUs wanted")))
    assert "other sweeps" in drawn(render(view(sharing="waits for its turn behind slopes")))


def test_the_time_left_spreads_the_waiting_cells_over_the_leases():
    assert view().remaining_s == pytest.approx((15 + 28 * 20) / 2)
    assert view(durations_s=[]).remaining_s is None


@pytest.mark.parametrize("kind", [PlainDisplay, LiveDisplay])
def test_every_ending_is_a_line_with_its_scores_or_its_reason(kind):
    console = Console(file=io.StringIO(), width=140, force_terminal=kind is LiveDisplay)
    with kind(console) as display:
        display.show(view())
        for ending in ENDINGS:
            display.ended(ending)
    text = console.file.getvalue()
    assert "[8/36] asqu__seed1: succeeded in 20 s, BPB pre 3.2500, post 3.5000" in text
    assert text.count("/36]") == 1
    assert "relu2__seed1: failed in 3 s: rank 0 ended; it is tried again" in text


def test_without_a_terminal_a_line_says_now_and_then_what_is_running(monkeypatch):
    console = Console(file=io.StringIO(), width=200)
    display = PlainDisplay(console)
    display.show(view())
    assert console.file.getvalue() == ""
    monkeypatch.setattr("sweep.driver.display.LINE_EVERY_S", -1.0)
    display.show(view())
    assert "asqu__seed1 (train, step 36, 90 ms/step, 9 s left)" in console.file.getvalue()


def test_without_a_terminal_many_cells_are_summed_up_and_those_that_began_are_named(monkeypatch):
    monkeypatch.setattr("sweep.driver.display.LINE_EVERY_S", -1.0)
    console = Console(file=io.StringIO(), width=200)
    display, lease = PlainDisplay(console), view().leases[0]
    leases = [replace(lease, cell=f"cell {n}", cell_id=f"id {n}") for n in range(1000)]
    leases[0] = replace(leases[0], progress=None)
    display.show(view(leases=leases))
    new = replace(lease, cell="the new one", cell_id="new")
    display.show(view(leases=[*leases[1:], new]))
    first, begun, second, changed = console.file.getvalue().splitlines()
    assert "1000 running" in first
    assert first.endswith("running: 999 in train, 1 in starting")
    assert begun == "begun since: cell 0, cell 1, cell 2, cell 3 and 996 more"
    assert second.endswith("running: 1000 in train")
    assert changed == "begun since: the new one"


@pytest.mark.parametrize("kind", [PlainDisplay, LiveDisplay])
def test_what_others_have_named_neither_colours_nor_moves_the_terminal(kind, monkeypatch):
    monkeypatch.setattr("sweep.driver.display.LINE_EVERY_S", -1.0)
    evil = "n\x1b]0;title\x07 [red]"
    lease = replace(view().leases[0], node=evil, cell=evil)
    console = Console(file=io.StringIO(), width=140)
    with kind(console) as display:
        display.show(view(leases=[lease], note=evil, sharing=evil))
        display.ended(replace(ENDINGS[1], reason=evil))
        display.say(evil)
    text = console.file.getvalue() + drawn(render(view(leases=[lease])))
    assert "\x1b" not in text
    assert "\\x1b]0;title\\x07 [red]" in text


def test_an_interruption_is_answered_once():
    console = Console(file=io.StringIO(), width=200)
    display = PlainDisplay(console)
    for stopping in (None, DRAINING, DRAINING):
        display.show(view(stopping=stopping))
    text = console.file.getvalue()
    assert text.count("Draining: no new cells") == 1
    assert f"1 cell is running; the last should end at {end_time(ENDS)}." in text
    assert f"asqu__seed1 on n1: {end_time(ENDS)}" in text


def test_when_the_running_cells_should_end_is_said():
    assert running_sentence([]) == "No cell is running."
    late = running_sentence([ENDS, AT, None])
    assert late == (
        f"3 cells are running; the last should end at {end_time(ENDS)}; 1 should have ended by now."
    )
