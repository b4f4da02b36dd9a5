"""The coprime order is drawn once for all ranks and folders, and read as it was drawn."""

from itertools import islice

import numpy as np
import pytest
import torch

from trainer.config import Coprime, Data, Train
from trainer.config.config_errors import ConfigError
from trainer.data.coprime import CoprimeOrder, seed_names, seed_of
from trainer.data.loader import SequentialLoader, open_loader
from trainer.data.manifest import Dataset, Manifest, Shard
from trainer.data.shards import write_shard

SEQ_LEN = 4
PER_SHARD = 1000  # token of shard s at offset o is s · PER_SHARD + o, so a window names its place
SIZES = (90, 4, 61, 0, 33, 5, 120, 47, 9, 75, 6, 200)
MIXING = {"anneal_calls": 6, "mix_start": 2, "mix_end": 5}


def write(folder, sizes=SIZES, name="web"):
    """A dataset of these training shards; only what a loader looks at is true."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = []
    for index, size in enumerate(sizes):
        shard = Shard(name=f"{name}_train_{index:06d}.bin", num_tokens=size, sha256="0" * 64)
        write_shard(folder / shard.name, index * PER_SHARD + np.arange(size))
        shards.append(shard)
    manifest = Manifest.model_construct(dataset=name, train=tuple(shards))
    return Dataset(directory=folder, manifest=manifest, vocab_size=65536)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write(tmp_path_factory.mktemp("web"))


def load(source, /, *, rank=0, world_size=1, micro_steps=8, rows=3, **data):
    """A loader of ``rows`` sequences a micro-step."""
    values = {"dataset": "web", "loader": "coprime", "virtual_world": 8, "coprime": MIXING} | data
    return open_loader(
        source,
        Data(**values),
        Train(
            seq_len=SEQ_LEN,
            batch_tokens=micro_steps * rows * SEQ_LEN,
            micro_steps=micro_steps,
            warmup_steps=0,
            warmdown_steps=1,
        ),
        rank=rank,
        world_size=world_size,
    )


def windows(pair):
    """Where each row of a micro-batch begins: (shard, offset)."""
    return [divmod(first, PER_SHARD) for first in pair[0][:, 0].tolist()]


def read(loader, steps):
    """The micro-batches of so many steps, as windows."""
    return [windows(pair) for _ in range(steps) for pair in loader.next_batch()]


# -- the order


@pytest.mark.parametrize("virtual_world", [1, 2, 8])
def test_a_virtual_rank_reads_every_vth_window_of_a_call(dataset, virtual_world):
    names = [f"web/{path.name}" for path in dataset.train_paths]
    order = CoprimeOrder(
        num_tokens=SIZES,
        seed=seed_of(names),
        seq_len=SEQ_LEN,
        call_windows=3 * virtual_world,
        virtual_world=virtual_world,
        mixing=Coprime(**MIXING),
    )
    calls = list(islice(order.calls(), 24))
    assert read(load(dataset, virtual_world=virtual_world), 3 * virtual_world) == [
        call[rank::virtual_world] for call in calls for rank in range(virtual_world)
    ]


@pytest.mark.parametrize("virtual_world", [1, 2, 4, 8])
@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
def test_the_ranks_together_read_what_one_rank_reads(dataset, world_size, virtual_world):
    alone = load(dataset, virtual_world=virtual_world)
    ranks = [
        load(dataset, rank=rank, world_size=world_size, virtual_world=virtual_world)
        for rank in range(world_size)
    ]
    for _ in range(4):
        parts = [read(rank, 1) for rank in ranks]
        # Accumulation step a of rank r is micro-step a · W + r of the optimizer step.
        assert [each for group in zip(*parts, strict=True) for each in group] == read(alone, 1)
    assert {rank.position for rank in ranks} == {alone.position}


def test_a_pass_of_a_shard_visits_every_block_exactly_once(dataset):
    one = {"mix_start": 1, "mix_end": 1}
    loader = load(dataset, virtual_world=1, micro_steps=1, rows=1, coprime=one)
    visits = {}
    for ((shard, offset),) in read(loader, 3000):
        visits.setdefault(shard, []).append(offset)
    num_passes = 0
    for shard, offsets in visits.items():
        while offsets:
            phase = offsets[0] % SEQ_LEN
            blocks = list(range(phase, SIZES[shard] - SEQ_LEN, SEQ_LEN))
            taken, offsets = offsets[: len(blocks)], offsets[len(blocks) :]
            assert len(set(taken)) == len(taken)
            assert set(taken) <= set(blocks)
            num_passes += len(taken) == len(blocks)
    assert num_passes > 50


@pytest.mark.parametrize("virtual_world", [1, 8])
def test_a_window_lies_in_its_shard_and_targets_are_the_inputs_one_token_on(dataset, virtual_world):
    loader = load(dataset, virtual_world=virtual_world)
    seen = set()
    for _ in range(40):
        for x_BT, y_BT in loader.next_batch():
            assert x_BT.shape == y_BT.shape == (3, SEQ_LEN)
            assert x_BT.dtype == y_BT.dtype == torch.int64
            assert x_BT.is_contiguous()
            assert y_BT.is_contiguous()
            # Tokens count up within a shard, so nothing but one piece of one shard satisfies this.
            assert torch.equal(x_BT, x_BT[:, :1] + torch.arange(SEQ_LEN))
            assert torch.equal(y_BT, x_BT + 1)
            for shard, offset in windows((x_BT, y_BT)):
                assert offset + SEQ_LEN < SIZES[shard]
                seen.add(shard)
    assert seen == {index for index, size in enumerate(SIZES) if size > SEQ_LEN}


# -- what the order is drawn from


def test_the_order_does_not_depend_on_the_folder(dataset, tmp_path):
    moved = write(tmp_path / "another" / "cache")
    assert read(load(moved), 5) == read(load(dataset), 5)


def test_other_names_are_another_order(dataset, tmp_path):
    here = read(load(dataset), 1)
    assert read(load(dataset, dataset="other"), 1) != here
    assert read(load(write(tmp_path, name="renamed")), 1) != here
    assert read(load(dataset, seed_names="web"), 1) == here


def test_a_list_of_names_is_taken_as_it_is(dataset):
    names = [f"web/{path.name}" for path in dataset.train_paths]
    assert read(load(dataset, seed_names=names), 2) == read(load(dataset), 2)
    assert read(load(dataset, seed_names=names[::-1]), 2) != read(load(dataset), 2)


def test_a_folder_is_joined_with_one_slash():
    for folder in ("a/b", "a/b/", "a/b//"):
        data = Data(dataset="web", seed_names=folder)
        assert seed_names(data, ["x.bin", "y.bin"]) == ["a/b/x.bin", "a/b/y.bin"]


def test_weights_too_large_for_a_float_count_alike(dataset):
    """49 blocks to the power of 400 is no float; to the power of 0 every shard weighs 1."""
    orders = [
        read(load(dataset, coprime={"exponent_start": each, "exponent_end": each}), 5)
        for each in (400.0, 0.0)
    ]
    assert orders[0] == orders[1]


# -- restart and calibration


@pytest.mark.parametrize("virtual_world", [2, 8])
def test_a_restart_continues_exactly(dataset, virtual_world):
    for steps in (0, 1, 17):
        loader = load(dataset, virtual_world=virtual_world)
        read(loader, steps)
        assert loader.position == steps * 8 // virtual_world
        again = load(dataset, virtual_world=virtual_world)
        read(again, 3)
        again.seek(loader.position)
        assert read(again, 5) == read(loader, 5)
        assert again.position == loader.position


@pytest.mark.parametrize("virtual_world", [1, 2, 8])
def test_calibration_is_what_the_first_virtual_rank_reads(dataset, virtual_world):
    options = {"micro_steps": virtual_world, "virtual_world": virtual_world}
    rank_0 = load(dataset, rank=0, world_size=virtual_world, **options)
    expected = [x_BT for _ in range(20) for x_BT, _ in rank_0.next_batch()]
    for rank in range(2):
        loader = load(dataset, rank=rank, world_size=2, virtual_world=virtual_world)
        calibration = list(loader.calibration(20))
        assert len(calibration) == 20
        assert all(map(torch.equal, calibration, expected))


def test_calibration_moves_nothing(dataset):
    loader, other = load(dataset), load(dataset)
    read(loader, 2)
    read(other, 2)
    first = next(iter(loader.calibration(1)))
    assert read(loader, 2) == read(other, 2)
    assert torch.equal(first, next(iter(loader.calibration(1))))


# -- bad input


def test_the_recipe_chooses_the_loader(dataset):
    assert isinstance(load(dataset, loader="sequential"), SequentialLoader)


def test_shards_without_a_single_sequence_are_refused(tmp_path):
    for sizes in ((), (0,), (4, 2)):
        message = rf"none of the {len(sizes)} .* train\.seq_len 4 .*longest"
        with pytest.raises(ConfigError, match=message):
            load(write(tmp_path, sizes))


def test_another_number_of_names_than_shards_is_refused_with_both(dataset):
    with pytest.raises(ConfigError, match=r"seed_names lists 2 names .* has 12 training shards"):
        load(dataset, seed_names=["a", "b"])
