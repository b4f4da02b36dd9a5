"""Artifacts have the names, the order and the size of those that the published scripts write."""

import io

import pytest
import torch

from trainer.compress.artifact import pack
from trainer.compress.layout import join, split
from trainer.config import load_recipe
from trainer.model import GPT

# Bytes before compression. PR #1035 prints them (`raw_torch:`, train_log_lr2_1337.txt and
# train_log_asqu_1337.txt); those of #549 and #1176 were never printed and follow from the same
# format, names, types and shapes.
PUBLISHED = [
    ("pr1035", "leaky_relu2", 17_224_025),
    ("pr1035", "asqu", 17_263_559),
    ("pr549", "leaky_relu2", 27_199_363),
    ("pr1176", "leaky_relu2", 27_304_323),
]


def weights_of(name, activation):
    """Zeros in the shapes of a recipe: the container is as long, whatever it holds."""
    params = {"slope": 0.5} if activation == "leaky_relu2" else {}
    with torch.device("meta"):
        model = GPT(
            load_recipe(name).model,
            activation=activation,
            activation_params=params,
            num_positions=8,
        )
    return {name: torch.zeros(p.shape) for name, p in model.named_parameters()}


@pytest.mark.parametrize(("name", "activation", "num_bytes"), PUBLISHED)
def test_a_container_is_as_long_as_the_published_one(name, activation, num_bytes):
    config = load_recipe(name).quantization
    assert len(pack(weights_of(name, activation), config, "").plain) == num_bytes


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        (
            "pr1035",
            ["skip_weights", "tok_emb.weight", "blocks.0.attn_scale", "blocks.0.mlp_scale"],
            ["blocks.8.mlp.fc.weight", "blocks.8.mlp.proj.weight", "blocks.8.mlp.asqu.beta"],
        ),
        (
            "pr549",
            ["skip_weights", "blocks.0.attn.c_q.weight", "blocks.0.attn.proj.weight"],
            ["ve_shared.proj.weight", "ve_layer_scales.0", "ve_layer_scales.1"],
        ),
    ],
)
def test_tensors_have_the_published_names_in_the_published_order(name, first, last):
    names = [part.name for part in split(weights_of(name, "asqu"), banked=name != "pr1035")]
    assert names[: len(first)] == first
    assert names[-len(last) :] == last
    assert len(names) == len(set(names))


@pytest.mark.parametrize("banked", [False, True])
def test_parts_joined_are_the_parameters(banked):
    """Every number of them, where each is another one."""
    weights = weights_of("pr1176", "asqu")
    numbers = {
        name: torch.arange(1000 * i, 1000 * i + w.numel(), dtype=torch.float64).view(w.shape)
        for i, (name, w) in enumerate(weights.items())
    }
    parts = {part.name: part.of(numbers[part.parameter]) for part in split(numbers, banked=banked)}
    found = join(parts, banked=banked)
    assert found.keys() == numbers.keys()
    assert all(torch.equal(found[name], each) for name, each in numbers.items())


def test_a_parameter_without_a_published_name_is_an_error_and_not_lost():
    with pytest.raises(ValueError, match=r"moe\.gate: these have no published name"):
        split({"embed": torch.zeros(2, 2), "moe.gate": torch.zeros(2)}, banked=True)


def test_the_tables_are_those_of_the_scripts():
    """PR #1035 names the types of what it keeps in float16, of which its own recipe has none."""

    def content(name, **changes):
        config = load_recipe(name).quantization
        packed = pack(weights_of(name, "asqu"), config.model_copy(update=changes), "")
        return torch.load(io.BytesIO(packed.plain), weights_only=True)

    tables = ["__quant_format__", "quantized", "scales", "dtypes", "passthrough", "qmeta"]
    assert list(content("pr1035")) == tables
    many = content("pr1035", passthrough_numel=10**9)
    assert list(many) == [*tables[:-1], "passthrough_orig_dtypes"]
    assert many["passthrough_orig_dtypes"]["tok_emb.weight"] == "bfloat16"
    found = content("pr549")
    assert list(found) == ["w", "m"]
    assert found["m"]["tok_emb.weight"] == {"type": "int8"}
    assert found["m"]["blocks.3.mlp.fc.weight"] == {"type": "int6"}
    assert found["m"]["bigram.proj.weight"] == "passthrough"
