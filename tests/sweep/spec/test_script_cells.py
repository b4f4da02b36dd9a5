"""The cells of a sweep over a script: their ids, and what is refused before anything runs."""

import textwrap

import pytest

from sweep.schedule.plan import plan_unsettled, stale_cells
from sweep.spec.grid import DataFound, expand
from sweep.spec.sweep_file import SweepSpec
from sweep.store.history import EndedAttempt
from trainer.config.config_errors import ConfigError
from trainer.script.load import load_any_recipe

SCRIPT = """
import os
import torch
import torch.nn.functional as F
SEED, ITERATIONS = int(os.environ["SEED"]), int(os.environ["ITERATIONS"])
MATRIX_LR = float(os.environ.get("MATRIX_LR", 0.02))
def mlp(x):
    return F.leaky_relu(x, negative_slope=0.5).square()
"""
RECIPE = """
[data]
dataset = "some-text"
vocab_size = 512
[script]
path = "train.py"
files = {files}
launch = "python"
check_text = {check}
env = {{ SEED = "{seed}"{env} }}
steps_env = {{ ITERATIONS = "{{steps}}" }}
[script.read]
post_quant = {{ label = "final" }}
[[script.patch]]
find = "negative_slope=0.5"
replace = "{replace}"
count = 1
{more}
"""
DATA = DataFound(folder="/data/some-text", corpus_sha256="a" * 64, tokenizer_sha256="b" * 64)


@pytest.fixture
def cells(tmp_path):
    """Expands a sweep over a script with these changes, from files in ``tmp_path``."""

    def made(
        script=SCRIPT,
        folder=tmp_path,
        seed="{seed}",
        env="",
        replace="negative_slope={slope}",
        check="true",
        files="[]",
        more="",
        **sweep,
    ):
        folder.mkdir(exist_ok=True)
        (folder / "train.py").write_text(textwrap.dedent(script))
        recipe = folder / "mine.toml"
        recipe.write_text(
            RECIPE.format(seed=seed, env=env, replace=replace, check=check, files=files, more=more)
        )
        asked = {
            "name": "s",
            "recipe": str(recipe),
            "activations": [{"name": "leaky_relu2", "slope": [0.3, 0.5]}],
            "seeds": [1, 2],
            "budgets": ["4steps"],
            "reference": "leaky_relu2-s0.5",
            "estimate_cell_s": 1.0,
        }
        spec = SweepSpec.model_validate(asked | sweep)
        return expand(spec, lambda o: load_any_recipe(str(recipe), o), lambda recipe: DATA)

    return made


def by_name(cells):
    return {cell.name: cell.id for cell in cells}


def refusal(cells, **changes):
    with pytest.raises(ConfigError) as caught:
        cells(**changes)
    return str(caught.value)


def test_an_id_holds_the_scripts_bytes_and_no_path(cells, tmp_path):
    here, there = cells(folder=tmp_path / "a"), cells(folder=tmp_path / "b")
    assert by_name(here) == by_name(there)
    assert len(set(by_name(here).values())) == 4
    changed = by_name(cells(script=SCRIPT + "# another byte\n"))
    assert not set(changed.values()) & set(by_name(here).values())


def test_what_only_watches_changes_no_id(cells):
    more = '[script.progress]\nquiet_after = ["^compile"]'
    assert by_name(cells()) == by_name(cells(more=more))


def test_the_hash_is_of_what_runs(cells):
    found = {cell.name: cell.script_sha256 for cell in cells()}
    one, other = found["leaky_relu2-s0.3__seed1__4steps"], found["leaky_relu2-s0.5__seed1__4steps"]
    assert one != other
    assert one == found["leaky_relu2-s0.3__seed2__4steps"]  # the seed is a variable


def test_a_change_of_our_trainer_makes_no_cell_of_a_script_stale_and_one_of_the_script_does(cells):
    asked = cells()
    script = asked[0].script_sha256

    def history(code_hash):
        ended = EndedAttempt(
            attempt=1,
            state="succeeded",
            tainted=False,
            reason=None,
            wall_s=1.0,
            ended_at_s=2.0,
            code_hash=code_hash,
        )
        return {asked[0].id: [ended]}

    for trainer in ("c" * 64, "d" * 64):
        assert stale_cells(asked[:1], history(script), trainer) == []
        assert plan_unsettled(asked, history(script), trainer_hash=trainer).settled == (asked[0],)
    assert stale_cells(asked[:1], history("e" * 64), "c" * 64) == [asked[0]]


def test_errors_of_another_script_are_not_held_against_a_cell(cells):
    asked = cells()[:1]
    failed = [
        EndedAttempt(
            attempt=n,
            state="failed",
            tainted=False,
            reason="x",
            wall_s=1.0,
            ended_at_s=2.0,
            failure="cell",
            signature="x",
            code_hash=asked[0].script_sha256,
        )
        for n in (1, 2)
    ]
    plan = plan_unsettled(asked, {asked[0].id: failed}, trainer_hash="another" * 9)
    assert len(plan.final) == 1


def test_an_axis_of_ones_own_fills_its_placeholder(cells):
    axes = {"set": {"matrix_lr": [0.02, 0.04]}}
    found = cells(env=', MATRIX_LR = "{matrix_lr}"', grid=axes)
    assert len({cell.id for cell in found}) == 8
    assert {cell.spec.axes["matrix_lr"] for cell in found} == {0.02, 0.04}
    assert found[0].name.endswith("__matrix_lr0.02")
    as_value = {"set": {"script.env.MATRIX_LR": ["0.02", "0.04"]}}
    assert len({cell.id for cell in cells(grid=as_value)}) == 8


def test_a_file_beside_the_script_is_checked_as_the_script_is(cells, tmp_path):
    helper = tmp_path / "model.py"
    both = {"script": SCRIPT + "import model\n", "files": '["model.py"]'}
    helper.write_text(SCRIPT.replace("0.5", "0.7"))
    assert "the patched model.py does not compute one activation" in refusal(cells, **both)
    helper.write_text("def (:\n")
    assert "the patched model.py, line 1: this is not Python" in refusal(cells, **both)
    helper.write_text("x = 1\n")
    assert len(cells(**both)) == 4


def test_relu2_and_slope_zero_may_run_alike(cells):
    both = [{"name": "relu2"}, {"name": "leaky_relu2", "slope": [0.0, 0.5]}]
    found = cells(activations=both)
    assert len({cell.id for cell in found}) == 6
    assert len({cell.script_sha256 for cell in found}) == 2


REFUSED = {
    "a placeholder that nothing fills": ({"env": ', A = "{slop}"'}, "{slop} has no value here"),
    "the wrong kind of budget": ({"env": ', A = "{seconds}"'}, "{seconds} has no value here"),
    "a slope that ASQU lacks": (
        {"activations": [{"name": "asqu"}, {"name": "leaky_relu2", "slope": 0.5}]},
        "{slope} has no value here",
    ),
    "a budget that nothing uses": ({"budgets": ["600s"]}, "budgets: nothing in recipe mine uses"),
    "an axis that nothing uses": ({"grid": {"set": {"lr": [1.0]}}}, "grid.set.lr: nothing in"),
    "an axis with a name that is taken": ({"grid": {"set": {"seed": [1]}}}, "placeholder already"),
    "a seed that nothing uses": ({"seed": "1"}, "seeds: nothing in recipe mine uses"),
    "an unknown section": ({"grid": {"set": {"optim.lr": [1.0]}}}, "it has [script] and optim"),
    "a variable that is not read": ({"env": ', SED = "{seed}"'}, "reads no such variable. Did you"),
    "a slope that does not arrive": ({"replace": "negative_slope=0.5"}, "asks for β = 0.09"),
    "activations that run alike": (
        {"replace": "negative_slope=0.5", "check": "false"},
        "the same script with the",
    ),
    "a patch that matches nothing": ({"script": "x = 1\n"}, "matches at 0 places"),
    "a patch that matches twice": ({"script": SCRIPT * 2}, "matches at 2 places of train.py"),
    "a script that is not Python": ({"script": "def :\n"}, "this is not Python"),
    "a patch that breaks the script": ({"replace": "negative_slope={slope}))"}, "is not Python"),
    "a dtype": ({"dtype": "float32"}, "a script chooses its own"),
    "another slope than the cell's": ({"replace": "negative_slope=1.5*{slope}"}, "asks for β = "),
    "no metric": ({"more": "[script.read.ttt]\n"}, "give label or pattern"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_a_sweep_that_cannot_mean_what_it_says_is_refused(cells, what):
    changes, says = REFUSED[what]
    assert says in refusal(cells, **changes)
