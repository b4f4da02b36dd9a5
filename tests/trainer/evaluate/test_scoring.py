"""Every target is scored once, by what came before it and by nothing later, however it is scored.

Target t is token t + 1. EPS is half a unit in the last place of a float32 of order one.
"""

import copy
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import torch

from tests.support.tiny import RANK_0, VOCAB_SIZE, busy_model, random_stream, tiny_recipe
from trainer.config import Slot
from trainer.distributed.world import World
from trainer.evaluate.bpb import Score, Stream, score
from trainer.evaluate.slot import slot_score
from trainer.evaluate.ttt import adapt_and_score
from trainer.evaluate.windows import Window, windows

EPS = 2.0**-24
SEQ_LEN, STRIDE, CHUNK = 32, 16, 64
NUM_TARGETS = 3 * CHUNK + SEQ_LEN  # the last chunk is half a chunk
RECIPE = tiny_recipe({"ttt.chunk_tokens": CHUNK, "ttt.lr": 0.05, "ttt.batch_seqs": 2})
TTT = {
    "ttt": RECIPE.ttt,
    "ttt_muon": RECIPE.ttt.model_copy(update={"optimizer": "muon", "momentum": 0.0, "lr": 0.01}),
}
SLOT = Slot(mode="causal", lr=0.02, steps=5, batch_seqs=4, eps=0.1)
WAYS = ("contiguous", "sliding", "ttt", "ttt_muon", "slot")
# A matrix product may sum its 32 to 64 terms in another order, in each of two layers of eight
# products; nats are of order 10.
ROUNDING = 16 * 64 * EPS * 10
# SLOT passes rounding on: gradients are of order 1, so they differ by ROUNDING / 10, AdamW divides
# by no less than eps, and the 32 elements of a shift move the nats by less than 1 each.
SHIFTED_ROUNDING = ROUNDING + SLOT.steps * SLOT.lr * (ROUNDING / 10) / SLOT.eps * 32


@pytest.fixture(scope="module")
def model():
    return busy_model()


@pytest.fixture(scope="module")
def stream():
    return random_stream(NUM_TARGETS)


class Nats:
    """A sink that keeps the nats of each target, and refuses a second opinion."""

    def __init__(self, num_targets):
        self.values = torch.full((num_targets,), torch.nan)

    def __call__(self, targets, nll):
        assert targets.shape == nll.shape
        assert self.values[targets].isnan().all()
        self.values[targets] = nll


def scored(how, model, stream, *, batch_seqs=4, world=RANK_0):
    """(score, nats of each target) by one of the ways."""
    sink = Nats(stream.num_targets)
    common = {"world": world, "sink": sink}
    scoring = RECIPE.scoring.model_copy(update={"batch_seqs": batch_seqs})
    if how in TTT:
        model = copy.deepcopy(model)
        result = adapt_and_score(model, stream, scoring=scoring, ttt=TTT[how], **common)
    elif how == "slot":
        slot = SLOT.model_copy(update={"batch_seqs": batch_seqs})
        result = slot_score(model, stream, scoring=scoring, slot=slot, virtual_world=2, **common)
    else:
        plan = windows(stream.num_targets, SEQ_LEN, SEQ_LEN if how == "contiguous" else STRIDE)
        result = score(model, stream, plan, batch_seqs=batch_seqs, **common)
    return result, sink.values


@pytest.fixture(scope="module")
def usual(model, stream):
    """What each way scores of the unchanged stream, four windows at a time."""
    return {how: scored(how, model, stream) for how in WAYS}


every_way = pytest.mark.parametrize("how", WAYS)


# -- the sum


@every_way
def test_every_target_is_scored_once(how, usual, stream):
    result, nats = usual[how]
    assert not nats.isnan().any()
    assert result.num_tokens == NUM_TARGETS
    assert result.num_bytes == int(stream.target_bytes.sum())


def test_each_window_counts_the_bytes_of_its_own_targets(model, stream):
    for window in windows(NUM_TARGETS, SEQ_LEN, STRIDE):
        result = score(model, stream, [window], batch_seqs=1, world=RANK_0)
        assert result.num_tokens == window.num_scored
        assert result.num_bytes == int(stream.target_bytes[window.first_scored : window.end].sum())


@every_way
def test_the_sum_is_the_sum_of_the_nats_in_float64(how, usual):
    """Tolerance: float64 sums of NUM_TARGETS terms, in whatever order."""
    result, nats = usual[how]
    exact = math.fsum(nats.double().tolist())
    assert result.nll == pytest.approx(exact, rel=NUM_TARGETS * 2.0**-53)


def test_a_sum_of_many_nats_is_not_rounded_to_float32(model):
    """Where the nats are k + 2⁻²⁰, a float32 sum would lose what float64 keeps."""

    class Constant(torch.nn.Module):
        def nll(self, tokens, targets, tail):
            return torch.full((len(tokens), tail), 8 + 2.0**-20)

        def compiled_nll(self, length):
            return self.nll

    stream = random_stream(SEQ_LEN * 64)
    plan = windows(stream.num_targets, SEQ_LEN, SEQ_LEN)
    result = score(Constant(), stream, plan, batch_seqs=64, world=RANK_0)
    assert result.nll == stream.num_targets * (8 + 2.0**-20)


def test_bits_per_byte_is_the_code_length_over_the_size():
    result = Score(nll=8 * math.log(2) * 100, num_tokens=50, num_bytes=400)
    assert result.bpb == pytest.approx(2.0, rel=1e-15)
    assert result.loss == pytest.approx(16 * math.log(2), rel=1e-15)
    assert result.is_finite
    assert not Score(nll=math.nan, num_tokens=1, num_bytes=1).is_finite
    assert not Score(nll=math.inf, num_tokens=1, num_bytes=1).is_finite


def test_contiguous_scoring_is_the_stride_of_a_whole_window(model, stream, usual):
    _, contiguous = usual["contiguous"]
    for start in range(0, NUM_TARGETS, SEQ_LEN):
        tokens = stream.tokens[start : start + SEQ_LEN + 1][None]
        with torch.no_grad():
            alone = model.nll(tokens[:, :-1], tokens[:, 1:])[0]
        expected = contiguous[start : start + SEQ_LEN]
        torch.testing.assert_close(expected, alone, rtol=0, atol=ROUNDING)


@every_way
@pytest.mark.parametrize("batch_seqs", [1, 64])
def test_the_batch_size_changes_no_more_than_rounding(how, batch_seqs, model, stream, usual):
    """TTT trains on the same batches whatever the scoring batch is, and every window of SLOT has
    its own shift."""
    tolerance = SHIFTED_ROUNDING if how == "slot" else ROUNDING
    result, nats = scored(how, model, stream, batch_seqs=batch_seqs)
    reference, each = usual[how]
    torch.testing.assert_close(nats, each, rtol=0.0, atol=tolerance)
    assert result.nll == pytest.approx(reference.nll, abs=NUM_TARGETS**0.5 * tolerance)


def test_sliding_sees_more_than_contiguous_and_the_first_window_the_same(model, stream):
    _, contiguous = scored("contiguous", model, stream, batch_seqs=1)
    _, sliding = scored("sliding", model, stream, batch_seqs=1)
    assert torch.equal(contiguous[:SEQ_LEN], sliding[:SEQ_LEN])
    # Each later window of the grid scores its second half: where a contiguous window scores its
    # own second half the two are one window, elsewhere they differ in context.
    for start in range(SEQ_LEN, NUM_TARGETS, SEQ_LEN):
        # Tolerance: the last positions alone against all positions, in another product.
        second = slice(start + STRIDE, start + SEQ_LEN)
        torch.testing.assert_close(contiguous[second], sliding[second], rtol=0, atol=1e-4)
        first = slice(start, start + STRIDE)
        assert not torch.allclose(contiguous[first], sliding[first], rtol=0, atol=1e-2)


# -- no score depends on a later token


@every_way
def test_changing_a_later_token_leaves_every_earlier_score_in_every_bit(how, model, stream, usual):
    """Token j is the target j − 1, so the targets before j − 1 may not know of it."""
    _, before = usual[how]
    for position in (1, 2, SEQ_LEN, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 17, NUM_TARGETS):
        tokens = stream.tokens.clone()
        tokens[position] = (tokens[position] + 1) % VOCAB_SIZE
        _, after = scored(how, model, Stream(tokens, stream.target_bytes))
        assert torch.equal(before[: position - 1], after[: position - 1]), position
        assert before[position - 1] != after[position - 1]


@every_way
def test_a_change_reaches_only_as_far_as_a_window_unless_the_model_adapts(
    how, model, stream, usual
):
    """The other half of the claim above: through TTT an early token changes late scores."""
    tokens = stream.tokens.clone()
    tokens[5] = (tokens[5] + 1) % VOCAB_SIZE
    _, before = usual[how]
    _, after = scored(how, model, Stream(tokens, stream.target_bytes))
    late = slice(5 + SEQ_LEN, CHUNK)
    assert torch.equal(before[late], after[late])
    assert torch.equal(before[CHUNK + SEQ_LEN :], after[CHUNK + SEQ_LEN :]) == (how not in TTT)


# -- ranks


class Meeting:
    """Where the threads that play ranks add up, in the order of the ranks."""

    def __init__(self, size):
        self.given, self.barrier = [None] * size, threading.Barrier(size, timeout=60)

    def sum_(self, rank, tensor):
        self.given[rank] = tensor.clone()
        self.barrier.wait()
        total = sum(self.given[1:], self.given[0])
        self.barrier.wait()  # nobody gives again before everybody has added
        return total


@dataclass(frozen=True)
class PlayedRank(World):
    meeting: Meeting

    def sum_(self, tensor):
        return self.meeting.sum_(self.rank, tensor)

    def sum_gradients(self, parameters):
        for p in parameters:
            p.grad = self.sum_(torch.zeros_like(p) if p.grad is None else p.grad)


def played(how, size, model, stream):
    """What ``size`` ranks return, each its (score, nats)."""
    meeting = Meeting(size)

    def rank(number):
        try:
            world = PlayedRank(number, size, torch.device("cpu"), meeting)
            return scored(how, model, stream, world=world)
        except BaseException:
            meeting.barrier.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(rank, range(size)))


@every_way
@pytest.mark.parametrize("size", [2, 4])
def test_ranks_together_score_what_one_rank_scores(how, size, model, stream, usual):
    """Tolerance: batches of other sizes; and where the model adapts, three steps on gradients that
    are summed in another order, magnified by 485 in Newton-Schulz (3.4445 in each of five steps,
    the slope of its quintic at zero), that move nats of order 10.
    """
    adapted = 3 * TTT["ttt_muon"].lr * 485 * 64 * EPS * 10
    tolerance = {"slot": 0.0, "ttt": 4 * ROUNDING, "ttt_muon": ROUNDING + adapted}
    results = played(how, size, model, stream)
    assert len({found for found, _ in results}) == 1
    each = torch.stack([nats for _, nats in results])
    assert (each.isfinite().sum(dim=0) == 1).all()
    reference, expected = usual[how]
    atol = tolerance.get(how, ROUNDING)
    torch.testing.assert_close(each.nansum(dim=0), expected, rtol=0.0, atol=atol)
    found = results[0][0]
    assert (found.num_tokens, found.num_bytes) == (reference.num_tokens, reference.num_bytes)
    rounding = NUM_TARGETS * 2.0**-53 * reference.nll
    assert found.nll == pytest.approx(reference.nll, abs=NUM_TARGETS * atol + rounding)


# -- the published tail


class Opinions:
    """A sink that keeps all nats of each target, in order."""

    def __init__(self, num_targets):
        self.of = [[] for _ in range(num_targets)]

    def __call__(self, targets, nll):
        pairs = zip(targets.flatten().tolist(), nll.flatten().tolist(), strict=True)
        for target, nats in pairs:
            self.of[target].append(nats)


@pytest.mark.parametrize("how", ["sliding", *TTT])
def test_the_published_tail_repeats_the_last_stride_and_changes_no_other_score(
    how, model, stream, usual
):
    sink, (reference, nats) = Opinions(NUM_TARGETS), usual[how]
    scoring = RECIPE.scoring.model_copy(update={"batch_seqs": 4, "tail": "published"})
    common = {"world": RANK_0, "sink": sink}
    if how == "sliding":
        plan = windows(NUM_TARGETS, SEQ_LEN, STRIDE, "published")
        result = score(model, stream, plan, batch_seqs=4, **common)
    else:
        private = copy.deepcopy(model)
        result = adapt_and_score(private, stream, scoring=scoring, ttt=TTT[how], **common)
    times, last = SEQ_LEN // STRIDE, NUM_TARGETS - STRIDE
    assert [len(each) for each in sink.of] == [1] * last + [times] * STRIDE
    assert [each[0] for each in sink.of] == nats.tolist()
    assert result.num_tokens == NUM_TARGETS + (times - 1) * STRIDE
    repeated = (times - 1) * int(stream.target_bytes[last:].sum())
    assert result.num_bytes == reference.num_bytes + repeated
    # Tolerance: float64 sums, in whatever order.
    exact = math.fsum(nats for each in sink.of for nats in each)
    assert result.nll == pytest.approx(exact, rel=2 * NUM_TARGETS * 2.0**-53)


def test_a_padded_window_scores_as_the_beginning_of_a_full_one(stream):
    """In every bit, also where longer inputs stretch the positions: that is what padding is for.
    Where they do not, padding changes no score but by rounding."""
    plain, stretching = busy_model(), busy_model({"model.rope_ntk_len": 16})
    for length in (1, 15, 16, 17, 31):
        padded = Window(64, 64, 64 + length, padding=SEQ_LEN - length)
        bare = Window(64, 64, 64 + length)
        full = stream.tokens[64 : 64 + SEQ_LEN + 1][None]
        with torch.inference_mode():
            expected = stretching.nll(full[:, :-1], full[:, 1:])[0, :length]
        assert torch.equal(nats_in(stretching, stream, padded), expected)
        torch.testing.assert_close(
            nats_in(plain, stream, bare), nats_in(plain, stream, padded), rtol=0.0, atol=ROUNDING
        )
        if 1 < length <= 16:  # a single position attends to itself, wherever it stands
            difference = nats_in(stretching, stream, bare) - expected
            assert difference.abs().max() > ROUNDING


def nats_in(model, stream, window):
    sink = Nats(NUM_TARGETS)
    score(model, stream, [window], batch_seqs=1, world=RANK_0, sink=sink)
    return sink.values[window.first_scored : window.end]


def test_padded_windows_of_different_length_share_a_batch(model, stream):
    plan = windows(NUM_TARGETS, SEQ_LEN, 4, "published")[-7:]
    sinks = [Opinions(NUM_TARGETS), Opinions(NUM_TARGETS)]
    for batch_seqs, sink in zip([1, 7], sinks, strict=True):
        score(model, stream, plan, batch_seqs=batch_seqs, world=RANK_0, sink=sink)
    alone, together = (torch.tensor(sink.of[-4:]) for sink in sinks)
    assert alone.shape == (4, 7)
    torch.testing.assert_close(together, alone, rtol=0.0, atol=ROUNDING)
