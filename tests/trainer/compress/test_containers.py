"""A container is read as data alone: whole, by its own reader, and for one recipe only."""

import io
import lzma
import pickle
import zlib
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.tiny import busy_model, tiny_recipe
from trainer.compress import containers
from trainer.compress.artifact import pack, unpack
from trainer.config.config_errors import ConfigError

HASH = "0123456789abcdef"
CONFIG = tiny_recipe().quantization
COMPRESS = {"lzma": lzma.compress, "zlib": zlib.compress}

CONTAINERS = ("safetensors", "torch")

every_container = pytest.mark.parametrize("container", CONTAINERS)


def config_of(container, compressor="lzma"):
    return CONFIG.model_copy(update={"container": container, "compressor": compressor})


def packed(config):
    return pack(dict(busy_model().named_parameters()), config, HASH).data


def evil():
    """Pickled, this is a call."""
    return pickle.dumps(_Evil())


def with_tensors(tensors):
    return {"recipe_hash": HASH, "tensors": tensors}


def torch_file(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


class _Evil:
    ran = False

    def __reduce__(self):
        return setattr, (_Evil, "ran", True)


@pytest.fixture(autouse=True)
def nothing_ran():
    _Evil.ran = False


@every_container
def test_the_artifact_of_another_recipe_is_refused_with_both_hashes(container):
    config = config_of(container)
    data = packed(config)
    with pytest.raises(ConfigError, match=f"recipe {HASH}.*recipe is fedcba9876543210"):
        unpack(data, config, "fedcba9876543210")


@every_container
@pytest.mark.parametrize("compressor", ["lzma", "zlib"])
def test_every_truncation_is_refused(compressor, container):
    config = config_of(container, compressor)
    data = packed(config)
    for size in (0, 1, 10, len(data) // 2, len(data) - 1):
        with pytest.raises(ConfigError, match=f"not a {compressor}-compressed {container} file"):
            unpack(data[:size], config, HASH)


@every_container
def test_a_truncation_before_compression_is_refused(container):
    config = config_of(container)
    plain = lzma.decompress(pack({"embed": torch.ones(2, 2)}, config, HASH).data)
    for size in range(0, len(plain), max(1, len(plain) // 50)):
        with pytest.raises(ConfigError, match=f"not a lzma-compressed {container} file"):
            unpack(lzma.compress(plain[:size], preset=0), config, HASH)


@every_container
@settings(max_examples=30)
@given(data=st.data())
def test_every_flipped_bit_is_refused(container, data):
    """By the compressor's checksum. Not claimed of the reserved bits of its container."""
    config = config_of(container)
    whole = pack({"embed": torch.ones(2, 2)}, config, HASH).data
    index = data.draw(st.integers(0, len(whole) - 1))
    damaged = bytearray(whole)
    damaged[index] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(ConfigError, match="artifact of"):
        unpack(bytes(damaged), config, HASH)


@pytest.mark.parametrize("written", list(product(CONTAINERS, COMPRESS)), ids=str)
def test_another_compressor_or_container_is_refused(written):
    data = packed(config_of(*written))
    assert unpack(data, config_of(*written), HASH)
    for container, compressor in set(product(CONTAINERS, COMPRESS)) - {written}:
        with pytest.raises(ConfigError, match=f"not a {compressor}-compressed {container} file"):
            unpack(data, config_of(container, compressor), HASH)


@every_container
def test_whole_bytes_of_something_else_are_refused(container):
    for content in (b"", b"not a file", b"\xff" * 64, b"PK\x03\x04", evil()):
        for compressor, compress in COMPRESS.items():
            config = config_of(container, compressor)
            for data in (content, compress(content)):
                with pytest.raises(ConfigError, match="Pack it again"):
                    unpack(data, config, HASH)


def test_a_pickle_is_refused_without_being_run():
    """Bare, and inside the file of torch.save in which tensors are expected."""
    files = {
        "safetensors": [evil()],
        "torch": [
            evil(),
            torch_file(_Evil()),
            torch_file(with_tensors({"embed": _Evil()})),
            torch_file({"recipe_hash": _Evil(), "tensors": {"embed": torch.ones(2)}}),
        ],
    }
    for container, contents in files.items():
        config = config_of(container)
        for content in contents:
            with pytest.raises(ConfigError, match=f"not a lzma-compressed {container} file") as e:
                unpack(lzma.compress(content), config, HASH)
            assert "weights_only" not in str(e.value)  # no advice to run it
    assert not _Evil.ran
    torch.load(io.BytesIO(files["torch"][1]), weights_only=False)
    assert _Evil.ran


def test_a_torch_file_of_another_form_is_refused():
    layer = torch.ones(2)
    for content in (
        [1, 2],
        {"recipe_hash": HASH},
        with_tensors([layer]),
        with_tensors({"embed": "text"}),
        with_tensors({3: layer}),
        with_tensors({"up_bank[0]": layer, "up_bank[1]": "text"}),
        with_tensors({"up_bank[0]": layer, "up_bank[1]": torch.ones(3)}),
    ):
        with pytest.raises(ConfigError, match="Pack it again"):
            unpack(lzma.compress(torch_file(content)), config_of("torch"), HASH)


def test_a_layer_that_is_missing_is_named():
    parts = {"up_bank[0]": torch.ones(2), "up_bank[2]": torch.ones(2)}
    content = torch_file(with_tensors(parts))
    with pytest.raises(ConfigError, match=r"of up_bank it has only the parts \[0, 2\]"):
        unpack(lzma.compress(content), config_of("torch"), HASH)


@every_container
def test_codes_without_a_scale_for_each_row_are_refused(container):
    config, codes = config_of(container), torch.ones(2, 3, dtype=torch.int8)
    for wrong in (
        {"embed.codes": codes},
        {"embed.codes": codes, "embed.scale": torch.ones(3).half()},
        {"embed.codes": codes, "embed.scale": torch.ones(2).int()},
        {"embed.codes": codes.float(), "embed.scale": torch.ones(2).half()},
        {"embed.codes": codes[0, 0], "embed.scale": torch.tensor(1.0).half()},
    ):
        data = containers.write(wrong, HASH, config)
        with pytest.raises(ConfigError, match="embed is not int8 codes with a scale for each"):
            unpack(data, config, HASH)
