"""Every world size trains on the same spans in the same order, without end, from any position."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.config.config_errors import ConfigError
from trainer.data.loader import BatchLayout, SequentialLoader
from trainer.data.shards import write_shard

BATCH_TOKENS, SEQ_LEN, MICRO_STEPS = 32, 4, 4
SPAN = BATCH_TOKENS // MICRO_STEPS + 1


def write(folder, *sizes):
    """Shards of these sizes; token i of the stream is i."""
    paths, start = [], 0
    for index, size in enumerate(sizes):
        path = folder / f"x_train_{index:06d}.bin"
        write_shard(path, np.arange(start, start + size))
        paths.append(path)
        start += size
    return paths


def load(paths, rank=0, world_size=1, virtual_world=2):
    layout = BatchLayout(
        batch_tokens=BATCH_TOKENS,
        seq_len=SEQ_LEN,
        micro_steps=MICRO_STEPS,
        virtual_world=virtual_world,
        rank=rank,
        world_size=world_size,
    )
    return SequentialLoader(paths, layout)


def spans(batch):
    """Each (x, y) as the row of tokens that it was cut from."""
    return [[*x.flatten().tolist(), y.flatten().tolist()[-1]] for x, y in batch]


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return write(tmp_path_factory.mktemp("shards"), 50, 0, 7, 40)


def test_spans_follow_each_other_and_their_extra_token_is_consumed(paths):
    assert spans(load(paths).next_batch()) == [
        list(range(start, start + SPAN)) for start in (0, 9, 18, 27)
    ]


def test_targets_are_the_inputs_one_token_on(paths):
    for x_BT, y_BT in load(paths).next_batch():
        assert x_BT.shape == y_BT.shape == (BATCH_TOKENS // MICRO_STEPS // SEQ_LEN, SEQ_LEN)
        assert x_BT.dtype == y_BT.dtype == torch.int64
        assert torch.equal(x_BT.flatten() + 1, y_BT.flatten())


@pytest.mark.parametrize("virtual_world", [1, 2, 4, 8])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_ranks_together_take_the_spans_that_one_rank_takes(paths, world_size, virtual_world):
    """Whatever the number of virtual ranks."""
    alone = load(paths)
    ranks = [
        load(paths, rank, world_size, virtual_world=virtual_world) for rank in range(world_size)
    ]
    for _ in range(5):
        parts = [spans(rank.next_batch()) for rank in ranks]
        # Accumulation step a of rank r is span a · W + r of the optimizer step.
        assert [span for group in zip(*parts, strict=True) for span in group] == spans(
            alone.next_batch()
        )
        assert {rank.position for rank in ranks} == {alone.position}


def test_the_stream_straddles_shards_and_wraps_forever(paths):
    loader = load(paths)
    stream = [token for _ in range(10) for span in spans(loader.next_batch()) for token in span]
    assert stream == [index % 97 for index in range(10 * MICRO_STEPS * SPAN)]


@settings(deadline=None)
@given(st.integers(0, 12))
def test_a_restart_continues_exactly(paths, steps):
    loader = load(paths)
    for _ in range(steps):
        loader.next_batch()
    assert loader.position == steps * MICRO_STEPS * SPAN
    again = load(paths)
    again.seek(loader.position)
    assert spans(again.next_batch()) == spans(loader.next_batch())
    assert again.position == loader.position


@pytest.mark.parametrize("virtual_world", [1, 2, 4])
def test_calibration_is_what_the_first_virtual_rank_reads(paths, virtual_world):
    rank_0 = load(paths, 0, virtual_world)
    read = [x_BT for _ in range(6) for x_BT, _ in rank_0.next_batch()]
    for rank in range(2):
        loader = load(paths, rank, 2, virtual_world=virtual_world)
        calibration = list(loader.calibration(6))
        assert len(calibration) == 6
        assert all(map(torch.equal, calibration, read))


def test_calibration_starts_at_the_start_and_moves_nothing(paths):
    loader, other = load(paths), load(paths)
    loader.next_batch()
    other.next_batch()
    position = loader.position
    assert [x_BT.flatten()[0].item() for x_BT in loader.calibration(3)] == [0, 2 * SPAN, 4 * SPAN]
    assert loader.position == position
    assert spans(loader.next_batch()) == spans(other.next_batch())


def test_a_corpus_shorter_than_a_span_is_read_again_and_again(tmp_path):
    first = spans(load(write(tmp_path, 3)).next_batch())[0]
    assert first == [0, 1, 2] * 3


def test_ranks_that_cannot_share_a_step_are_refused_with_a_number_that_works(paths):
    with pytest.raises(ConfigError, match=r"3 ranks.*micro_steps = 4.*train\.micro_steps=6"):
        load(paths, 0, 3)
