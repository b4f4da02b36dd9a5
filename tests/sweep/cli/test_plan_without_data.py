"""A plan without the data names every cell and its cost, shows no id, and prepares nothing.

Not claimed: what a cell costs; until one has been measured it is the sweep file's guess.
"""

import json
import re
import subprocess
from datetime import UTC, datetime

import pytest

from analysis.planning.power_summary import power_summary
from sweep.__main__ import main
from sweep.cli.invocation import Invocation
from sweep.spec.sweep_file import load_sweep
from sweep.store.store import Store
from tests.support.commands import write_sweep
from tests.support.grids import DATA, cells_of
from tests.support.scripts import write_recipe, write_script_sweep

ID = re.compile(r"\b[0-9a-f]{16}\b")
TWO_SETS = '\n[grid.set]\n"data.dataset" = ["stdlib-512", "mine"]\n'


class Trial:
    """A sweep file, and what the verbs say of it where no data can be prepared."""

    def __init__(self, folder, capfd, monkeypatch):
        self.results, self.data = folder / "results", folder / "data"
        self.file = write_sweep(folder / "trial.toml", slopes=[0.5])
        self._capfd = capfd
        self.prepared = []
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        monkeypatch.setattr("sweep.cli.invocation.subprocess.run", self._prepare)

    def _prepare(self, command, **_):
        self.prepared.append(command)
        return subprocess.CompletedProcess(command, 2)

    def edit(self, old, new):
        text = self.file.read_text(encoding="utf-8")
        assert old in text
        self.file.write_text(text.replace(old, new), encoding="utf-8")

    def say(self, verb, *arguments, status=0):
        where = ("--sweep", self.file, "--results", self.results, "--data", self.data)
        assert main([verb, *arguments, *map(str, where)]) == status
        return self._capfd.readouterr()

    def json(self, *arguments):
        return json.loads(self.say("plan", "--json", *arguments).out)

    def settle(self, name, cell_id):
        store = Store(self.results / "trial")
        attempt = store.announce(cell_id, 1, {})
        row = {"cell": name, "cell_id": cell_id, "order_position": 0, "state": "succeeded"}
        row |= {"tainted": False, "attempt": 1, "started_at": attempt.started_at}
        store.commit(attempt, row | {"ended_at": datetime.now(UTC)})


@pytest.fixture
def trial(tmp_path, capfd, monkeypatch):
    return Trial(tmp_path, capfd, monkeypatch)


@pytest.fixture
def absent(trial):
    """The sweep over a published recipe."""
    trial.edit('recipe = "tiny"', 'recipe = "pr549"')
    return trial


def test_every_cell_is_named_without_an_id_and_the_data_is_asked_for_once(absent):
    out = absent.say("plan").out
    for cell in cells_of(load_sweep(str(absent.file))):
        assert f"  {cell.name}: new\n" in out
    assert ID.search(out) is None
    assert out.count("No cell that reads fineweb10B_sp1024 has an id yet") == 1
    assert f"`make data RECIPE=pr549 DATA={absent.data}`" in out
    assert "recognised" not in out  # nothing is kept, so nothing is settled
    assert "4 cells to run, 0 settled, on" in out
    assert absent.prepared == []
    assert not absent.results.exists()


def test_who_needs_the_data_is_told_what_gets_it(absent):
    said = absent.say("plan", "--needs-data", status=2).err
    assert f"`make data RECIPE=pr549 DATA={absent.data}` tries again" in said


def test_json_has_the_cost_and_null_for_an_id(absent):
    plan = absent.json("--where", "seed == 2")
    assert [task["cell_id"] for task in plan["todo"]] == [None, None]
    assert plan["absent_data"] == {
        "fineweb10B_sp1024": f"make data RECIPE=pr549 DATA={absent.data}"
    }
    assert plan["node_hours"] == pytest.approx(plan["wall_s"] / 3600)
    absent.edit("cpus = 1", "cpus = 100000")
    plan = absent.json()
    assert plan["wall_s"] is None  # no node here has so many
    assert plan["node_hours"] == pytest.approx(4 * 5.0 / 3600)


def test_of_two_data_sets_the_one_that_is_here_has_its_ids_and_what_is_settled(trial, monkeypatch):
    monkeypatch.setattr(Invocation, "_prepare", lambda *_: DATA)
    with trial.file.open("a", encoding="utf-8") as file:
        file.write(TWO_SETS)
    cells = cells_of(load_sweep(str(trial.file)))
    here = [cell for cell in cells if cell.overrides["data.dataset"] == "stdlib-512"]
    trial.settle(here[0].name, here[0].id)
    plan = trial.json()
    assert [cell["cell_id"] for cell in plan["settled"]] == [here[0].id]
    ids = {task["cell"]: task["cell_id"] for task in plan["todo"]}
    assert ids == {
        cell.name: cell.id if cell in here else None for cell in cells if cell != here[0]
    }
    assert plan["absent_data"].keys() == {"mine"}
    assert {task["why"] for task in plan["todo"]} == {"new"}
    assert '--set=data.dataset="mine"' in trial.say("plan").out
    assert trial.json("--where", "dataset == 'stdlib-512'")["absent_data"] == {}


def test_what_may_be_settled_already_is_not_called_new(absent):
    name = cells_of(load_sweep(str(absent.file)))[0].name
    absent.settle(name, "0123456789abcdef")
    plan = absent.json()
    assert {task["why"] for task in plan["todo"]} == {"new, or settled already"}
    assert plan["settled"] == plan["stale"] == []
    out = absent.say("plan").out
    assert f"none of them is recognised in {absent.results}/trial" in out
    assert "at most 4 cells to run, at least 0 settled" in out
    assert ID.search(out) is None


def test_a_sweep_that_stops_when_it_knows_is_planned_block_by_block(absent):
    absent.edit("seeds = [1, 2]", "seeds = [1, 2, 3, 4]")
    plan = absent.json("--until", "0.001")
    entries = [*plan["todo"], *plan["later"], *plan["unneeded"]]
    cells = cells_of(load_sweep(str(absent.file)))
    assert sorted(entry["cell"] for entry in entries) == sorted(cell.name for cell in cells)
    assert {entry["cell_id"] for entry in entries} == {None}
    assert plan["todo"]
    assert plan["later"]


def test_a_script_is_planned_with_its_patch(trial, tmp_path):
    recipe = write_recipe(tmp_path / "theirs", "constants")
    recipe.write_text(recipe.read_text().replace('"stdlib-512"', '"mine"'), encoding="utf-8")
    write_script_sweep(trial.file, recipe)
    out = trial.say("plan").out
    assert ID.search(out) is None
    assert "6 cells to run" in out
    assert "patched for leaky_relu2-s0." in out
    assert f"make data RECIPE={recipe}" in out


def test_what_the_grid_can_resolve_needs_no_data(absent):
    sentences = power_summary(absent.results / "trial", str(absent.file)).sentences
    assert "2 seeds × 2 activations resolve a true difference" in sentences[0]


@pytest.mark.parametrize("verb", ["run", "doctor"])
def test_whoever_runs_or_checks_still_needs_the_data(absent, verb, monkeypatch):
    monkeypatch.setattr("sweep.cli.verbs.run_checks", lambda _: [])
    said = absent.say(verb, status=2)
    assert "needs the dataset 'fineweb10B_sp1024'" in said.out + said.err
    assert f"`make data RECIPE=pr549 DATA={absent.data}` tries again" in said.out + said.err
    assert len(absent.prepared) == 1
    assert not absent.results.exists()
