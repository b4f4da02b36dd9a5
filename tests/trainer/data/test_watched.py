"""A shard that changes or goes away while a run reads it is an error that names it.

Not claimed: that a file which is cut short is noticed before a reading runs past its new end.
"""

import os
import time

import numpy as np
import pytest

from trainer.config import Coprime
from trainer.config.config_errors import ConfigError
from trainer.data.coprime import CoprimeLoader
from trainer.data.loader import SequentialLoader
from trainer.data.rank_share import Share
from trainer.data.shards import WatchedShard, open_shard, write_shard

SIZES = (120, 90)


def paths_in(folder):
    paths = [folder / f"x_train_{index:06d}.bin" for index in range(len(SIZES))]
    for path, size in zip(paths, SIZES, strict=True):
        write_shard(path, np.arange(size))
    return paths


def sequential(paths, share):
    return SequentialLoader(paths, share)


def coprime(paths, share):
    return CoprimeLoader(paths, [path.name for path in paths], share, Coprime())


@pytest.fixture(params=[sequential, coprime], ids=lambda make: make.__name__)
def loader(request, tmp_path):
    """A loader of two shards, a step of which reads from both."""
    share = Share(batch_tokens=160, seq_len=8, micro_steps=2, virtual_world=2, rank=0, world_size=1)
    return request.param(paths_in(tmp_path), share)


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


CHANGES = {
    remove: "it cannot be read",
    cut: r"its size changed from 1204 to 1184 bytes while it was read",
    grow: r"its size changed from 1204 to 1208 bytes while it was read",
    write_into: "it was written to while it was read",
    put_another_there: "another file took its place while it was read",
}


@pytest.mark.parametrize(("change", "message"), CHANGES.items(), ids=lambda each: str(each)[:12])
def test_a_shard_that_does_not_stay_what_it_was_is_named(
    loader, tmp_path, monkeypatch, change, message
):
    monkeypatch.setattr("trainer.data.shards.CHECK_EVERY_S", 0.0)
    loader.next_batch()
    change(tmp_path / "x_train_000001.bin")
    with pytest.raises(ConfigError, match=rf"x_train_000001\.bin: {message}.*fetch again"):
        loader.next_batch()


def test_a_shard_that_stays_what_it_was_is_read_on(loader, tmp_path, monkeypatch):
    monkeypatch.setattr("trainer.data.shards.CHECK_EVERY_S", 0.0)
    for path in tmp_path.iterdir():
        path.chmod(0o444)
        open_shard(path)
    for _ in range(20):
        loader.next_batch()


def test_a_change_is_looked_for_at_most_once_a_second(tmp_path, monkeypatch):
    now_s, looks = 100.0, []
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    identity = "trainer.data.shards._identity"
    (path, _) = paths_in(tmp_path)
    shard = WatchedShard(path)
    monkeypatch.setattr(identity, lambda path: looks.append(now_s) or shard._seen)
    for tenth in range(1, 35):
        now_s = 100 + tenth / 10
        assert shard[3:6].tolist() == [3, 4, 5]
    assert looks == [101.0, 102.0, 103.0]


def test_a_shard_that_changes_while_it_is_opened_is_refused(tmp_path, monkeypatch):
    (path, _) = paths_in(tmp_path)

    def open_and_remove(path):
        tokens = open_shard(path)
        path.unlink()
        return tokens

    monkeypatch.setattr("trainer.data.shards.open_shard", open_and_remove)
    with pytest.raises(ConfigError, match="it cannot be read"):
        WatchedShard(path)
