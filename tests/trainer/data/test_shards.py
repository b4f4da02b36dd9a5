"""A shard is read as it was written, and anything else is refused by name."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trainer.config.config_errors import ConfigError
from trainer.data.shards import HEADER_BYTES, load_stream, open_shard, write_shard


@settings(deadline=None)
@given(hnp.arrays(np.uint16, st.integers(0, 300)))
def test_what_is_written_is_read(tmp_path_factory, tokens):
    path = tmp_path_factory.mktemp("shards") / "a.bin"
    write_shard(path, tokens)
    assert np.array_equal(open_shard(path), tokens)
    assert open_shard(path).dtype == np.dtype("<u2")
    assert path.stat().st_size == 1024 + 2 * tokens.size


def test_the_bytes_are_those_of_the_published_format(tmp_path):
    write_shard(tmp_path / "a.bin", [1, 258, 65535])
    expected = struct.pack("<256i", 20240520, 1, 3, *[0] * 253) + b"\x01\x00\x02\x01\xff\xff"
    assert (tmp_path / "a.bin").read_bytes() == expected
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_a_stream_is_the_shards_in_the_order_given(tmp_path):
    for name, tokens in {"a": [1, 2], "b": [], "c": [3]}.items():
        write_shard(tmp_path / name, np.array(tokens, np.uint16))
    stream = load_stream([tmp_path / "c", tmp_path / "b", tmp_path / "a"])
    assert stream.tolist() == [3, 1, 2]
    assert load_stream([]).size == 0


@pytest.mark.parametrize("tokens", [[65536], [-1], [0.5], [[1, 2]]])
def test_what_is_no_row_of_16_bit_tokens_is_not_written(tmp_path, tokens):
    with pytest.raises(ValueError, match="token"):
        write_shard(tmp_path / "a.bin", tokens)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_shard_and_no_other_file(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    write_shard(path, [1])

    def full(_descriptor):
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_shard(path, [2])
    assert open_shard(path).tolist() == [1]
    assert [each.name for each in tmp_path.iterdir()] == ["a.bin"]


def header(magic=20240520, version=1, count=2):
    return struct.pack("<3i", magic, version, count).ljust(HEADER_BYTES, b"\0")


BAD = {
    "empty": (b"", "found 0 bytes, expected a header of 1024"),
    "header cut": (header()[:100], "found 100 bytes, expected a header of 1024"),
    "truncated": (header() + b"\0\0\0", "truncated: found 1027 bytes, expected 1028 for 2 tokens"),
    "too long": (header() + bytes(6), "too long: found 1030 bytes, expected 1028 for 2 tokens"),
    "foreign": (b"PK\3\4" + bytes(2000), "found magic number 67324752, expected 20240520"),
    "other version": (header(version=2) + bytes(4), "found version 2, expected version 1"),
    "negative": (header(count=-1), "found a count of -1 tokens"),
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD.keys())
def test_a_bad_shard_is_refused_with_what_was_found_and_expected(tmp_path, content, message):
    path = tmp_path / "bad.bin"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="make data") as caught:
        open_shard(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_shard_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.bin: it cannot be read.*make data"):
        open_shard(tmp_path / "gone.bin")
