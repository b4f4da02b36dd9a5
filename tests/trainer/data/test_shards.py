"""A shard is read as it was written; what is no shard, or does not stay one, is refused by name.

Not claimed: that a file which is cut short is noticed before a reading runs past its new end.
"""

import os
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trainer.config import Coprime
from trainer.config.config_errors import ConfigError
from trainer.data.loader import BatchLayout, CoprimeLoader, SequentialLoader
from trainer.data.shards import HEADER_BYTES, WatchedShard, load_stream, open_shard, write_shard


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


def header(magic=20240520, version=1, count=2):
    return struct.pack("<3i", magic, version, count).ljust(HEADER_BYTES, b"\0")


BAD = (
    (b"", "found 0 bytes, expected a header of 1024"),
    (header()[:100], "found 100 bytes, expected a header of 1024"),
    (header() + b"\0\0\0", "truncated: found 1027 bytes, expected 1028 for 2 tokens"),
    (header() + bytes(6), "too long: found 1030 bytes, expected 1028 for 2 tokens"),
    (b"PK\3\4" + bytes(2000), "found magic number 67324752, expected 20240520"),
    (header(version=2) + bytes(4), "found version 2, expected version 1"),
    (header(count=-1), "found a count of -1 tokens"),
)


def test_a_bad_shard_is_refused_with_what_was_found_and_expected(tmp_path):
    path = tmp_path / "bad.bin"
    for content, message in BAD:
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="make data") as caught:
            open_shard(path)
        assert message in str(caught.value)
        assert str(path) in str(caught.value)


def test_a_missing_shard_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.bin: it cannot be read.*make data"):
        open_shard(tmp_path / "gone.bin")


# -- a shard that changes or goes away while a run reads it

SIZES = (120, 90)


def paths_in(folder):
    paths = [folder / f"x_train_{index:06d}.bin" for index in range(len(SIZES))]
    for path, size in zip(paths, SIZES, strict=True):
        write_shard(path, np.arange(size))
    return paths


@pytest.fixture(params=["sequential", "coprime"])
def loader(request, tmp_path):
    """A loader of two shards, a step of which reads from both."""
    paths = paths_in(tmp_path)
    layout = BatchLayout(
        batch_tokens=160, seq_len=8, micro_steps=2, virtual_world=2, rank=0, world_size=1
    )
    if request.param == "sequential":
        return SequentialLoader(paths, layout)
    return CoprimeLoader(paths, [path.name for path in paths], layout, Coprime())


def remove(path):
    path.unlink()


def cut(path):
    os.truncate(path, path.stat().st_size - 20)


def grow(path):
    with path.open("ab") as file:
        file.write(b"more")


def write_into(path):
    before_ns = path.stat().st_mtime_ns
    with path.open("r+b") as file:
        file.seek(1100)
        file.write(b"\0\1")
    os.utime(path, ns=(before_ns + 1, before_ns + 1))  # however coarse the clock of the disk


def put_another_there(path):
    other = path.with_name("other")
    write_shard(other, np.array(open_shard(path)))
    os.utime(other, ns=(path.stat().st_mtime_ns,) * 2)
    other.replace(path)


@pytest.mark.parametrize("change", [remove, cut, grow, write_into, put_another_there])
def test_a_shard_that_does_not_stay_what_it_was_is_named(loader, tmp_path, monkeypatch, change):
    monkeypatch.setattr("trainer.data.shards.CHECK_EVERY_S", 0.0)
    loader.next_batch()
    change(tmp_path / "x_train_000001.bin")
    message = "it cannot be read" if change is remove else "changed from .* while it was read"
    with pytest.raises(ConfigError, match=rf"x_train_000001\.bin: .*{message}.*fetch again"):
        loader.next_batch()


def test_a_shard_that_stays_what_it_was_is_read_on(loader, tmp_path, monkeypatch):
    monkeypatch.setattr("trainer.data.shards.CHECK_EVERY_S", 0.0)
    for path in tmp_path.iterdir():
        path.chmod(0o444)
        open_shard(path)
    for _ in range(20):
        loader.next_batch()


def test_a_shard_that_changes_while_it_is_opened_is_refused(tmp_path, monkeypatch):
    (path, _) = paths_in(tmp_path)

    def open_and_remove(path):
        tokens = open_shard(path)
        path.unlink()
        return tokens

    monkeypatch.setattr("trainer.data.shards.open_shard", open_and_remove)
    with pytest.raises(ConfigError, match="it cannot be read"):
        WatchedShard(path)
