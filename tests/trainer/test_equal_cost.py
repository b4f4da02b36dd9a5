"""Under equal cost a fixed β takes the path of a learned one, and the answer stays what it was."""

import pytest
import torch

from tests.support.tiny import answer, busy_model, random_tokens, run_cell, tiny_recipe, tiny_spec
from trainer.compress.artifact import unpack
from trainer.contract import ARTIFACT_FILE, recipe_hash
from trainer.optim.parameter_kinds import parameters_by_kind

EQUAL = {"train.equal_cost": True}
FIXED = [
    ("relu2", {}),
    ("leaky_relu2", {"slope": 0.3}),
    ("leaky_relu2_layers", {"slopes": [0.3, 0.5]}),
    ("rrelu2", {}),
]
# The recipe's hash is in the artifact, and compresses to more or fewer bytes.
OF_THE_RECIPE = {"recipe_hash", "model_bytes", "artifact_bytes"}


def gradients_of_beta(model):
    """How many gradients of β one pass computes."""
    seen = []
    for activation in model.activations:
        if activation.beta.requires_grad:
            activation.beta.register_hook(seen.append)
    tokens = random_tokens(2, 17)
    model.nll(tokens[:, :-1], tokens[:, 1:]).mean().backward()
    return seen


@pytest.mark.parametrize(("name", "params"), FIXED[1::2], ids=str)
def test_every_answer_is_the_same_in_every_bit(data_dir, tmp_path, name, params):
    answers, weights = [], []
    for which, overrides in enumerate(({}, EQUAL)):
        spec = tiny_spec(data_dir, activation=name, params=params, overrides=overrides)
        out = tmp_path / str(which)
        answers.append(answer(run_cell(spec, out)))
        data = (out / ARTIFACT_FILE).read_bytes()
        weights.append(unpack(data, spec.recipe.quantization))
    plain, equal = ({k: v for k, v in a.items() if k not in OF_THE_RECIPE} for a in answers)
    assert plain == equal
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_the_gradient_of_each_channels_beta_is_computed_and_dropped():
    """A fixed β stays no parameter and no state."""
    for name, params in FIXED:
        model = busy_model(activation=name, params=params)
        before = dict(model.named_parameters()).keys(), model.state_dict().keys()
        assert gradients_of_beta(model) == []
        model.cost_as_learned()
        computed = gradients_of_beta(model)
        assert [g.shape for g in computed] == [(model.config.mlp_hidden,)] * model.config.num_layers
        assert any(g.abs().sum() > 0 for g in computed)
        assert all(activation.beta.grad is None for activation in model.activations)
        assert (dict(model.named_parameters()).keys(), model.state_dict().keys()) == before
        assert parameters_by_kind(model)["activation"] == []


def test_what_learns_its_beta_goes_on_learning_it():
    model = busy_model(activation="asqu")
    model.cost_as_learned()
    assert len(parameters_by_kind(model)["activation"]) == model.config.num_layers
    assert len(gradients_of_beta(model)) == model.config.num_layers
    assert all(activation.beta.grad is not None for activation in model.activations)


def test_it_is_part_of_the_question_where_it_is_asked_for_and_only_there():
    assert recipe_hash(tiny_recipe({"train.equal_cost": False})) == recipe_hash(tiny_recipe())
    assert recipe_hash(tiny_recipe(EQUAL)) != recipe_hash(tiny_recipe())
