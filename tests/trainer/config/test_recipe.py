"""A recipe holds every value that is typed, and refuses every word that it does not know."""

import itertools
import json
import math
import random
import typing

import pytest
from pydantic import BaseModel

from tests.support.tiny import tiny_recipe
from trainer.config import RECIPES, Recipe, load_recipe, parse_override
from trainer.config.config_errors import ConfigError, find_config
from trainer.contract import canonical_json, recipe_hash, short_hash

# Another valid value for every value that a recipe has; the test below fails where one is missing.
CHANGES = {
    "data.dataset": "another",
    "data.loader": "coprime",
    "data.virtual_world": 2,
    "data.seed_names": "data/elsewhere/",
    "data.coprime.anneal_calls": 5,
    "data.coprime.exponent_start": 0.8,
    "data.coprime.exponent_end": 0.4,
    "data.coprime.mix_start": 2,
    "data.coprime.mix_end": 3,
    "model.vocab_size": 1024,
    "model.num_layers": 3,
    "model.width": 64,
    "model.num_heads": 4,
    "model.num_kv_heads": 2,
    "model.mlp_hidden": 96,
    "model.rope_dims": 4,
    "model.rope_base": 500.0,
    "model.rope_ntk_len": 16,
    "model.rope_frequencies": "rounded",
    "model.qk_gain": 2.5,
    "model.xsa_last_layers": 2,
    "model.smear_gate": False,
    "model.layer_scale": "none",
    "model.logit_softcap": 15.0,
    "model.init": "kaiming",
    "model.embed_init_std": 0.01,
    "model.orthogonal_min_dim": 8,
    "model.bigram.vocab_size": 300,
    "model.bigram.dim": 32,
    "model.bigram.scale": 0.2,
    "model.bigram.factors": [3, 5],
    "model.value_embedding.layers": [0, 1],
    "model.value_embedding.dim": 8,
    "model.value_embedding.scale": 0.2,
    "model.value_embedding.init_std": 0.02,
    "train.seq_len": 16,
    "train.batch_tokens": 512,
    "train.micro_steps": 4,
    "train.warmup_steps": 0,
    "train.warmdown_steps": 5,
    "train.late_qat_below": 0.15,
    "train.equal_cost": True,
    "optim.matrix_lr": 0.03,
    "optim.embed_lr": 0.04,
    "optim.scalar_lr": 0.05,
    "optim.activation_lr": 0.01,
    "optim.grad_clip": 1.0,
    "optim.clip": "per_shard",
    "optim.weight_decay": 0.1,
    "optim.adam_weight_decay": 0.2,
    "optim.gain_weight_decay": 0.3,
    "optim.adam_beta1": 0.8,
    "optim.adam_beta2": 0.99,
    "optim.adam_eps": 1e-6,
    "optim.muon_momentum": 0.9,
    "optim.muon_momentum_start": 0.5,
    "optim.muon_momentum_warmup_steps": 7,
    "optim.muon_momentum_dtype": "compute",
    "optim.newton_schulz_steps": 6,
    "optim.newton_schulz": [3.0, -4.0, 2.0],
    "averaging.kind": "none",
    "averaging.decay": 0.5,
    "quantization.matrices": "int8_row",
    "quantization.embeddings": "int6_row",
    "quantization.passthrough_numel": 0,
    "quantization.compressor": "zlib",
    "quantization.preset": 1,
    "quantization.control": "float32",
    "quantization.large_control": "int8",
    "quantization.container": "w_m",
    "quantization.quantile_rank": "float32",
    "quantization.scale_floor": 0.01,
    "quantization.percentiles": [0.9, 1.0],
    "quantization.int8_scale_floor": 0.02,
    "quantization.int8_clip": 0.99,
    "quantization.int8_codes_by": "exact_scale",
    "quantization.gptq.calibration": "generated",
    "quantization.gptq.batches": 3,
    "quantization.gptq.sequences": 4,
    "quantization.gptq.sequence_batch": 2,
    "quantization.gptq.temperature": 0.5,
    "quantization.gptq.damping": 0.02,
    "quantization.gptq.block": 16,
    "quantization.gptq.reserve_s": 1.0,
    "quantization.prune_to_bytes": 100000,
    "scoring.seq_len": 64,
    "scoring.stride": 32,
    "scoring.batch_seqs": 7,
    "scoring.max_targets": 1024,
    "scoring.tail": "published",
    "scoring.every_steps": 2,
    "ttt.optimizer": "muon",
    "ttt.lr": 0.1,
    "ttt.momentum": 0.5,
    "ttt.epochs": 2,
    "ttt.chunk_tokens": 64,
    "ttt.batch_seqs": 3,
    "ttt.grad_clip": 0.5,
    "ttt.freeze_layers": 1,
    "ttt.freeze_matrices": False,
    "ttt.late_qat": True,
    "slot.mode": "causal",
    "slot.lr": 0.1,
    "slot.steps": 2,
    "slot.batch_seqs": 3,
    "slot.beta1": 0.5,
    "slot.beta2": 0.5,
    "slot.eps": 0.1,
    "slot.weight_decay": 0.1,
    "artifact.code_bytes": 1,
    "artifact.cap_bytes": 1000,
    "artifact.train_cap_s": 30.0,
    "artifact.eval_cap_s": 40.0,
}
# The recipe in which each of them can be changed alone.
BASE = {"data.virtual_world": 1, "ttt.momentum": 0.0, "slot.mode": "published"}
# An averaging without a decay cannot be reached by one --set from a recipe that has one: TOML has
# no word for "absent". Its table is replaced as a whole.
NEEDS_ITS_TABLE = {"averaging.kind": {"averaging": {"kind": "none"}}}


def model_in(annotation):
    """The model type that a field holds, None if it holds a plain value."""
    options = (annotation, *typing.get_args(annotation))
    found = [each for each in options if isinstance(each, type) and issubclass(each, BaseModel)]
    return found[0] if found else None


def paths(kind, prefix=()):
    """Every ``section.key`` of a recipe, those of optional tables too."""
    for name, each in kind.model_fields.items():
        inner = model_in(each.annotation)
        if inner is None:
            yield ".".join((*prefix, name))
        else:
            yield from paths(inner, (*prefix, name))


def value_at(recipe, path):
    for part in path.split("."):
        recipe = getattr(recipe, part)
    return recipe


def as_tuple(value):
    return tuple(value) if isinstance(value, list) else value


def changed(path):
    overrides = NEEDS_ITS_TABLE.get(path)
    if overrides is None:
        overrides = dict([parse_override(f"{path}={json.dumps(CHANGES[path])}")])
    return full_recipe(overrides)


def full_recipe(overrides=None):
    """``tiny`` with every optional section."""
    return tiny_recipe(BASE | (overrides or {}))


PATHS = sorted(paths(Recipe))


# -- every value is reached


def test_the_changes_name_every_value_of_a_recipe():
    assert sorted(CHANGES) == PATHS


def test_set_reaches_each_value_alone_and_the_hash_tells():
    before = full_recipe()
    hashes = {recipe_hash(before)}
    for path in PATHS:
        after = changed(path)
        assert value_at(after, path) == as_tuple(CHANGES[path]) != value_at(before, path), path
        others = set(PATHS) - {path} - ({"averaging.decay"} if path == "averaging.kind" else set())
        assert all(value_at(after, other) == value_at(before, other) for other in others), path
        hashes.add(recipe_hash(after))
    assert len(hashes) == 1 + len(PATHS)


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("*.toml")))
def test_every_recipe_of_the_repository_is_valid(name):
    assert load_recipe(name) == load_recipe(str(RECIPES / f"{name}.toml"))


# -- no other word is


def test_a_misspelt_key_is_refused_with_the_known_ones_and_the_nearest():
    for path in PATHS:
        section, _, leaf = path.rpartition(".")
        wrong = f"{path}{path[-1]}"
        with pytest.raises(ConfigError, match="unknown key") as caught:
            full_recipe({wrong: CHANGES[path]})
        message = str(caught.value)
        assert wrong in message
        assert f"Did you mean {leaf!r}?" in message
        kind = value_at(full_recipe(), section).__class__
        assert f"Known keys here: {', '.join(sorted(kind.model_fields))}." in message
        assert "\n" not in message


def test_an_unknown_section_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"modle: unknown key\. Did you mean 'model'\?.*scoring"):
        tiny_recipe({"modle.width": 64})


def wrong_values(right):
    """A value of every other type; an integer is a number too, and an infinite one is none."""
    accepted = (int, float) if isinstance(right, float) else (type(right),)
    others = ["7", 7, 1.5, True, ["7"], {"a": 1}]
    wrong = [each for each in others if type(each) not in accepted]
    return [*wrong, math.nan, math.inf, *([[1.5]] if isinstance(right, list) else [])]


def test_a_value_of_another_type_is_refused_by_name():
    for path, wrong in ((p, each) for p in PATHS for each in wrong_values(CHANGES[p])):
        if path == "data.seed_names" and wrong == ["7"]:
            continue  # a list of names is a value of this key, beside a folder's name
        with pytest.raises(ConfigError) as caught:
            full_recipe({path: wrong})
        assert f"recipe tiny: {path}" in str(caught.value), wrong


def test_an_override_that_is_none_is_refused_with_an_example():
    for text in ("model.width", "=3", ""):
        with pytest.raises(ConfigError, match=r"section\.key=value"):
            parse_override(text)


def test_a_key_below_a_value_is_refused():
    with pytest.raises(ConfigError, match="width is a value, not a section"):
        tiny_recipe({"model.width.x": 3})


MISFITS = [
    ({"model.width": 33}, "width 33 is not divisible by num_heads 2"),
    ({"model.num_heads": 4, "model.num_kv_heads": 3}, "num_heads 4 .* num_kv_heads 3"),
    ({"model.rope_dims": 7}, "rope_dims 7 must be even"),
    ({"model.rope_dims": 18}, "rope_dims 18 .* head dimension 16"),
    ({"model.xsa_last_layers": 3}, "xsa_last_layers 3 is more than num_layers 2"),
    ({"model.value_embedding.layers": [2]}, r"layers \[2\] do not exist.*0 to 1"),
    ({"model.value_embedding.layers": [-1]}, r"layers \[-1\] do not exist"),
    ({"model.value_embedding.layers": []}, "layers"),
    ({"model.value_embedding.layers": [1, 1]}, "names a layer twice"),
    ({"train.batch_tokens": 100}, "batch_tokens 100 .* micro_steps 2 x seq_len 32"),
    ({"scoring.stride": 12}, "stride 12 does not divide seq_len 32"),
    ({"scoring.stride": 64}, "stride 64 does not divide seq_len 32"),
    ({"ttt.chunk_tokens": 100}, r"chunk_tokens 100 .*seq_len 32"),
    ({"averaging.kind": "none"}, "takes none"),
    ({"averaging": {"kind": "ema"}}, "needs a decay"),
    ({"optim.adam_beta1": 1.0}, "adam_beta1"),
    ({"optim.matrix_lr": -0.1}, "matrix_lr"),
    ({"data.dataset": "../elsewhere"}, "dataset"),
    ({"data.loader": "coprime"}, "micro_steps 2 .*virtual_world 8"),
    ({"model.rope_ntk_len": 16, "model.rope_dims": 2}, "rope_ntk_len 16 needs rope_dims"),
    ({"optim.clip": "per_shard", "optim.grad_clip": None}, "per_shard.* without grad_clip"),
    ({"data.seed_names": []}, "seed_names is empty: give a folder"),
    ({"slot": "illegal"}, "slot.mode"),
    ({"ttt.optimizer": "muon"}, "momentum = 0.9: test-time Muon has none"),
    ({"ttt.freeze_layers": 3}, "freeze_layers 3 is more than model.num_layers 2"),
    ({"quantization.prune_to_bytes": 16_000_001}, "16000001 .*cap_bytes 16000000"),
    ({"quantization.prune_to_bytes": 89458}, "89458 must be more than artifact.code_bytes"),
]


def test_values_that_do_not_fit_each_other_are_refused_with_both():
    for overrides, message in MISFITS:
        with pytest.raises(ConfigError, match=message) as caught:
            tiny_recipe(overrides)
        assert "\n" not in str(caught.value)


def test_a_missing_value_is_named(tmp_path):
    text = (RECIPES / "tiny.toml").read_text()
    (tmp_path / "short.toml").write_text(text.replace("mlp_hidden = 64\n", ""))
    with pytest.raises(ConfigError, match=r"recipe short: model\.mlp_hidden: .* required"):
        load_recipe(str(tmp_path / "short.toml"))


def test_an_unknown_recipe_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"Did you mean 'tiny'\? Known: .*local.*tiny"):
        load_recipe("tinny")


@pytest.mark.parametrize(("content", "message"), [(b"[data", "not valid TOML"), (b"\xff", "UTF-8")])
def test_a_file_that_is_no_toml_is_named(tmp_path, content, message):
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        load_recipe(str(path))
    assert str(path) in str(caught.value)


def test_a_recipe_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        tiny_recipe().model.width = 64


# -- equal content has equal hashes


def shuffled(value, draw):
    """The same table with its keys in another order, at every level."""
    if not isinstance(value, dict):
        return value
    items = list(value.items())
    draw.shuffle(items)
    return {key: shuffled(inner, draw) for key, inner in items}


def test_the_order_of_keys_does_not_matter():
    table = tiny_recipe().model_dump(mode="json")
    for seed in range(3):
        other = shuffled(table, random.Random(seed))
        assert list(other) != list(table) or list(other["model"]) != list(table["model"])
        assert recipe_hash(Recipe.model_validate(other)) == recipe_hash(tiny_recipe())
        assert canonical_json(other) == canonical_json(table)


def test_two_writings_of_a_number_are_one_value_and_eleven_digits_tell_two_apart():
    """Not claimed for differences beyond the twelfth digit, which count as rounding."""
    for one, same in ((0.1 + 0.2, 0.3), (1.0, 1), (0.07 * 100 / 100, 0.07), (-0.0, 0.0)):
        first, second = (tiny_recipe({"model.bigram.scale": each}) for each in (one, same))
        assert recipe_hash(first) == recipe_hash(second)
    for nearby in (0.3 + 1e-9, 0.3 * (1 + 1e-11)):
        assert short_hash({"lr": nearby}) != short_hash({"lr": 0.3})


def test_what_json_confuses_is_kept_apart():
    values = [1, "1", True, None, [], {}, "", 0, "null", [1], {"1": 1}]
    for one, other in itertools.combinations(values, 2):
        assert canonical_json(one) != canonical_json(other)


def test_an_optional_value_or_table_is_left_out_by_giving_it_nothing():
    given = ["averaging.kind=none", "averaging.decay=", "ttt=", "model.bigram=", "optim.grad_clip="]
    recipe = load_recipe("tiny", dict(map(parse_override, given)))
    assert (recipe.averaging.kind, recipe.averaging.decay) == ("none", None)
    assert (recipe.ttt, recipe.model.bigram, recipe.optim.grad_clip) == (None, None, None)


def test_a_required_value_cannot_be_left_out_nor_a_section_forgotten():
    for text, message in (
        ("model.width=", "model.width: this key is required"),
        ("width=3", "width: unknown key"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_recipe("tiny", dict([parse_override(text)]))


def test_slot_may_be_given_by_its_mode_alone():
    for mode in ("published", "causal"):
        assert tiny_recipe({"slot": mode}) == tiny_recipe({"slot.mode": mode})


def test_an_installation_without_its_configs_says_so(tmp_path):
    with pytest.raises(ConfigError, match=r"no folder .*recipes\. Run from a clone"):
        find_config("local", tmp_path / "recipes", "recipe")
