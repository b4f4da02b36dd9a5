"""``python -m trainer.script`` runs one cell by hand, and tries a recipe's rules on a log."""

import json

import pytest

from tests.support.script_spec import script_spec
from trainer.contract import REPORT_FILE, parse_script_report
from trainer.script.__main__ import main

RECIPE = """
[data]
dataset = "some-text"
vocab_size = 512
[script]
path = "train.py"
[script.read]
lines = ['params (?P<num_params>\\d+)']
ttt = { label = "legal_ttt" }
"""


@pytest.fixture
def read(tmp_path, capsys):
    """Reads a log by the rules of ``RECIPE``: exit status, standard output, standard error."""
    (tmp_path / "train.py").write_text("pass")
    recipe, log = tmp_path / "mine.toml", tmp_path / "run.log"
    recipe.write_text(RECIPE)

    def run(text):
        log.write_text(text)
        status = main(["--read", str(log), "--recipe", str(recipe)])
        return status, *capsys.readouterr()

    return run


def test_rules_can_be_tried_on_a_log(read):
    status, out, _ = read("params 12\nlegal_ttt val_loss:2.0 val_bpb:1.25\n")
    said = json.loads(out)
    assert status == 0
    assert said["stages"] == {"ttt": {"bpb": 1.25, "line": 2}}
    assert (said["values"], said["missing"]) == ({"num_params": 12}, [])
    assert "ttt" in json.loads(read("params 12\n")[1])["missing"][0]


@pytest.mark.parametrize("line", ["params 13", "legal_ttt val_loss:2.0 val_bpb:1.26"])
def test_a_rule_that_two_lines_satisfy_differently_is_refused_with_both(read, line):
    status, _, said = read(f"params 12\nlegal_ttt val_loss:2.0 val_bpb:1.25\n{line}\n")
    assert status == 2
    assert "line 3" in said
    assert "differently" in said


def test_a_step_that_is_no_number_is_refused(read, tmp_path):
    (tmp_path / "mine.toml").write_text(
        RECIPE.replace("params (?P<num_params>\\d+)", "at (?P<step>.+) loss (?P<train_loss>.+)")
    )
    status, _, said = read("at nan loss 1\nlegal_ttt val_loss:2.0 val_bpb:1.25\n")
    assert (status, "line 1: 'at nan loss 1': step is nan" in said) == (2, True)


def test_one_cell_runs_by_hand(tmp_path, capsys):
    source = "print('final_int6_roundtrip_exact val_loss:2.00000000 val_bpb:1.50000000')"
    spec, out = tmp_path / "spec.json", tmp_path / "out"
    spec.write_text(script_spec(source, launch="python", env={"S": "{seed}"}).model_dump_json())
    assert main(["--spec", str(spec), "--out", str(out)]) == 0
    assert parse_script_report((out / REPORT_FILE).read_text()).post_quant_bpb == 1.5
    spec.write_text("{}")
    assert main(["--spec", str(spec), "--out", str(out)]) == 2
    assert "required" in capsys.readouterr().err


def test_a_script_without_a_launcher_sees_the_ranks_that_its_recipe_sets(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "8")
    source = """
        import os
        assert "WORLD_SIZE" not in os.environ
        print(f"final_int6_roundtrip_exact val_loss:2.0 val_bpb:1.{os.environ['RANK']}5")
    """
    spec, out = tmp_path / "spec.json", tmp_path / "out"
    env = {"S": "{seed}", "RANK": "0"}
    spec.write_text(script_spec(source, launch="python", env=env).model_dump_json())
    assert main(["--spec", str(spec), "--out", str(out)]) == 0
    assert parse_script_report((out / REPORT_FILE).read_text()).post_quant_bpb == 1.05
