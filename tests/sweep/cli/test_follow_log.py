"""The log of a running cell is followed to its end, on its machine and from another."""

import io
import json
import tempfile
from datetime import UTC, datetime

import pytest
from rich.console import Console

from sweep.cli import verbs
from sweep.cli.follow_log import FollowedLog, ending
from sweep.cli.invocation import Invocation
from sweep.environment import Environment
from sweep.node.scratch import LIVE_BYTES, live_log, log_end, rank_log, scratch
from sweep.store.store import Store
from tests.support.drivers import row_of
from trainer.config.config_errors import ConfigError

CELL, NAME = "0123456789abcdef", "asqu__seed1"


@pytest.fixture(autouse=True)
def _node(tmp_path, monkeypatch):
    (tmp_path / "node").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "node"))
    monkeypatch.setattr("sweep.cli.follow_log.HERE_EVERY_S", 0.0)


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "results" / "trial")
    made.files.tell_every_s = made.files.ask_every_s = 0.0
    made.write_sweep({"name": "trial", "cells": [{"cell": NAME, "cell_id": CELL}]})
    return made


def close(store, attempt, log, **changes):
    path = store.write_file("logs", f"{attempt.stem}.log", log.encode())
    store.commit(attempt, row_of(attempt, log=path, **changes))


def followed(store, steps, **changes):
    """What is shown while each step, once its turn has come, does what comes next."""
    with Store(store.place).as_driver() as driver:
        attempt = store.announce(CELL, 1, {"driver": driver})
        shown, todo = [], iter(steps(store, attempt, driver))
        next(todo)

        def show(text):
            shown.append(text)
            if not text.startswith("["):
                next(todo, None)

        row = FollowedLog(store, attempt, driver).follow(show)
        return shown, row


def here(store, attempt, driver):
    with scratch(attempt.stem) as folder:
        for data in (b"step:1\n", b"step:2\nstep:3 \xc3", b"\xa9\n"):  # cut within a letter
            with rank_log(folder, 0).open("ab") as file:
                file.write(data)
            yield
    close(store, attempt, "step:1\nstep:2\nstep:3 é\nlast words")
    yield


def elsewhere(store, attempt, driver):
    """The driver tells the last six bytes."""
    log = ""
    for text in ("step:1\n", "step:2\nstep:3\n"):
        log += text
        running = {"cell_id": CELL, "attempt": 1, "node": "n2", "elapsed_s": 1.0}
        running |= {"log_end": log[-6:], "log_bytes": len(log)}
        said = {"at": datetime.now(UTC).isoformat(), "running": [running]}
        store.files.replace(f"progress/{driver}.json", json.dumps(said).encode())
        yield
    close(store, attempt, log + "last words")
    yield


def test_on_its_machine_the_log_itself_is_followed_to_its_end(store):
    shown, row = followed(store, here)
    assert "".join(shown) == "step:1\nstep:2\nstep:3 é\nlast words\n"
    assert shown[0] == "step:1\n"
    assert row["state"] == "succeeded"


def test_from_elsewhere_what_the_driver_tells_is_followed_and_gaps_are_marked(store):
    shown, _ = followed(store, elsewhere)
    gap = "[8 bytes are left out]\n"
    assert "".join(shown) == f"[1 bytes are left out]\ntep:1\n{gap}tep:3\nlast words\n"


def test_of_an_attempt_that_says_nothing_while_it_runs_the_kept_log_is_shown(store):
    attempt, shown = store.announce(CELL, 1, {}), []
    close(store, attempt, "it never began")
    row = FollowedLog(store, attempt, None).follow(shown.append)
    assert ("".join(shown), row["attempt"]) == ("it never began\n", 1)


def test_following_ends_where_the_driver_is_gone(store):
    attempt = store.announce(CELL, 1, {"driver": "gone"})
    assert FollowedLog(store, attempt, "gone").follow(pytest.fail) is None
    assert "its driver is gone" in ending(NAME, None)


def test_the_end_of_a_log_is_short_and_says_where_it_ends(tmp_path):
    assert log_end(tmp_path) == {}
    rank_log(tmp_path, 0).write_bytes(b"x" * 4999 + b"\nhalf a line")
    told = log_end(tmp_path)
    assert told["log_bytes"] == 5000
    assert told["log_end"] == "x" * (LIVE_BYTES - len("\nhalf a line")) + "\n"
    assert live_log("0" * 16 + "-1") is None


@pytest.fixture
def command(store, tmp_path):
    console = Console(file=io.StringIO(), width=100)

    def run(**options):
        invocation = Invocation(
            environment=Environment(ray_address=None, yes=True),
            sweep_name="trial",
            results=str(tmp_path / "results"),
            data=tmp_path,
            console=console,
            connect=pytest.fail,
            cell=NAME,
            **options,
        )
        assert verbs.logs(invocation) == 0
        return console.file.getvalue()

    return run


def test_a_log_is_printed_with_its_control_characters_as_such_and_its_state_last(store, command):
    attempt = store.announce(CELL, 1, {})
    close(store, attempt, "red \x1b[31m\n\tstep\r\n", state="failed", reason="it \x07 broke")
    text = command(follow=True)
    assert text.startswith("red \\x1b[31m\n\tstep\\r\n")
    assert text.splitlines()[-1].startswith("asqu__seed1: attempt 1 failed in ")
    assert text.endswith("it \\x07 broke\n")


def test_a_running_cell_without_a_log_is_said_to_run(store, command):
    with Store(store.place).as_driver() as driver:
        store.announce(CELL, 1, {"driver": driver})
        with pytest.raises(ConfigError, match="FOLLOW=1"):
            command()


def test_a_row_that_names_a_log_elsewhere_is_refused(store, command, tmp_path):
    (tmp_path / "secret").write_text("secret")
    attempt = store.announce(CELL, 1, {})
    store.commit(attempt, row_of(attempt, log="../../secret"))
    with pytest.raises(ConfigError, match="not inside that place"):
        command()
