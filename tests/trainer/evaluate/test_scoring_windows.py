"""Windows cover every target once; the published tail is the one exception, and is counted."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.distributed.world import World
from trainer.evaluate.windows import batches, by_chunk, windows

shapes = st.tuples(st.integers(1, 12), st.integers(1, 6)).map(lambda x: (x[0] * x[1], x[0]))
tails = st.sampled_from(["once", "published"])


@given(st.integers(1, 300), shapes)
def test_windows_score_every_target_exactly_once_and_in_order(num_targets, shape):
    seq_len, stride = shape
    plan = windows(num_targets, seq_len, stride)
    targets = [t for w in plan for t in range(w.first_scored, w.end)]
    assert targets == list(range(num_targets))
    assert all(w.num_scored >= 1 for w in plan)
    assert all(w.padding == 0 for w in plan)


@given(st.integers(1, 300), shapes)
def test_every_target_is_scored_in_the_longest_context_that_the_grid_has(num_targets, shape):
    """Windows begin at multiples of the stride; of those that reach t, the first sees the most."""
    seq_len, stride = shape
    for w in windows(num_targets, seq_len, stride):
        assert w.start % stride == 0
        assert w.length <= seq_len
        for t in range(w.first_scored, w.end):
            first_that_reaches = max(0, math.ceil((t + 1 - seq_len) / stride)) * stride
            assert w.start == first_that_reaches


@given(st.integers(1, 300), shapes, tails, st.integers(1, 9))
def test_batches_are_the_plan_in_pieces_of_one_shape(num_targets, shape, tail, batch_seqs):
    plan = windows(num_targets, *shape, tail)
    pieces = batches(plan, batch_seqs)
    assert [w for piece in pieces for w in piece] == plan
    for piece in pieces:
        assert 1 <= len(piece) <= batch_seqs
        assert len({(w.length + w.padding, w.num_scored) for w in piece}) == 1
        assert len({w.padding > 0 for w in piece}) == 1


@given(st.integers(1, 300), shapes, tails, st.integers(1, 4))
def test_chunks_are_the_plan_cut_where_a_scored_part_begins(num_targets, shape, tail, factor):
    chunk = factor * shape[0]
    plan = windows(num_targets, *shape, tail)
    chunks = by_chunk(plan, chunk)
    assert [w for each in chunks for w in each] == plan
    for each in chunks:
        assert len({w.first_scored // chunk for w in each}) == 1
    if tail == "once":
        assert len(chunks) == math.ceil(num_targets / chunk)
        for index, each in enumerate(chunks):
            assert each[0].first_scored == index * chunk
            assert each[-1].end == min((index + 1) * chunk, num_targets)


@given(st.integers(0, 50), st.integers(1, 9))
def test_the_shares_of_the_ranks_cover_the_plan_once(num_items, size):
    shares = [World(rank, size, torch.device("cpu")).own_range(num_items) for rank in range(size)]
    assert [i for share in shares for i in share] == list(range(num_items))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


# -- the published tail


@given(st.integers(1, 300), shapes)
def test_the_published_windows_are_those_of_the_published_formula(num_targets, shape):
    seq_len, stride = shape
    plan = windows(num_targets, seq_len, stride, "published")
    if stride == seq_len:  # contiguous windows have no such tail
        assert plan == windows(num_targets, seq_len, stride)
        return
    assert [w.start for w in plan] == list(range(0, num_targets, stride))
    for w in plan:
        length = min(seq_len, num_targets - w.start)
        assert w.length == length
        assert w.padding == seq_len - length
        assert w.first_scored - w.start == (max(length - stride, 0) if w.start else 0)


@pytest.fixture(scope="module")
def full_size():
    """The published validation stream in the published windows."""
    return windows(62_021_632, 2048, 64, "published")


def test_the_published_counts_of_tokens_and_bytes_follow(full_size):
    """31 scores of the last 64 targets too many. Of the bytes, 143 stand in those 64 and the rest
    may stand anywhere before: it is counted once; here, all of it at the first target.
    """
    last, total, total_bytes, last_bytes = 62_021_632 - 64, 62_021_632, 151_080_363, 143
    assert len(full_size) == 969_088
    assert sum(w.num_scored for w in full_size) == 62_023_616
    covered = Counter((w.first_scored, w.end) for w in full_size if w.end > last)
    assert covered == {(last, total): 32}
    first = sum(1 for w in full_size if w.first_scored == 0)
    assert first * (total_bytes - last_bytes) + 32 * last_bytes == 151_084_796


def test_the_published_counts_of_windows_in_a_chunk_follow(full_size):
    sizes = [len(chunk) for chunk in by_chunk(full_size, 32_768)]
    assert len(sizes) == 1893
    assert sizes[0] == 481
    assert set(sizes[1:-1]) == {512}
    assert sizes[-1] == 415
