"""A store that an earlier version wrote is read as before.

``kept/`` holds what four cells and one rerun of the tiny recipe left, without logs and artifacts;
names of machines are made up. A change that breaks this test would make finished sweeps run again.
"""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from analysis.__main__ import main as analysis
from analysis.rows.attempt_files import load_curves, load_layers
from analysis.rows.read import load_cells, load_replicates, load_sweep
from sweep.__main__ import main
from sweep.cli.invocation import Invocation
from sweep.spec.grid import DataFound
from sweep.store.store import Store
from tests.support.commands import ROOT

KEPT = Path(__file__).with_name("kept")


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A copy of the kept results; nothing may connect to a cluster, no data is looked at."""
    row = pq.read_table(KEPT / "kept" / "cells.parquet").slice(0, 1).to_pylist()[0]
    data = DataFound(
        folder="/nowhere",
        corpus_sha256=row["corpus_sha256"],
        tokenizer_sha256=row["tokenizer_sha256"],
    )
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(Invocation, "_prepare", lambda *_: data)
    monkeypatch.setattr("sweep.__main__._connect", lambda address: pytest.fail("it was connected"))
    shutil.copytree(KEPT / "kept", tmp_path / "kept")
    return tmp_path


def command(results, *words):
    return main([*words, "--sweep", str(KEPT / "kept.toml"), "--results", str(results)])


def test_its_cells_are_settled_and_stale_and_only_a_refresh_runs_them_again(results, capfd):
    attempts = sorted(path.name for path in (results / "kept" / "attempts").iterdir())
    assert command(results, "plan", "--json") == 0
    plan = json.loads(capfd.readouterr().out)
    assert (plan["todo"], len(plan["settled"]), len(plan["stale"])) == ([], 4, 4)
    assert command(results, "run") == 0
    assert "nothing to run, 4 cells are settled" in capfd.readouterr().out
    assert sorted(path.name for path in (results / "kept" / "attempts").iterdir()) == attempts
    assert command(results, "plan", "--json", "--refresh") == 0
    assert len(json.loads(capfd.readouterr().out)["todo"]) == 4
    assert command(results, "status", "--json") == 0
    assert json.loads(capfd.readouterr().out)["counts"] == {"succeeded": 4}


def test_the_tables_that_are_made_of_its_attempts_are_the_kept_ones(results):
    store = Store(results / "kept")
    ids = [cell["cell_id"] for cell in store.read_sweep()["cells"]]
    for name in ("cells.parquet", "replicates.parquet"):
        (results / "kept" / name).unlink()
    stored = store.write_cells(ids)
    assert (len(stored.rows), stored.unreadable, store.unfinished()) == (5, (), [])
    for name in ("cells.parquet", "replicates.parquet"):
        made, kept = (pq.read_table(folder / "kept" / name) for folder in (results, KEPT))
        assert made.select(kept.column_names).equals(kept, check_metadata=True)


def test_the_analysis_makes_the_tables_that_a_killed_driver_left_unmade(results, capsys):
    (results / "kept" / "cells.parquet").unlink()
    assert analysis(["summary", "--results", str(results), "--sweep", "kept"]) == 0
    assert (results / "kept" / "cells.parquet").exists()
    assert "ASQU" in capsys.readouterr().out


def test_the_analysis_loads_it(results):
    place = results / "kept"
    cells = load_cells(place)
    assert sorted(cells["cell"]) == [
        "asqu__seed1337__4steps",
        "leaky_relu2-s0.5__seed1337__4steps",
        "leaky_relu2-s0__seed1337__4steps",
        "relu2__seed1337__4steps",
    ]
    assert list(load_replicates(place)["attempt"]) == [2]
    assert load_sweep(place, cells).reference == "leaky_relu2-s0.5"
    for load in (load_curves, load_layers):
        assert load(place, cells)["cell_id"].nunique() == 4
