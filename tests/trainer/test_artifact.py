"""What is written is what is read: exactly, as data alone, and for one recipe only."""

import lzma
import pickle
import zlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load

from tests.support.tiny import busy_model, default_params, tiny_recipe
from trainer.activations import ACTIVATIONS
from trainer.artifact import pack, unpack
from trainer.optim import kind_of
from trainer.quantizers import QUANTIZERS, dequantize
from trainer.strict import ConfigError

HASH = "0123456789abcdef"
CONFIG = tiny_recipe().quantization
CONFIGS = {
    "tiny": CONFIG,
    "zlib": CONFIG.model_copy(update={"compressor": "zlib", "preset": 9}),
    "swapped": CONFIG.model_copy(update={"matrices": "int8_row", "embeddings": "int6_row"}),
    "all quantized": CONFIG.model_copy(update={"passthrough_numel": 0}),
    "floor": CONFIG.model_copy(update={"scale_floor": 1 / 31}),
}
DECOMPRESS = {"lzma": lzma.decompress, "zlib": zlib.decompress}

every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


def weights_of(activation="asqu"):
    model = busy_model(activation=activation, params=default_params(activation))
    return {name: p.detach() for name, p in model.named_parameters()}


def expected_of(weights, config):
    """Matrix by matrix through the quantizers, the rest through float16."""
    methods = {"matrices": config.matrices, "embeddings": config.embeddings}
    for name, w in weights.items():
        stack = w if w.ndim == 3 else w[None]
        method = methods.get(kind_of(name))
        if method is None or stack[0].numel() <= config.passthrough_numel:
            yield name, w.half().float()
        else:
            parts = [QUANTIZERS[method](each, config.scale_floor) for each in stack]
            yield name, torch.stack([dequantize(p.codes_RC, p.scale_R) for p in parts]).view_as(w)


def evil():
    """Pickled, this is a call."""
    return pickle.dumps(_Evil())


class _Evil:
    ran = False

    def __reduce__(self):
        return setattr, (_Evil, "ran", True)


# -- what is written is what is read


@every_config
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_what_is_read_are_the_dequantized_weights_exactly(config, activation):
    weights = weights_of(activation)
    found = unpack(pack(weights, config, HASH).data, config, HASH)
    expected = dict(expected_of(weights, config))
    assert found.keys() == weights.keys()
    for name, w in found.items():
        assert w.dtype == torch.float32
        assert torch.equal(w, expected[name]), name


@every_config
def test_equal_weights_give_equal_bytes(config):
    assert pack(weights_of(), config, HASH).data == pack(weights_of(), config, HASH).data


def test_packing_changes_no_weight():
    weights = weights_of()
    before = {name: w.clone() for name, w in weights.items()}
    pack(weights, CONFIG, HASH)
    assert all(torch.equal(weights[name], before[name]) for name in weights)


def test_packing_what_was_read_gives_the_same_weights_again():
    """A second trip loses nothing more where no clip applies: int8 of up to a million columns."""
    config = CONFIG.model_copy(update={"matrices": "int8_row"})
    once = unpack(pack(weights_of(), config, HASH).data, config, HASH)
    small = {name: w for name, w in once.items() if kind_of(name) == "scalars"}
    twice = unpack(pack(small, config, HASH).data, config, HASH)
    assert all(torch.equal(twice[name], w) for name, w in small.items())


@pytest.mark.parametrize("numel", [0, 511, 512, 1023, 1024, 2047, 2048, 10**9])
def test_a_tensor_is_quantized_where_one_matrix_of_it_is_larger_than_the_limit(numel):
    """A bank counts by one of its matrices, as published; what is neither matrix nor embedding is
    float16 whatever its size."""
    config = CONFIG.model_copy(update={"passthrough_numel": numel})
    weights = weights_of()
    data = lzma.decompress(pack(weights, config, HASH).data)
    quantized = {n.removesuffix(".codes") for n in load(data) if n.endswith(".codes")}
    expected = {
        name
        for name, w in weights.items()
        if kind_of(name) in ("matrices", "embeddings")
        and (w[0].numel() if w.ndim == 3 else w.numel()) > numel
    }
    assert quantized == expected
    assert (numel == 10**9) == (not quantized)


def test_the_fraction_of_rows_at_the_floor_is_counted():
    """Rows that are all zero sit at the floor, rows of thousands do not."""
    low, high = torch.zeros(30, 64), torch.full((10, 64), 5e3)
    config = CONFIGS["floor"]
    packed = pack({"embed": torch.cat([low, high]), "other": torch.ones(3)}, config, HASH)
    assert packed.floored_rows == 30 / 40
    assert pack(weights_of(), CONFIG, HASH).floored_rows == 0.0
    assert pack({"other": torch.ones(3)}, config, HASH).floored_rows is None


# -- what is refused


def test_the_artifact_of_another_recipe_is_refused_with_both_hashes():
    data = pack(weights_of(), CONFIG, HASH).data
    with pytest.raises(ConfigError, match=f"recipe {HASH}.*recipe is fedcba9876543210"):
        unpack(data, CONFIG, "fedcba9876543210")


@pytest.mark.parametrize("compressor", ["lzma", "zlib"])
def test_every_truncation_is_refused(compressor):
    config = CONFIG.model_copy(update={"compressor": compressor})
    data = pack(weights_of(), config, HASH).data
    for size in (0, 1, 10, len(data) // 2, len(data) - 1):
        with pytest.raises(ConfigError, match=f"not a {compressor}-compressed safetensors file"):
            unpack(data[:size], config, HASH)


@settings(max_examples=30)
@given(st.data())
def test_every_flipped_bit_is_refused(data):
    """By the compressor's checksum. Not claimed of the reserved bits of its container."""
    whole = pack({"embed": torch.ones(2, 2)}, CONFIG, HASH).data
    index = data.draw(st.integers(0, len(whole) - 1))
    damaged = bytearray(whole)
    damaged[index] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(ConfigError, match="artifact of"):
        unpack(bytes(damaged), CONFIG, HASH)


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"\xff" * 64, evil()], ids=len)
def test_whole_bytes_of_something_else_are_refused(content):
    for compressor, compress in (("lzma", lzma.compress), ("zlib", zlib.compress)):
        config = CONFIG.model_copy(update={"compressor": compressor})
        for data in (content, compress(content)):
            with pytest.raises(ConfigError, match="Pack it again"):
                unpack(data, config, HASH)


def test_a_pickle_is_refused_without_being_run():
    assert not _Evil.ran
    with pytest.raises(ConfigError, match="not a lzma-compressed safetensors file"):
        unpack(lzma.compress(evil()), CONFIG, HASH)
    assert not _Evil.ran
    pickle.loads(evil())
    assert _Evil.ran
