"""A description says what a run would be, and needs no data for it."""

import json
import math
from functools import cache

import pytest

from tests.support.tiny import default_params, tiny_model, tiny_recipe
from trainer.__main__ import main
from trainer.activations import ACTIVATIONS
from trainer.config import load_recipe
from trainer.contract import ActivationSpec, recipe_hash
from trainer.describe import describe

ASQU = ActivationSpec(name="asqu")


@cache
def described(recipe, activation):
    """In float32."""
    return describe(load_recipe(recipe), ActivationSpec(name=activation), "float32")


def test_the_parameters_are_as_many_as_published():
    for name, activation, num_params in (
        ("pr1035", "relu2", 17_059_912),
        ("pr1035", "asqu", 17_069_128),
        ("pr549", "relu2", 26_928_220),
        ("pr549-clean", "relu2", 26_928_220),
        ("pr1176", "relu2", 27_038_812),
    ):
        found = described(name, activation)
        parameters = [t for t in found["tensors"] if t["kind"] == "parameter"]
        assert found["num_params"] == sum(t["numel"] for t in parameters) == num_params


def test_the_payload_is_the_one_in_the_published_log():
    """PR #1035 prints it: int8 codes, float16 scales and float32 control tensors."""
    for activation, payload in (("relu2", 17_178_912), ("asqu", 17_215_776)):
        found = described("pr1035", activation)
        assert found["artifact_payload_bytes"] == payload


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_tensors_are_those_of_the_model(name):
    activation = ActivationSpec(name=name, params=default_params(name))
    found = describe(tiny_recipe(), activation, "float32")
    model = tiny_model(activation=name, params=default_params(name))
    expected = [(n, "parameter", list(t.shape)) for n, t in model.named_parameters()] + [
        (n, "buffer", list(t.shape)) for n, t in model.named_buffers()
    ]
    assert [(t["name"], t["kind"], t["shape"]) for t in found["tensors"]] == expected
    assert found["recipe"] == tiny_recipe().model_dump(mode="json")
    assert found["recipe_hash"] == recipe_hash(tiny_recipe())


def test_the_types_are_those_of_the_precision():
    found = describe(load_recipe("pr549"), ASQU, "bfloat16")
    kept = {t["name"] for t in found["tensors"] if t["dtype"] == "bfloat16"}
    assert kept == {"embed", "bigram.embed", "value_embedding.embed"}
    assert {t["dtype"] for t in described("pr549", "asqu")["tensors"]} == {"float32"}


def test_the_flops_are_two_for_every_product_of_a_matrix_and_of_attention():
    """Counted by torch; here by hand. Attention has T keys for each query, and values likewise."""
    recipe = tiny_recipe({"model.value_embedding.dim": 8})
    model, config = tiny_model({"model.value_embedding.dim": 8}), recipe.model
    matrices = [model.qo_bank, model.kv_bank, model.up_bank, model.down_bank, model.embed]
    matrices += [model.bigram.proj, model.value_embedding.proj]
    per_token = 2 * sum(m.numel() for m in matrices)
    per_token += config.num_layers * 2 * 2 * recipe.train.seq_len * config.width
    assert describe(recipe, ASQU, "float32")["flops_per_token"] == {
        "forward": per_token,
        "training": 3 * per_token,
    }


def test_it_is_one_json_object_on_standard_output_and_leaves_nothing(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    given = ["--recipe", "pr549", "--activation", "leaky_relu2", "--slope", "0.3"]
    assert main([*given, "--set", "model.num_layers=12", "--describe"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert said.err == ""
    assert found["recipe"]["model"]["num_layers"] == 12
    assert found["activation"] == {"name": "leaky_relu2", "params": {"slope": 0.3}}
    assert math.prod(next(t for t in found["tensors"] if t["name"] == "qo_bank")["shape"]) == (
        24 * 512 * 512
    )
    assert not list(tmp_path.iterdir())


def test_either_an_answer_or_a_description_is_asked_for(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--recipe", "tiny", "--activation", "relu2"])
    assert stopped.value.code == 2
    assert "--describe" in capsys.readouterr().err
