"""What becomes of which weight, how much it weighs, and that it is read as it was written."""

import io
import lzma
import pickle
import zlib

import pytest
import safetensors.torch
import torch

from tests.support.tiny import busy_model, default_params, tiny_recipe
from trainer.activations import ACTIVATIONS
from trainer.compress import QUANTIZERS, containers, dequantize, gptq
from trainer.compress.artifact import artifact_of, pack, payload_bytes, unpack
from trainer.compress.int8_row import int8_row, int8_vectors

HASH = "0123456789abcdef"
CONFIG = tiny_recipe().quantization
CHANGES = {
    "tiny": {},
    "zlib": {"compressor": "zlib", "preset": 9},
    "swapped": {"matrices": "int8_row", "embeddings": "int6_row"},
    "all quantized": {"passthrough_numel": 0},
    "floor": {"scale_floor": 1 / 31, "int8_scale_floor": 1 / 127},
    "as PR #549": {"container": "w_m", "int8_codes_by": "exact_scale"},
    "as PR #1035": {
        "matrices": "int8_row",
        "control": "float32",
        "large_control": "int8",
        "container": "int8_clean_per_row_v1",
        "int8_codes_by": "exact_scale",
    },
    "w_m, all quantized": {"container": "w_m", "passthrough_numel": 0},
    "PR #1035's, all quantized": {
        "large_control": "int8",
        "container": "int8_clean_per_row_v1",
        "passthrough_numel": 0,
    },
    "gptq": {"matrices": "gptq", "container": "w_m"},
    "gptq, all quantized": {"matrices": "gptq", "passthrough_numel": 0},
}
CONFIGS = {name: CONFIG.model_copy(update=changes) for name, changes in CHANGES.items()}
DECOMPRESS = {"lzma": lzma.decompress, "zlib": zlib.decompress}

# How the published scripts hold the parameters of this model: those of a layer by themselves.
ONE_PER_LAYER = {
    "qo_bank", "kv_bank", "up_bank", "down_bank", "q_gain_LH", "attn_scale_LD", "mlp_scale_LD",
    "resid_mix_L2D", "value_embedding.layer_scales",
}  # fmt: skip
EMBEDDINGS = {"embed", "bigram.embed", "value_embedding.embed"}
MATRICES = {"qo_bank", "kv_bank", "up_bank", "down_bank", "bigram.proj", "value_embedding.proj"}

every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
every_container = pytest.mark.parametrize(
    "container", ["safetensors", "w_m", "int8_clean_per_row_v1"]
)


def weights_of(activation="asqu"):
    model = busy_model(activation=activation, params=default_params(activation))
    return {name: p.detach() for name, p in model.named_parameters()}


def hessians_of(weights, seed=5):
    """Of inputs that have something in common, for every matrix of a bank and every projection."""
    draw = torch.Generator().manual_seed(seed)
    found = {}
    for name, w in weights.items():
        if name in MATRICES:
            num, size = len(w) if w.ndim == 3 else 1, w.size(-1)
            x = torch.randn(num, 3 * size, size, generator=draw)
            x += torch.randn(num, 3 * size, 1, generator=draw)
            found[name] = x.mT @ x
    return found


def published_numel(name, w):
    return w[0].numel() if name in ONE_PER_LAYER else w.numel()


def expected_of(weights, config, hessians=None):
    """Tensor by tensor through the quantizers, the rest through the type that it is kept in."""
    control = {"float16": torch.float16, "float32": torch.float32}[config.control]
    for name, w in weights.items():
        controls = name not in MATRICES | EMBEDDINGS
        if published_numel(name, w) <= config.passthrough_numel:
            yield name, w.to(control if controls else torch.float16).float()
        elif controls and (config.large_control == "float32" or w.ndim == 0):
            yield name, w
        elif controls:
            yield name, in_eight_bits(name, w, config)
        else:
            method = config.matrices if name in MATRICES else config.embeddings
            stack = w if w.ndim == 3 else w[None]
            if method == "gptq" and hessians and name in hessians:
                pairs = zip(stack, hessians[name], strict=True)
                parts = [gptq(each, config, h) for each, h in pairs]
            else:
                method = "int6_row" if method == "gptq" else method
                parts = [QUANTIZERS[method](each, config) for each in stack]
            yield name, torch.stack([dequantize(p.codes_RC, p.scale_R) for p in parts]).view_as(w)


def in_eight_bits(name, w, config):
    """Gains as PR #1035 writes large ones: a vector has one scale, a matrix one for each row."""
    parts = list(w) if name in ONE_PER_LAYER else [w]
    if parts[0].ndim == 2:
        found = [int8_row(part, config) for part in parts]
    elif parts[0].ndim == 1:
        found = [int8_vectors(part[None], config) for part in parts]
    else:  # a vector whose numbers are published one by one
        return w
    return torch.cat([dequantize(each.codes_RC, each.scale_R) for each in found]).view_as(w)


def stored_tensors(packed, config):
    """Every tensor in an artifact, by table and name where its container has several tables."""
    plain = DECOMPRESS[config.compressor](artifact_of(packed, config))
    if config.container == "safetensors":
        return safetensors.torch.load(plain)
    content = torch.load(io.BytesIO(plain), weights_only=True)
    if config.container == "w_m":
        return content["w"]
    tables = ("quantized", "scales", "passthrough")
    return {(table, name): each for table in tables for name, each in content[table].items()}


# -- what is written is what is read


@pytest.mark.parametrize(
    ("activation", "config"),
    [("asqu", config) for config in CONFIGS.values()]
    + [
        (activation, CONFIGS[name])
        for activation in ACTIVATIONS
        for name in ("as PR #549", "as PR #1035")
    ],
)
def test_what_is_read_are_the_dequantized_weights_exactly(config, activation):
    weights = weights_of(activation)
    hessians = hessians_of(weights)
    packed = pack(weights, config, HASH, hessians=hessians)
    found = unpack(artifact_of(packed, config), config)
    expected = dict(expected_of(weights, config, hessians))
    assert found.keys() == weights.keys()
    for name, w in found.items():
        assert w.dtype == torch.float32
        assert torch.equal(w, expected[name]), name


@every_config
def test_equal_weights_give_equal_bytes_and_stay_as_they_are(config):
    weights = weights_of()
    packed = pack(weights, config, HASH)
    assert packed == pack(weights_of(), config, HASH)
    assert artifact_of(packed, config) == artifact_of(packed, config)
    assert all(torch.equal(weights[name], w) for name, w in weights_of().items())


# -- what becomes of which tensor


@every_container
def test_a_tensor_changes_its_form_where_its_published_size_exceeds_the_limit(container):
    """One layer of a stack counts, and a scalar of the value embedding by itself. Up to the limit:
    float32 if it controls, float16 if not. Beyond: float32 if it controls, codes if not."""
    weights = weights_of()
    for numel in (0, 1, 31, 32, 63, 64, 511, 512, 1023, 1024, 2048, 10**9):
        config = CONFIG.model_copy(
            update={"passthrough_numel": numel, "container": container, "control": "float32"}
        )
        stored, _ = containers.content(pack(weights, config, HASH).plain, config)
        for name, w in weights.items():
            if name not in MATRICES | EMBEDDINGS:
                assert stored.pop(name).dtype == torch.float32
            elif published_numel(name, w) <= numel:
                assert stored.pop(name).dtype == torch.float16
            else:
                assert stored.pop(f"{name}.codes").dtype == torch.int8
                assert stored.pop(f"{name}.scale").dtype == torch.float16
        assert not stored


def test_small_control_tensors_are_rounded_to_float16_where_asked_and_large_ones_never():
    weights = weights_of()
    for numel in (0, 1, 31, 32, 64, 10**9):
        config = CONFIG.model_copy(update={"passthrough_numel": numel, "control": "float16"})
        found = unpack(artifact_of(pack(weights, config, HASH), config), config)
        for name in weights.keys() - MATRICES - EMBEDDINGS:
            rounded = published_numel(name, weights[name]) <= numel
            expected = weights[name].half().float() if rounded else weights[name]
            assert torch.equal(found[name], expected), name


@pytest.mark.parametrize("name", ["as PR #549", "as PR #1035"])
def test_a_published_tensor_holds_its_own_numbers_and_no_more(name):
    """A slice saved as it is would bring the numbers of all layers with it."""
    stored = stored_tensors(pack(weights_of(), CONFIGS[name], HASH), CONFIGS[name])
    for name, tensor in stored.items():
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.itemsize, name


@every_config
@pytest.mark.parametrize("activation", ["asqu", "relu2"])
def test_the_payload_is_counted_from_shapes_as_it_is_stored(config, activation):
    weights = weights_of(activation)
    stored = stored_tensors(pack(weights, config, HASH), config)
    nameless = {name: torch.empty_like(w, device="meta") for name, w in weights.items()}
    expected = sum(tensor.numel() * tensor.itemsize for tensor in stored.values())
    assert payload_bytes(nameless, config) == expected


# -- what is counted


def test_the_fraction_of_rows_at_the_floor_is_counted():
    """Rows that are all zero sit at the floor, rows of thousands do not."""
    low, high = torch.zeros(30, 64), torch.full((10, 64), 5e3)
    config = CONFIGS["floor"]
    packed = pack({"embed": torch.cat([low, high]), "other": torch.ones(3)}, config, HASH)
    assert packed.floored_rows == 30 / 40
    assert pack(weights_of(), CONFIG, HASH).floored_rows == 0.0
    assert pack({"other": torch.ones(3)}, config, HASH).floored_rows is None


def test_matrices_that_gptq_leaves_to_int6_are_counted():
    """Without any Hessian all that exceed the limit, else those whose Hessian has no inverse."""
    weights, config = weights_of(), CONFIGS["gptq"].model_copy(update={"passthrough_numel": 512})
    hessians = hessians_of(weights)
    large = [name for name in hessians if published_numel(name, weights[name]) > 512]
    num_matrices = sum(len(hessians[name]) for name in large)
    assert pack(weights, config, HASH).gptq_fallbacks == num_matrices
    assert pack(weights, config, HASH, hessians=hessians).gptq_fallbacks == 0
    hessians["up_bank"][1] = torch.nan
    assert pack(weights, config, HASH, hessians=hessians).gptq_fallbacks == 1
    assert pack(weights, CONFIG, HASH, hessians=hessians).gptq_fallbacks is None


# -- what is read


class Called:
    """Pickled, this is a call."""

    ran = False

    def __reduce__(self):
        return setattr, (Called, "ran", True)


def test_a_call_in_an_artifact_is_not_made():
    buffer = io.BytesIO()
    torch.save({"w": {"tok_emb.weight": Called()}, "m": {"tok_emb.weight": "passthrough"}}, buffer)
    with pytest.raises(pickle.UnpicklingError):
        unpack(lzma.compress(buffer.getvalue()), CONFIGS["as PR #549"])
    assert not Called.ran
