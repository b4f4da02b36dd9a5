"""A batch ahead or not, the loader gives the same batches, positions and errors."""

import numpy as np
import pytest
import torch

from trainer.config.config_errors import ConfigError
from trainer.data.loader import BatchLayout, SequentialLoader
from trainer.data.prefetch import Prefetcher, prefetched
from trainer.data.shards import write_shard

LAYOUT = BatchLayout(
    batch_tokens=32, seq_len=4, micro_steps=4, virtual_world=2, rank=0, world_size=2
)


@pytest.fixture
def path(tmp_path):
    shard = tmp_path / "x_train_000000.bin"
    write_shard(shard, np.arange(97))
    return shard


def taken(loader, num):
    return [[torch.stack(pair) for pair in loader.next_batch()] for _ in range(num)]


def same(found, expected):
    return all(
        torch.equal(a, b)
        for one, other in zip(found, expected, strict=True)
        for a, b in zip(one, other, strict=True)
    )


def test_the_batches_and_positions_are_those_of_the_loader(path):
    ahead, alone = Prefetcher(SequentialLoader([path], LAYOUT)), SequentialLoader([path], LAYOUT)
    for _ in range(12):
        assert same(taken(ahead, 1), taken(alone, 1))
        assert ahead.position == alone.position


def test_what_was_read_ahead_is_forgotten_where_the_loader_is_told_to_seek(path):
    ahead, alone = Prefetcher(SequentialLoader([path], LAYOUT)), SequentialLoader([path], LAYOUT)
    expected = taken(alone, 5)
    taken(ahead, 3)
    ahead.seek(2 * alone.position // 5)
    assert ahead.position == 2 * alone.position // 5
    assert same(taken(ahead, 3), expected[2:])


def test_calibration_leaves_the_order_as_it_is(path):
    ahead, alone = Prefetcher(SequentialLoader([path], LAYOUT)), SequentialLoader([path], LAYOUT)
    taken(ahead, 1), taken(alone, 1)
    assert all(map(torch.equal, ahead.calibration(3), alone.calibration(3)))
    assert same(taken(ahead, 2), taken(alone, 2))


def test_a_batch_that_cannot_be_read_raises_where_it_is_taken(path):
    class Breaks(SequentialLoader):
        def next_batch(self):
            if self.position > 0:
                raise ConfigError("the shard changed")
            return super().next_batch()

    ahead = Prefetcher(Breaks([path], LAYOUT))
    taken(ahead, 1)
    with pytest.raises(ConfigError, match="the shard changed"):
        ahead.next_batch()


def test_on_a_cpu_nothing_is_read_ahead(path):
    loader = SequentialLoader([path], LAYOUT)
    assert prefetched(loader, torch.device("cpu")) is loader
