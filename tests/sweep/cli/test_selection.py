"""What is asked for with --where, --limit and --refresh is what is planned and shown."""

import json
import subprocess
from datetime import UTC, datetime

import pytest

from sweep.__main__ import main
from sweep.cli.invocation import Invocation
from sweep.cli.selection import values_of
from sweep.store.store import Store
from tests.support.commands import ROOT, write_sweep
from tests.support.grids import DATA, cells_of, sweep_spec

OLD = "0" * 64


@pytest.fixture
def said(tmp_path, capfd, monkeypatch):
    """What a verb says about a sweep of 6 cells: two seeds of relu2 and of two slopes."""
    monkeypatch.setattr(Invocation, "_prepare", lambda *_: DATA)  # no data is looked at here
    file = write_sweep(tmp_path / "trial.toml")
    results = tmp_path / "results"

    def run(verb, *arguments, status=0):
        where = ("--sweep", str(file), "--results", str(results))
        assert main([verb, *arguments, *where]) == status
        return capfd.readouterr().out

    run.store = Store(results / "trial")
    return run


def keep_success(store, task, trainer_hash):
    """The row of a success at the planned cell ``task``, made by some trainer."""
    attempt = store.announce(task["cell_id"], 1, {})
    row = {
        "cell": task["cell"],
        "cell_id": task["cell_id"],
        "order_position": 0,
        "state": "succeeded",
        "tainted": False,
        "attempt": attempt.number,
        "trainer_hash": trainer_hash,
        "started_at": attempt.started_at,
        "ended_at": datetime.now(UTC),
    }
    store.commit(attempt, row)


def todo(text):
    return [task["cell"] for task in json.loads(text)["todo"]]


def test_the_plan_has_the_first_of_the_cells_that_are_meant(said):
    everything = todo(said("plan", "--json"))
    meant = [name for name in everything if "seed1" in name and "leaky" in name]
    assert todo(said("plan", "--json", "--where", "slope >= 0 and seed == 1")) == meant
    assert (
        todo(said("plan", "--json", "--where", "seed == 1 and slope >= 0", "--limit", "1"))
        == (meant[:1])
    )


def test_a_stale_cell_is_shown_and_runs_again_only_where_that_is_asked_for(said):
    first = json.loads(said("plan", "--json"))["todo"][0]
    keep_success(said.store, first, OLD)
    plan = said("plan")
    assert f"{first['cell']}  ({first['cell_id']}): stale: trainer code has changed" in plan
    assert "(00000000, now " in plan
    assert "REFRESH=1 runs what is stale again" in plan
    assert "5 cells to run, 1 settled" in plan
    refreshed = json.loads(said("plan", "--json", "--refresh"))
    assert refreshed["todo"][0]["cell"] == first["cell"]
    assert "trainer code has changed" in refreshed["todo"][0]["why"]
    assert len(refreshed["todo"]) == 6
    for task in refreshed["todo"][1:]:
        keep_success(said.store, task, OLD)
    assert said("plan").count("stale: ") == 1
    assert "6 settled cells: stale: trainer code has changed" in said("plan")


def test_whoever_only_looks_needs_no_cluster(said, monkeypatch):
    cells = [{"cell": "a", "cell_id": "b"}]
    said.store.write_sweep({"name": "trial", "cells": cells})
    results = said.store.place.removesuffix("/trial")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setattr("sweep.__main__._connect", lambda address: pytest.fail("it was connected"))
    assert main(["status", "--results", results]) == 3
    assert main(["status", "--results", f"{results}/none"]) == 2


def test_status_selects_by_what_is_kept_beside_the_results(said):
    cells = cells_of(sweep_spec())
    kept = [{"cell": c.name, "cell_id": c.id, "values": values_of(c)} for c in cells]
    said.store.write_sweep({"name": "trial", "cells": kept})
    shown = json.loads(said("status", "--json", "--where", "activation == 'asqu'", status=3))
    assert [c["cell"] for c in shown["cells"]] == [c.name for c in cells if "asqu" in c.name]
    said.store.write_sweep({"name": "trial", "cells": [{"cell": "a", "cell_id": "b"}]})
    said("status", "--where", "seed == 1", status=2)


@pytest.mark.parametrize("arguments", [("logs", "--where", "seed == 1"), ("status", "--refresh")])
def test_a_flag_that_its_verb_would_pass_over_is_a_mistake(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([*arguments])
    assert f"unrecognized arguments: {arguments[1]}" in capsys.readouterr().err


def test_a_limit_below_one_is_a_mistake(capsys):
    with pytest.raises(SystemExit):
        main(["plan", "--limit", "0"])
    assert "--limit: 0: at least 1" in capsys.readouterr().err


def test_a_mistake_on_the_command_line_is_one_sentence_and_exit_2(tmp_path, capsys):
    for words, sentence in (
        (["run", "--sweep", "slops"], "Did you mean 'slopes'"),
        (["run", "--sweep", "no/such.toml"], "there is no such file"),
        (["rerun", "--sweep", "tiny"], "give CELL="),
        (["show", "--sweep", "tiny"], "which cell?"),
    ):
        assert main([*words, "--results", str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert sentence in error
    assert list(tmp_path.iterdir()) == []


def test_a_costly_sweep_asks_first(said, tmp_path, monkeypatch, capfd):
    monkeypatch.delenv("YES", raising=False)
    file = tmp_path / "trial.toml"
    cheap = file.read_text()
    file.write_text(cheap.replace("estimate_cell_s = 5.0", "estimate_cell_s = 9000.0"))
    assert main(["run", "--sweep", str(file), "--results", str(tmp_path / "results")]) == 2
    assert "node-hours. Confirm with YES=1" in capfd.readouterr().err
    assert said.store.unfinished() == []


def test_make_hands_a_condition_over_with_its_quotes(tmp_path):
    """The Makefile itself, run with a stand-in for the interpreter that keeps its arguments."""
    words = tmp_path / "words"
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {words}\n', encoding="utf-8")
    python.chmod(0o755)
    condition = """activation == "relu2" and seed != '42'"""
    variables = [f"WHERE={condition}", "LIMIT=3", "REFRESH=1", "JOIN=1"]
    command = ["make", "-o", ".venv/.ready-default", "TORCH=default", f"PY={python}", "plan"]
    subprocess.run([*command, *variables], cwd=ROOT, check=True, capture_output=True)
    told = words.read_text(encoding="utf-8").splitlines()
    assert told[told.index("--where") + 1] == condition
    assert told[told.index("--limit") + 1] == "3"
    assert {"--refresh", "--join"} <= set(told)
