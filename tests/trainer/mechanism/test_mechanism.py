"""What is measured of layers and tensors is so, and measuring changes no answer."""

import lzma

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import scipy.stats
import torch

from tests.support.killed import statuses
from tests.support.metered import MeteredWorld
from tests.support.tiny import (
    activation_cases,
    answer,
    busy_model,
    random_stream,
    random_tokens,
    run_cell,
    tiny_model,
    tiny_recipe,
    tiny_spec,
)
from trainer.activations import ACTIVATIONS
from trainer.cell import run
from trainer.compress import QUANTIZERS
from trainer.compress.artifact import artifact_of, contained_weights, pack
from trainer.contract import ARTIFACT_FILE, LAYER_COLUMNS, LAYER_MEASURES, LAYERS_FILE
from trainer.mechanism.measure import (
    SAMPLE_TOKENS,
    activation_rows,
    class_of,
    validation_sample,
    weight_rows,
)

HASH = "0123456789abcdef"
SAMPLE = random_tokens(8, 32)
FLOORS = {"scale_floor": 0.02, "int8_scale_floor": 0.005}
CONFIGS = {
    "tiny": {},
    "everything in codes": {"passthrough_numel": 1, "container": "w_m", **FLOORS},
    "GPTQ": {"passthrough_numel": 1, "matrices": "gptq", "compressor": "zlib"},
}
# Sums of 8 · 32 · 64 numbers in float64, in another order.
ROUNDING = 2.0**-36


def config_of(name):
    return tiny_recipe().quantization.model_copy(update=CONFIGS[name])


def packed_of(model, config):
    return pack(dict(model.named_parameters()), config, HASH)


def table(rows):
    return {(row.kind, row.name, row.layer, row.measure): row.value for row in rows}


def measured(model, config=None, at_once=1):
    config = config or config_of("tiny")
    weights = {name: p.detach() for name, p in model.named_parameters()}
    of_weights = weight_rows(weights, packed_of(model, config), config, at_once)
    return table([*activation_rows(model, SAMPLE), *of_weights])


def seen_by_hooks(model, num_at_once):
    """(x, f(x)) of every layer on the whole sample, as the modules of the activation have them."""
    seen = [[] for _ in model.activations]
    hooks = [
        module.register_forward_hook(lambda _, xs, f, at=at: at.append((xs[0], f)))
        for module, at in zip(model.activations, seen, strict=True)
    ]
    with torch.inference_mode():
        for tokens in SAMPLE.split(num_at_once):
            model.body(tokens)
    for hook in hooks:
        hook.remove()
    return [
        [torch.cat(each).flatten(0, 1).double().numpy() for each in zip(*at, strict=True)]
        for at in seen
    ]


# -- activations


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_is_measured_as_its_own_module_saw_it(monkeypatch, name):
    """Batch by batch, against the whole at once, in the precision of the published runs."""
    monkeypatch.setattr("trainer.mechanism.measure.BATCH_TOKENS", 64)
    model = busy_model(activation=name, dtype=torch.bfloat16)
    found = table(activation_rows(model, SAMPLE))
    for layer, (x, f) in enumerate(seen_by_hooks(model, num_at_once=2)):
        rms = np.sqrt(np.mean(f**2))
        expected = {
            "negative_fraction": np.mean(x <= 0),
            "nonzero_fraction": np.mean(f != 0),
            "density": np.mean(np.abs(f) > 0.01 * rms),
            "dead_channels": np.mean(np.all(f == 0, axis=0)),
            "never_positive_channels": np.mean(np.all(x <= 0, axis=0)),
            "hidden_rms": rms,
            "hidden_kurtosis": scipy.stats.kurtosis(f, axis=None),
        }
        for measure, value in expected.items():
            close = pytest.approx(value, rel=ROUNDING, abs=ROUNDING)
            assert found["activation", "mlp", layer, measure] == close, measure


def test_a_channel_is_dead_where_nothing_comes_out_of_it():
    """Three of 64 channels are given nothing. The others have a negative side, unless ReLU²."""
    for name, cut in (("leaky_relu2", False), ("relu2", True)):
        model = busy_model(activation=name)
        with torch.no_grad():
            model.up_bank[1, :3] = 0.0
        found = table(activation_rows(model, SAMPLE))
        dead = [found["activation", "mlp", layer, "dead_channels"] for layer in range(2)]
        never = [found["activation", "mlp", layer, "never_positive_channels"] for layer in range(2)]
        assert never[1] >= 3 / 64
        assert dead == (never if cut else [0.0, 3 / 64])


QUANTILES = {"min": 0, "q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95, "max": 1}


@pytest.mark.parametrize(("name", "params"), activation_cases())
def test_the_quantiles_of_beta_are_there_where_it_is_learned(name, params):
    model = tiny_model(activation=name, params=params)
    if ACTIVATIONS[name].learns_beta:
        with torch.no_grad():
            for parameter in model.activations.parameters():
                parameter += torch.linspace(-1, 1, parameter.numel())
    found = table(activation_rows(model, SAMPLE[:1]))
    quantiles = {key: value for key, value in found.items() if key[3].startswith("beta")}
    assert bool(quantiles) == ACTIVATIONS[name].learns_beta
    for (_, _, layer, measure), value in quantiles.items():
        q = QUANTILES[measure.removeprefix("beta_")]
        beta = model.activations[layer].beta.detach().double().numpy()
        assert value == pytest.approx(np.quantile(beta, q), rel=ROUNDING)


@pytest.mark.parametrize(
    ("num_targets", "length", "num"),
    [(64, 32, 2), (95, 32, 2), (32, 32, 1), (SAMPLE_TOKENS + 64, 32, SAMPLE_TOKENS // 32),
     (2 * SAMPLE_TOKENS, 2 * SAMPLE_TOKENS, 1)],
)  # fmt: skip
def test_the_sample_is_the_first_whole_windows(num_targets, length, num):
    stream = random_stream(num_targets)
    sample = validation_sample(stream, length)
    assert sample.shape == (num, length)
    assert torch.equal(sample.flatten(), stream.tokens[: num * length])


# -- tensors


def matrices_of(model):
    """(label, layer, name, index of the matrix) of every weight, from the model's own layout."""
    layers = model.config.num_layers
    for label, first in (("q", 0), ("o", layers)):
        yield from ((f"qo_bank.{label}", n, "qo_bank", first + n) for n in range(layers))
    for label, first in (("k", 0), ("v", layers)):
        yield from ((f"kv_bank.{label}", n, "kv_bank", first + n) for n in range(layers))
    for name in ("up_bank", "down_bank"):
        yield from ((name, n, name, n) for n in range(layers))
    for name in ("embed", "bigram.embed", "bigram.proj", "value_embedding.embed"):
        yield name, None, name, ...


@pytest.mark.parametrize("name", CONFIGS)
def test_every_weight_is_compared_with_what_the_artifact_gives_back(name):
    config, model = config_of(name), busy_model()
    found, weights = measured(model, config), dict(model.named_parameters())
    read_back = contained_weights(packed_of(model, config).plain, config)
    expected = list(matrices_of(model))
    assert {key[1:3] for key in found if key[0] == "tensor"} == {each[:2] for each in expected}
    for label, layer, parameter, index in expected:
        w = weights[parameter].detach()[index].double().numpy()
        error = np.mean((w - read_back[parameter][index].double().numpy()) ** 2)
        rms = np.sqrt(np.mean(w**2))
        values = {
            "rms": rms,
            "kurtosis": scipy.stats.kurtosis(w, axis=None),
            "weight_density": np.mean(np.abs(w) > 0.1 * rms),
            "quant_mse": error,
            "quant_mse_relative": error / rms**2,
        }
        for measure, value in values.items():
            close = pytest.approx(value, rel=ROUNDING, abs=ROUNDING * rms**2)
            assert found["tensor", label, layer, measure] == close, (label, measure)


def test_codes_are_measured_where_there_are_codes():
    """By the quantizers themselves."""
    config, model = config_of("everything in codes"), busy_model()
    found, weights = measured(model, config), dict(model.named_parameters())
    for label, layer, parameter, index in matrices_of(model):
        quantize = QUANTIZERS["int8_row" if parameter.endswith("embed") else "int6_row"]
        quantized = quantize(weights[parameter].detach()[index], config)
        codes = quantized.codes_RC.flatten().tolist()
        p = np.unique(codes, return_counts=True)[1] / len(codes)
        values = {
            "zero_codes": codes.count(0) / len(codes),
            "code_entropy_bits": -np.sum(p * np.log2(p)),
            "floored_rows": quantized.floored_rows / len(quantized.scale_R),
        }
        for measure, value in values.items():
            close = pytest.approx(value, rel=ROUNDING, abs=ROUNDING)
            assert found["tensor", label, layer, measure] == close, (label, measure)
    plain = measured(model)
    kept = {key[1] for key, value in plain.items() if key[3] == "zero_codes" and value is None}
    assert kept == {"qo_bank.q", "qo_bank.o", "kv_bank.k", "kv_bank.v", "bigram.proj"}


def test_the_floored_rows_of_the_tensors_are_those_of_the_report():
    config, model = config_of("everything in codes"), busy_model()
    packed, weights = packed_of(model, config), dict(model.named_parameters())
    found = measured(model, config)
    rows = [
        (weights[parameter][index].size(0), found["tensor", label, layer, "floored_rows"])
        for label, layer, parameter, index in matrices_of(model)
    ]
    total = sum(num * fraction for num, fraction in rows) / sum(num for num, _ in rows)
    assert total == pytest.approx(packed.floored_rows, rel=ROUNDING)
    assert 0 < total < 1


def test_what_is_not_defined_is_absent():
    """Output projections begin at zero: no tails, and no error relative to nothing."""
    model = tiny_model()
    assert not model.down_bank.any()
    found = measured(model)
    of_it = {key[3]: value for key, value in found.items() if key[1:3] == ("down_bank", 0)}
    assert {name for name, value in of_it.items() if value is None} == {
        "kurtosis",
        "quant_mse_relative",
    }
    assert (of_it["zero_codes"], of_it["code_entropy_bits"], of_it["rms"]) == (1.0, 0.0, 0.0)


# -- classes


@pytest.mark.parametrize("name", CONFIGS)
def test_the_classes_share_the_weights_and_the_bytes(name):
    """Each class has a header, a recipe and a frame of its own: at most 300 bytes more than its
    part, in the container of torch (a zip archive and its pickle) 900. Beyond that the sum differs
    by what a compressor learns of one class for another, below 2 %."""
    config, model = config_of(name), busy_model()
    packed = packed_of(model, config)
    rows = measured(model, config)
    classes = {key[1]: {} for key in rows if key[0] == "class"}
    for (kind, label, layer, measure), value in rows.items():
        if kind == "class":
            assert layer is None
            classes[label][measure] = value
    assert set(classes) == {class_of(name) for name, _ in model.named_parameters()}
    assert sum(each["num_weights"] for each in classes.values()) == sum(
        p.numel() for p in model.parameters()
    )
    own = 900 if config.container == "w_m" else 300
    total = sum(each["compressed_bytes"] for each in classes.values())
    whole = len(artifact_of(packed, config))
    assert abs(total - whole) <= own * len(classes) + 0.02 * whole
    for each in classes.values():
        assert each["bits_per_weight"] == 8 * each["compressed_bytes"] / each["num_weights"]


def test_a_class_is_compressed_as_the_artifact_is_and_alone():
    config, model = config_of("tiny"), busy_model()
    packed = packed_of(model, config)
    tensors = safetensors.torch.load(packed.plain)
    part = {key: t for key, t in tensors.items() if key.startswith(("up_bank", "down_bank"))}
    plain = safetensors.torch.save(part, metadata={"recipe_hash": HASH})
    found = measured(model, config)
    expected = len(lzma.compress(plain, preset=config.preset))
    assert found["class", "mlp", None, "compressed_bytes"] == expected


def test_classes_compressed_at_once_are_those_compressed_in_turn():
    """As beside a GPU."""
    model = busy_model()
    assert measured(model, at_once=6) == measured(model)


# -- the file


def test_the_file_has_the_columns_and_the_measures_that_are_promised(data_dir, tmp_path):
    report = run_cell(tiny_spec(data_dir, activation="asqu"), tmp_path)
    found = pq.read_table(tmp_path / LAYERS_FILE)
    types = [pa.string(), pa.string(), pa.int64(), pa.string(), pa.float64()]
    assert found.schema.equals(pa.schema(list(zip(LAYER_COLUMNS, types, strict=True))))
    rows = found.to_pylist()
    assert {(row["measure"], row["kind"]) for row in rows} == {
        (name, measure.kind) for name, measure in LAYER_MEASURES.items()
    }
    assert len({tuple(row.values())[:4] for row in rows}) == len(rows)
    assert report.mechanism_s > 0


def test_measuring_changes_no_bit_of_the_answer(monkeypatch, data_dir, tmp_path):
    spec = tiny_spec(data_dir, activation="asqu", overrides={"slot": SLOT})
    measured_ = run_cell(spec, tmp_path / "with")
    for half in ("activation_rows", "weight_rows"):
        monkeypatch.setattr(f"trainer.cell.{half}", lambda *arguments: ())
    plain = run_cell(spec, tmp_path / "without")
    assert answer(measured_) == answer(plain)
    artifacts = [(tmp_path / name / ARTIFACT_FILE).read_bytes() for name in ("with", "without")]
    assert artifacts[0] == artifacts[1]
    sizes = [len(pq.read_table(tmp_path / name / LAYERS_FILE)) for name in ("with", "without")]
    assert sizes[0] > sizes[1] == 0


SLOT = {"mode": "causal", "lr": 0.01, "steps": 1, "batch_seqs": 8}


@pytest.mark.slow
def test_two_ranks_leave_the_file_of_one(data_dir, tmp_path):
    """At a rate of zero both have the weights that the seed gives, whatever they sum."""
    still = {f"optim.{kind}_lr": 0.0 for kind in ("matrix", "embed", "scalar", "activation")}
    spec = tiny_spec(data_dir, activation="asqu", budget="1steps", overrides=still)
    for num_ranks in (1, 2):
        out = tmp_path / str(num_ranks)
        assert statuses(spec, out, None, num_ranks=num_ranks) == [0] * num_ranks
    one, two = ((tmp_path / name / LAYERS_FILE).read_bytes() for name in ("1", "2"))
    assert one == two


def test_its_memory_does_not_count_on_a_device_that_can_forget(monkeypatch, data_dir, tmp_path):
    world = MeteredWorld(0, 1, torch.device("cpu"))

    def greedy(*arguments):
        world.peak.append(10**9)
        return ()

    monkeypatch.setattr("trainer.cell.activation_rows", greedy)
    report = run(tiny_spec(data_dir), tmp_path, world)
    assert world.peak.count(10**9) == 1
    assert report.peak_memory_bytes == 1000
