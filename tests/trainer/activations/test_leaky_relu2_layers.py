"""LeakyReLU² with a slope for each layer trains as its slopes do, and is refused for other depths.

The recipe ``tiny`` has two layers. The function itself is held against its reference with the rest
of the table.
"""

import json

import pytest
import torch

from tests.support.script_spec import script_spec
from tests.support.tiny import answer, run_cell, tiny_model, tiny_recipe, tiny_spec
from trainer.__main__ import main
from trainer.activations import activation_label
from trainer.config.config_errors import ConfigError
from trainer.contract import ARTIFACT_FILE, RunSpec, spec_hash

NAME, PROFILE = "leaky_relu2_layers", [0.3, 0.6]


@pytest.fixture
def trained(data_dir, tmp_path):
    """The answer and the artifact of a tiny cell."""

    def run(name, params):
        out = tmp_path / name
        report = run_cell(tiny_spec(data_dir, activation=name, params=params), out)
        return answer(report), (out / ARTIFACT_FILE).read_bytes()

    return run


def test_one_slope_for_all_layers_is_leaky_relu2_in_every_bit_of_a_run(trained):
    assert trained(NAME, {"slopes": [0.3, 0.3]}) == trained("leaky_relu2", {"slope": 0.3})


def test_each_layer_has_its_slope_and_a_report_the_mean_and_spread_of_beta(trained):
    report, _ = trained(NAME, {"slopes": PROFILE})
    assert report["beta_mean"] == pytest.approx((0.09 + 0.36) / 2)
    assert report["beta_std"] == pytest.approx((0.36 - 0.09) / 2)
    model = tiny_model(activation=NAME, params={"slopes": PROFILE})
    assert [layer.beta for layer in model.activations] == [
        torch.tensor([slope**2]) for slope in PROFILE
    ]
    assert not list(model.activations.parameters())


def test_it_takes_a_slope_for_each_layer_of_the_recipe_and_no_other_number(data_dir):
    spec = tiny_spec(data_dir, activation=NAME, params={"slopes": PROFILE})
    again = RunSpec.model_validate(json.loads(spec.model_dump_json()))
    assert again == spec
    assert spec_hash(again) == spec_hash(spec)
    assert spec.neg_beta is None
    for slopes in ([0.3], [0.3, 0.5, 0.9]):
        message = rf"slopes holds {len(slopes)}, and .* num_layers = 2\. Give 2"
        with pytest.raises(ValueError, match=message):
            tiny_spec(data_dir, activation=NAME, params={"slopes": slopes})
        with pytest.raises(ConfigError, match=message):
            tiny_model(activation=NAME, params={"slopes": slopes})
    with pytest.raises(ValueError, match=r"slopes holds 2, and .* num_layers = 4"):
        RunSpec(**dict(spec) | {"recipe": tiny_recipe({"model.num_layers": 4})})


def test_a_script_is_not_asked_for_it():
    with pytest.raises(ValueError, match="no placeholder for a list, and does not say how many"):
        script_spec("", activation={"name": NAME, "params": {"slopes": PROFILE}})


def test_the_command_line_takes_a_list(capsys):
    command = ["--recipe", "tiny", "--activation", NAME, "--describe"]
    for param, status, text in (
        ("slopes=[0.3,0.6]", 0, '"recipe"'),
        ("slopes=[0.3]", 2, "slopes holds 1"),
        ("slopes=0.3", 2, "slopes = 0.3: give a list of numbers, one for each layer"),
        ("slopes=[0.3,half]", 2, "such as slopes=[0.3,0.5]"),
    ):
        assert main([*command, "--activation-param", param]) == status
        said = capsys.readouterr()
        assert text in said.out + said.err


def test_a_label_of_many_layers_is_short_and_tells_profiles_apart():
    """It is part of the names of files."""
    many = [round(0.3 + 0.0123456789 * i, 10) for i in range(48)]
    swapped = [many[1], many[0], *many[2:]]
    one, other = (activation_label(NAME, {"slopes": slopes}) for slopes in (many, swapped))
    assert one.startswith("leaky_relu2_layers-s0.3to0.88-")
    assert one != other
    assert len(one) < 50
    assert set(one) <= set("abcdefghijklmnopqrstuvwxyz0123456789_.-")
    assert activation_label(NAME, {"slopes": [0.1 + 0.2, -0.0]}) == activation_label(
        NAME, {"slopes": [0.3, 0.0]}
    )
