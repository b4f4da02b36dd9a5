"""Every target is scored exactly once, by what came before it and by nothing later.

Target t is token t + 1. EPS is half a unit in the last place of a float32 of order one.
"""

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.support.tiny import RANK_0, VOCAB_SIZE, busy_model, random_stream, tiny_recipe
from trainer.scoring.bpb import Score, Stream, score
from trainer.scoring.ttt import adapt_and_score
from trainer.scoring.windows import batches, by_chunk, windows
from trainer.world import World

EPS = 2.0**-24
SEQ_LEN, STRIDE, CHUNK = 32, 16, 64
NUM_TARGETS = 5 * CHUNK + SEQ_LEN  # the last chunk is half a chunk
RECIPE = tiny_recipe({"ttt.chunk_tokens": CHUNK, "ttt.lr": 0.05, "ttt.batch_seqs": 2})

shapes = st.tuples(st.integers(1, 12), st.integers(1, 6)).map(lambda x: (x[0] * x[1], x[0]))


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


def scored(how, model, stream, *, batch_seqs=4, ttt=RECIPE.ttt):
    """(score, nats of each target) by one of three ways."""
    sink = Nats(stream.num_targets)
    if how == "ttt":
        result = adapt_and_score(
            copy.deepcopy(model),
            stream,
            scoring=RECIPE.scoring.model_copy(update={"batch_seqs": batch_seqs}),
            ttt=ttt,
            world=RANK_0,
            sink=sink,
        )
    else:
        plan = windows(stream.num_targets, SEQ_LEN, SEQ_LEN if how == "contiguous" else STRIDE)
        result = score(model, stream, plan, batch_seqs=batch_seqs, world=RANK_0, sink=sink)
    return result, sink.values


@pytest.fixture(scope="module")
def usual(model, stream):
    """What each way scores of the unchanged stream, four windows at a time."""
    return {how: scored(how, model, stream) for how in ("contiguous", "sliding", "ttt")}


every_way = pytest.mark.parametrize("how", ["contiguous", "sliding", "ttt"])


# -- windows


@given(st.integers(1, 300), shapes)
def test_windows_score_every_target_exactly_once_and_in_order(num_targets, shape):
    seq_len, stride = shape
    plan = windows(num_targets, seq_len, stride)
    targets = [t for w in plan for t in range(w.first_scored, w.end)]
    assert targets == list(range(num_targets))
    assert all(w.num_scored >= 1 for w in plan)


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


@given(st.integers(1, 300), st.integers(1, 32))
def test_contiguous_windows_do_not_overlap(num_targets, seq_len):
    plan = windows(num_targets, seq_len, seq_len)
    assert [w.start for w in plan] == list(range(0, num_targets, seq_len))
    assert all(w.first_scored == w.start for w in plan)


@given(st.integers(1, 300), shapes, st.integers(1, 9))
def test_batches_are_the_plan_in_pieces_of_one_shape(num_targets, shape, batch_seqs):
    plan = windows(num_targets, *shape)
    pieces = batches(plan, batch_seqs)
    assert [w for piece in pieces for w in piece] == plan
    for piece in pieces:
        assert 1 <= len(piece) <= batch_seqs
        assert len({(w.length, w.num_scored) for w in piece}) == 1


@given(st.integers(1, 300), shapes, st.integers(1, 4))
def test_chunks_are_the_plan_cut_where_a_scored_part_begins(num_targets, shape, factor):
    chunk = factor * shape[0]
    plan = windows(num_targets, *shape)
    chunks = by_chunk(plan, chunk)
    assert [w for each in chunks for w in each] == plan
    assert len(chunks) == math.ceil(num_targets / chunk)
    for index, each in enumerate(chunks):
        assert each[0].first_scored == index * chunk
        assert each[-1].end == min((index + 1) * chunk, num_targets)


@given(st.integers(0, 50), st.integers(1, 9))
def test_the_shares_of_the_ranks_cover_the_plan_once(num_items, size):
    shares = [World(rank, size, torch.device("cpu")).share(num_items) for rank in range(size)]
    assert [i for share in shares for i in share] == list(range(num_items))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


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


def test_a_model_that_knows_nothing_costs_the_logarithm_of_the_vocabulary(stream):
    """Logits of zero: ln 512 nats a token. Tolerance: a float32 logarithm of order 6."""
    model = busy_model()
    with torch.no_grad():
        model.embed.zero_()
    result, _ = scored("contiguous", model, stream)
    assert result.loss == pytest.approx(math.log(VOCAB_SIZE), abs=8 * EPS * 8)


def test_contiguous_scoring_is_the_stride_of_a_whole_window(model, stream, usual):
    _, contiguous = usual["contiguous"]
    for start in range(0, NUM_TARGETS, SEQ_LEN):
        tokens = stream.tokens[start : start + SEQ_LEN + 1][None]
        with torch.no_grad():
            alone = model.nll(tokens[:, :-1], tokens[:, 1:])[0]
        # Tolerance: the same window in another batch; see the test of batch sizes.
        torch.testing.assert_close(contiguous[start : start + SEQ_LEN], alone, rtol=0, atol=1e-4)


@every_way
@pytest.mark.parametrize("batch_seqs", [1, 3, 64])
def test_the_batch_size_changes_no_more_than_rounding(how, batch_seqs, model, stream, usual):
    """Tolerance: a matrix product may sum its 32 to 64 terms in another order, in each of two
    layers of eight products; nats are of order 10. TTT trains on the same batches whatever the
    scoring batch is."""
    result, nats = scored(how, model, stream, batch_seqs=batch_seqs)
    reference, each = usual[how]
    torch.testing.assert_close(nats, each, rtol=0.0, atol=16 * 64 * EPS * 10)
    assert result.nll == pytest.approx(reference.nll, abs=NUM_TARGETS**0.5 * 16 * 64 * EPS * 10)


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
@pytest.mark.parametrize(
    "position", [1, 2, SEQ_LEN, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 17, NUM_TARGETS]
)
def test_changing_a_later_token_leaves_every_earlier_score_in_every_bit(
    how, position, model, stream, usual
):
    """Token j is the target j − 1, so the targets before j − 1 may not know of it."""
    tokens = stream.tokens.clone()
    tokens[position] = (tokens[position] + 1) % VOCAB_SIZE
    _, before = usual[how]
    _, after = scored(how, model, Stream(tokens, stream.target_bytes))
    assert torch.equal(before[: position - 1], after[: position - 1])
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
    assert torch.equal(before[CHUNK + SEQ_LEN :], after[CHUNK + SEQ_LEN :]) == (how != "ttt")


# -- test-time training


def test_the_first_chunk_is_scored_by_the_model_as_it_came(model, stream):
    _, sliding = scored("sliding", model, stream, batch_seqs=1)
    _, adapted = scored("ttt", model, stream, batch_seqs=1)
    assert torch.equal(sliding[:CHUNK], adapted[:CHUNK])
    assert not torch.equal(sliding[CHUNK:], adapted[CHUNK:])


def test_a_rate_of_zero_is_sliding_in_every_bit(model, stream):
    """One window at a time, so that chunks do not change the shapes of the batches."""
    ttt = RECIPE.ttt.model_copy(update={"lr": 0.0})
    result, adapted = scored("ttt", model, stream, batch_seqs=1, ttt=ttt)
    reference, sliding = scored("sliding", model, stream, batch_seqs=1)
    assert torch.equal(adapted, sliding)
    # Tolerance: float64 sums by chunk and as a whole.
    assert result.nll == pytest.approx(reference.nll, rel=NUM_TARGETS * 2.0**-53)


def test_adapting_a_private_copy_leaves_the_model_alone(stream):
    model = busy_model()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    scored("ttt", model, stream)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert all(p.grad is None for p in model.parameters())


def test_text_that_repeats_itself_is_learned():
    """The same 64 tokens six times: adapting must help from the second chunk on."""
    base = random_stream(CHUNK)
    tokens = torch.cat([base.tokens[:CHUNK].repeat(6), base.tokens[:1]])
    stream = Stream(tokens, base.target_bytes.repeat(6))
    ttt = RECIPE.ttt.model_copy(update={"lr": 0.2, "epochs": 4})
    adapted, _ = scored("ttt", busy_model(), stream, ttt=ttt)
    plain, _ = scored("sliding", busy_model(), stream)
    assert adapted.bpb < 0.9 * plain.bpb


def by_hand(model, stream, ttt):
    """Score-first adaptation written out: one rank, windows and batches made here."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=ttt.lr, momentum=ttt.momentum)
    nats, num_chunks = [], math.ceil(stream.num_targets / CHUNK)
    for chunk in range(num_chunks):
        end = min((chunk + 1) * CHUNK, stream.num_targets)
        t = chunk * CHUNK
        while t < end:
            start = max(0, t + STRIDE - SEQ_LEN)
            stop = SEQ_LEN if t == 0 else t + STRIDE
            tokens = stream.tokens[start : stop + 1][None]
            with torch.no_grad():
                nats.append(model.nll(tokens[:, :-1], tokens[:, 1:])[0, t - start :])
            t = stop
        if chunk == num_chunks - 1:
            break
        optimizer.param_groups[0]["lr"] = (
            ttt.lr * (1 + math.cos(math.pi * chunk / (num_chunks - 1))) / 2
        )
        starts = range(chunk * CHUNK, end, SEQ_LEN)
        for _ in range(ttt.epochs):
            for i in range(0, len(starts), ttt.batch_seqs):
                rows = torch.stack(
                    [stream.tokens[s : s + SEQ_LEN + 1] for s in starts[i : i + ttt.batch_seqs]]
                )
                optimizer.zero_grad()
                model.nll(rows[:, :-1], rows[:, 1:]).mean().backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), ttt.grad_clip)
                optimizer.step()
    return torch.cat(nats)


@pytest.mark.parametrize(
    "change",
    [{}, {"epochs": 3}, {"batch_seqs": 1}, {"momentum": 0.0}, {"grad_clip": 0.01}],
    ids=str,
)
def test_adaptation_is_the_published_procedure(change, model, stream):
    """Tolerance: as for batch sizes, and ten small steps that pass a difference on."""
    ttt = RECIPE.ttt.model_copy(update=change)
    _, found = scored("ttt", model, stream, ttt=ttt)
    expected = by_hand(model, stream, ttt)
    torch.testing.assert_close(found, expected, rtol=0.0, atol=4 * 16 * 64 * EPS * 10)
