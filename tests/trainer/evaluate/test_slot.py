"""SLOT fits what it says it fits, on what it says; and the published mode is shown to be illegal.

That causal SLOT scores every target once and knows no later token is claimed in test_scoring.py,
for every way of scoring. EPS is half a unit in the last place of a float32 of order one.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tests.support.tiny import RANK_0, VOCAB_SIZE, busy_model, random_stream, tiny_recipe
from trainer.config import Slot
from trainer.distributed.world import World
from trainer.evaluate.bpb import Stream, score
from trainer.evaluate.slot import slot_batches, slot_is_legal, slot_score
from trainer.evaluate.windows import windows

EPS = 2.0**-24
SEQ_LEN, STRIDE, NUM_TARGETS = 32, 8, 128
SCORING = tiny_recipe({"scoring.stride": STRIDE}).scoring
TAILS = {tail: SCORING.model_copy(update={"tail": tail}) for tail in ("once", "published")}
SHARED = Slot(mode="published", lr=0.02, steps=3, batch_seqs=4, eps=0.1)
OWN = SHARED.model_copy(update={"mode": "causal"})
# As in test_scoring.py: rounding of nats, and what a shift fitted on rounded gradients adds.
ROUNDING = 16 * 64 * EPS * 10
SHIFTED_ROUNDING = ROUNDING + OWN.steps * OWN.lr * (ROUNDING / 10) / OWN.eps * 32

either_mode = pytest.mark.parametrize("slot", [SHARED, OWN], ids=["published", "causal"])


@pytest.fixture(scope="module")
def model():
    return busy_model()


@pytest.fixture(scope="module")
def stream():
    return random_stream(NUM_TARGETS)


class Opinions:
    """A sink that keeps (target, nats) in the order of the scores."""

    def __init__(self):
        self.targets, self.nats = [], []

    def __call__(self, targets, nll):
        self.targets += targets.flatten().tolist()
        self.nats += nll.flatten().tolist()


def shifted(model, stream, slot, *, scoring=SCORING, virtual_world=1, world=RANK_0):
    """(score, opinions)"""
    sink = Opinions()
    found = slot_score(
        model,
        stream,
        scoring=scoring,
        slot=slot,
        virtual_world=virtual_world,
        world=world,
        sink=sink,
    )
    return found, sink


def nats_of(sink):
    """Of each target once, by target; where it is scored again the first opinion counts."""
    pairs = zip(reversed(sink.targets), reversed(sink.nats), strict=True)
    return torch.tensor([nats for _, nats in sorted(dict(pairs).items())])


# -- against both modes written out


def text_of(stream, window):
    """Inputs and targets of one window, filled up with token 0."""
    text = stream.tokens[window.start : window.end + 1]
    missing = SEQ_LEN - window.length
    return F.pad(text[:-1], (0, missing)), F.pad(text[1:], (0, missing))


def fit(model, hidden, loss_of, slot):
    """A shift of D elements that AdamW has made of zero on ``loss_of(logits)``."""
    delta = torch.zeros(hidden.shape[-1], requires_grad=True)
    optimizer = torch.optim.AdamW(
        [delta], slot.lr, (slot.beta1, slot.beta2), slot.eps, slot.weight_decay
    )
    for _ in range(slot.steps):
        optimizer.zero_grad()
        loss_of(model.head(hidden + delta)).backward()
        optimizer.step()
    return delta.detach()


def add_opinions(model, stream, window, hidden_TD, sink):
    scored = range(window.first_scored, window.end)
    inside = slice(scored.start - window.start, scored.stop - window.start)
    _, targets = text_of(stream, window)
    with torch.no_grad():
        logits = model.head(hidden_TD[None])[0, inside]
    sink(torch.tensor(scored), F.cross_entropy(logits, targets[inside], reduction="none"))


def causal_by_hand(model, stream, plan, slot):
    sink = Opinions()
    for window in plan:
        tokens, targets = text_of(stream, window)
        with torch.no_grad():
            hidden = model.body(tokens[None])
        known, delta = window.first_scored - window.start, 0.0
        if known:
            delta = fit(
                model,
                hidden[:, :known],
                lambda logits, known=targets[:known]: F.cross_entropy(logits[0], known),
                slot,
            )
        add_opinions(model, stream, window, hidden[0] + delta, sink)
    return sink


def published_by_hand(model, stream, plan, slot, virtual_world):
    sink, count = Opinions(), len(plan)
    for rank in range(virtual_world):
        mine = plan[count * rank // virtual_world : count * (rank + 1) // virtual_world]
        while mine:
            batch, mine = mine[: slot.batch_seqs], mine[slot.batch_seqs :]
            texts = [text_of(stream, window) for window in batch]
            targets = torch.stack([wanted for _, wanted in texts])
            with torch.no_grad():
                hidden = model.body(torch.stack([tokens for tokens, _ in texts]))
            delta = fit(
                model,
                hidden,
                lambda logits, all_=targets: F.cross_entropy(logits.mT, all_),
                slot,
            )
            for window, hidden_TD in zip(batch, hidden, strict=True):
                add_opinions(model, stream, window, hidden_TD + delta, sink)
    return sink


every_setting = pytest.mark.parametrize(
    ("change", "scoring"),
    [
        ({}, TAILS["once"]),
        ({"steps": 1}, TAILS["published"]),
        ({"weight_decay": 20.0, "beta1": 0.5, "beta2": 0.7}, TAILS["once"]),
        ({"batch_seqs": 7}, TAILS["published"]),
    ],
    ids=["as it is", "a step", "decay", "a batch"],
)


@every_setting
def test_causal_slot_fits_every_window_by_itself(change, scoring, model, stream):
    slot = OWN.model_copy(update=change)
    _, found = shifted(model, stream, slot, scoring=scoring, virtual_world=2)
    plan = windows(NUM_TARGETS, SEQ_LEN, STRIDE, scoring.tail)
    assert_same_opinions(found, causal_by_hand(copy.deepcopy(model), stream, plan, slot))


@every_setting
def test_published_slot_fits_a_batch_on_all_of_its_positions(change, scoring, model, stream):
    """Those of the padding too, whose target is token 0."""
    slot = SHARED.model_copy(update=change)
    _, found = shifted(model, stream, slot, scoring=scoring, virtual_world=3)
    plan = windows(NUM_TARGETS, SEQ_LEN, STRIDE, scoring.tail)
    assert_same_opinions(found, published_by_hand(copy.deepcopy(model), stream, plan, slot, 3))


def assert_same_opinions(found, expected):
    assert found.targets == expected.targets
    torch.testing.assert_close(found.nats, expected.nats, rtol=0.0, atol=SHIFTED_ROUNDING)


# -- what counts


@either_mode
def test_without_a_rate_slot_is_sliding(slot, model, stream):
    plan, sink = windows(NUM_TARGETS, SEQ_LEN, STRIDE), Opinions()
    plain = score(model, stream, plan, batch_seqs=4, world=RANK_0, sink=sink)
    found, still = shifted(model, stream, slot.model_copy(update={"lr": 0.0}))
    torch.testing.assert_close(nats_of(still), nats_of(sink), rtol=0.0, atol=ROUNDING)
    assert (found.num_tokens, found.num_bytes) == (plain.num_tokens, plain.num_bytes)


@either_mode
def test_a_repeated_tail_is_counted_as_often_as_it_is_scored(slot, model, stream):
    found, sink = shifted(model, stream, slot, scoring=TAILS["published"])
    times, last = SEQ_LEN // STRIDE, NUM_TARGETS - STRIDE
    assert sorted(sink.targets) == sorted([*range(last), *list(range(last, NUM_TARGETS)) * times])
    assert found.num_tokens == NUM_TARGETS + (times - 1) * STRIDE
    repeated = (times - 1) * int(stream.target_bytes[last:].sum())
    assert found.num_bytes == int(stream.target_bytes.sum()) + repeated
    # Tolerance: float64 sums, in whatever order.
    assert found.nll == pytest.approx(sum(sink.nats), rel=2 * NUM_TARGETS * 2.0**-53)


@either_mode
def test_contiguous_windows_have_nothing_to_fit_on_that_is_already_scored(slot, model, stream):
    """So causal SLOT is the plain score, and published SLOT is not."""
    scoring = SCORING.model_copy(update={"stride": SEQ_LEN})
    _, still = shifted(model, stream, slot.model_copy(update={"lr": 0.0}), scoring=scoring)
    _, found = shifted(model, stream, slot, scoring=scoring)
    assert torch.equal(nats_of(found), nats_of(still)) == (slot.mode == "causal")


@either_mode
def test_the_precision_of_the_published_models_changes_no_more_than_its_rounding(
    slot, model, stream
):
    """Tolerance: 2⁻⁸ of nats of order 10, in each of 16 products one after the other, at random."""
    rounded = busy_model(dtype=torch.bfloat16)
    rounded.set_precision()
    nats, expected = (nats_of(shifted(m, stream, slot)[1]) for m in (rounded, model))
    torch.testing.assert_close(nats, expected, rtol=0.0, atol=16**0.5 * 2.0**-8 * 10)


@either_mode
def test_the_model_is_left_as_it_was(slot, stream):
    model = busy_model()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    shifted(model, stream, slot)
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name])
        assert p.grad is None


# -- batches and ranks


@given(st.integers(0, 120), st.integers(1, 9), st.integers(1, 8))
def test_batches_are_cut_within_the_shares_of_virtual_ranks(count, batch_seqs, virtual_world):
    plan = windows(max(count, 1), 4, 1)
    found = slot_batches(plan, batch_seqs, virtual_world)
    expected = []
    for rank in range(virtual_world):
        share = World(rank, virtual_world, torch.device("cpu")).own_range(len(plan))
        mine = plan[share.start : share.stop]
        expected += [mine[i : i + batch_seqs] for i in range(0, len(mine), batch_seqs)]
    assert found == expected


def test_the_first_window_shares_a_batch_with_windows_of_another_shape():
    plan = windows(NUM_TARGETS, SEQ_LEN, STRIDE, "published")
    first, *_, last = slot_batches(plan, 4, virtual_world=1)
    assert len({w.num_scored for w in first}) == 2
    assert len({w.length for w in last}) == 4


class Lonely(World):
    """A rank that is told the sums of nobody else, so that a test can add them."""

    def sum_(self, tensor):
        return tensor


@either_mode
@pytest.mark.parametrize(("virtual_world", "size"), [(1, 2), (4, 2)])
def test_ranks_together_score_in_every_bit_what_one_rank_scores(
    slot, virtual_world, size, model, stream
):
    whole, expected = shifted(model, stream, slot, virtual_world=virtual_world)
    parts, targets, nats = [], [], []
    for rank in range(size):
        world = Lonely(rank, size, torch.device("cpu"))
        part, sink = shifted(model, stream, slot, virtual_world=virtual_world, world=world)
        parts.append(part)
        targets += sink.targets
        nats += sink.nats
    assert (targets, nats) == (expected.targets, expected.nats)
    assert sum(part.num_tokens for part in parts) == whole.num_tokens
    assert sum(part.num_bytes for part in parts) == whole.num_bytes
    # Tolerance: float64 sums, in whatever order.
    total = sum(part.nll for part in parts)
    assert total == pytest.approx(whole.nll, rel=NUM_TARGETS * 2.0**-53)


def test_virtual_ranks_matter_to_what_is_fitted_together_and_to_nothing_else(model, stream):
    for slot in (SHARED, OWN):
        nats = [nats_of(shifted(model, stream, slot, virtual_world=size)[1]) for size in (1, 2, 5)]
        for others in nats[1:]:
            change = (others - nats[0]).abs().max()
            assert (change < SHIFTED_ROUNDING) == (slot.mode == "causal")


# -- legality


def changed_earlier_scores(model, stream, slot, position):
    """Whether another token at ``position`` changes a score of a target before it."""
    tokens = stream.tokens.clone()
    tokens[position] = (tokens[position] + 1) % VOCAB_SIZE
    _, before = shifted(model, stream, slot)
    _, after = shifted(model, Stream(tokens, stream.target_bytes), slot)
    earlier = slice(0, position - 1)  # token j is the target j − 1
    return not torch.equal(nats_of(before)[earlier], nats_of(after)[earlier])


def test_the_published_mode_lets_later_tokens_change_earlier_scores(model, stream):
    """And with it, that the test of causality can fail. Only the other mode is called legal."""
    for position in (SEQ_LEN, 64, 65, NUM_TARGETS):
        assert changed_earlier_scores(model, stream, SHARED, position)
        assert not changed_earlier_scores(model, stream, OWN, position)
    assert slot_is_legal(OWN)
    assert not slot_is_legal(SHARED)
