"""A user's command is told what happens; whatever it does, the sweep goes on.

Not claimed: that every event arrives where the command is slower than the sweep.
"""

import json

import pytest

from sweep.driver.listeners.event_command import EventCommand
from sweep.spec.sweep_file import EventHook
from tests.support.grids import cells_of, sweep_spec
from tests.sweep.driver.test_display import ENDINGS, view


@pytest.fixture
def warnings():
    return []


@pytest.fixture
def hook(tmp_path, warnings):
    """Opens a command; ``told`` reads what it has been given."""

    class Hook:
        file = tmp_path / "told"

        def open(self, command, timeout_s=30.0):
            return EventCommand(
                EventHook(command=command, timeout_s=timeout_s), "local", "us", warnings.append
            )

        @property
        def told(self):
            return [json.loads(line) for line in self.file.read_text().splitlines()]

    return Hook()


def test_every_event_is_an_object_on_standard_input_in_its_order(hook, warnings):
    command = hook.open(f"cat >> {hook.file}")
    for stopping, paused in (
        (None, None),
        (None, None),
        ("Draining.", None),
        ("Draining.", None),
        ("Stopping now.", "alike"),
    ):
        command.show(view(stopping=stopping, paused=paused))
    for ending in ENDINGS:
        command.ended(ending)
    command.close()
    told = hook.told
    assert [each["event"] for each in told] == [
        "started",
        "draining",
        "draining",
        "paused",
        "attempt ended",
        "attempt ended",
        "finished",
    ]
    assert all((each["sweep"], each["driver"]) == ("local", "us") for each in told)
    assert told[0]["cells"] == 36
    assert [each["reason"] for each in told[1:4]] == ["Draining.", "Stopping now.", "alike"]
    good, bad = told[4:6]
    assert (good["state"], good["pre_quant_bpb"], good["ttt_bpb"]) == ("succeeded", 3.25, None)
    assert (bad["state"], bad["done"]) == ("failed", None)
    assert bad["text"] == (
        "sweep local, attempt ended: relu2__seed1: failed in 3 s: rank 0 ended; it is tried again"
    )
    assert told[-1]["attempts"] == {"succeeded": 1, "failed": 1}
    assert warnings == []


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("exit 7", "ended with status 7"),
        ("no-such-program", "ended with status 127"),
        ("sleep 600 & wait", "had not ended after 0.2 s and was killed"),
    ],
)
def test_a_command_that_fails_is_missing_or_hangs_is_said_once(hook, warnings, command, said):
    opened = hook.open(command, timeout_s=0.2 if "sleep" in command else 30.0)
    opened.show(view())
    opened.ended(ENDINGS[0])
    opened.close()
    opened._thread.join(30.0)
    (warning,) = warnings
    assert said in warning or "did not take every event in time" in warning


def test_a_command_that_hangs_holds_nothing_up(hook, warnings, monkeypatch):
    monkeypatch.setattr("sweep.driver.listeners.event_command.MAX_WAITING", 3)
    opened = hook.open("sleep 600", timeout_s=600.0)
    for _ in range(10):
        opened.ended(ENDINGS[0])
    (warning,) = warnings
    assert "is behind by 3 events" in warning
    opened._hook = EventHook(command="sleep 600", timeout_s=0.1)
    opened.close()
    assert len(warnings) == 1
    opened._thread.join(30.0)
    assert not opened._thread.is_alive()


def test_a_sweep_without_the_table_tells_nobody_and_the_question_stays_the_same():
    with_hook = sweep_spec(events={"command": "cat"})
    assert sweep_spec().events is None
    assert [c.id for c in cells_of(with_hook)] == [c.id for c in cells_of(sweep_spec())]
