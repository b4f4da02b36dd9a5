"""A Hessian is the sum of what a matrix really sees, and generated text what the model would say.

N matrices of a parameter, C inputs of a matrix, B sequences, T tokens, V vocabulary.
"""

from itertools import count

import pytest
import torch
import torch.nn.functional as F

from tests.support.tiny import RANK_0, VOCAB_SIZE, busy_model, random_tokens
from trainer.compress.calibration import generate, hessians
from trainer.config import Gptq
from trainer.distributed.world import World
from trainer.optim.parameter_kinds import kind_of

BANKS = ("qo_bank", "kv_bank", "up_bank", "down_bank")
UNDAMPED = Gptq(damping=0.0)
GENERATED = Gptq(calibration="generated", sequences=10, sequence_batch=4)
LENGTH = 12
EPS = 2.0**-24


class Unsummed(World):
    """One of several ranks, whose sums stay its own."""

    def sum_(self, tensor):
        return tensor


def ranks(size):
    return [Unsummed(rank=rank, size=size, device=torch.device("cpu")) for rank in range(size)]


def token_batches(num=3):
    return [random_tokens(4, 16, seed=seed) for seed in range(num)]


@pytest.fixture
def inputs_seen(monkeypatch):
    """What a matrix is multiplied with: alone, or as rows of one that holds several."""
    seen, linear = [], F.linear

    def spy(x, weight, bias=None):
        seen.append((weight.detach().clone(), x.detach().flatten(0, -2).double()))
        return linear(x, weight, bias)

    def inputs_of(matrix):
        return torch.cat([x for weight, x in seen if is_part(matrix, weight)])

    monkeypatch.setattr(F, "linear", spy)
    return inputs_of


def is_part(matrix, weight):
    rows = len(matrix)
    return matrix.size(1) == weight.size(1) and any(
        torch.equal(weight[first : first + rows], matrix) for first in range(len(weight) - rows + 1)
    )


def generated(world=RANK_0, seed=7, config=GENERATED, **options):
    return generate(
        busy_model(),
        config,
        length=LENGTH,
        seed=seed,
        world=world,
        **options,
    )


# -- Hessians


@pytest.mark.parametrize("dim", [8, 16, 32])
def test_every_matrix_has_the_hessian_of_the_inputs_that_it_is_multiplied_with(inputs_seen, dim):
    """An embedding as wide as its target has no projection: those of 32 and of 16 dimensions.
    Tolerance: 3 batches of 64 products each, summed in float32, of the diagonal's size."""
    model = busy_model({"model.bigram.dim": dim, "model.value_embedding.dim": dim})
    found = hessians(model, token_batches(), 3, UNDAMPED, RANK_0)
    weights = dict(model.named_parameters())
    assert set(found) == {n for n in weights if kind_of(n) in ("matrices", "projections")}
    assert ("bigram.proj" in found, "value_embedding.proj" in found) == (dim != 32, dim != 16)
    for name in found:
        bank = weights[name] if weights[name].ndim == 3 else weights[name][None]
        assert found[name].shape == (len(bank), bank.size(2), bank.size(2))
        for matrix, hessian_CC in zip(bank, found[name], strict=True):
            x = inputs_seen(matrix)
            expected = x.T @ x / 3
            atol = 3 * 64 * EPS * expected.diagonal().max()
            assert torch.allclose(hessian_CC.double(), expected, rtol=0, atol=atol)


def test_damping_is_relative_to_the_mean_of_each_diagonal():
    model = busy_model()
    plain, damped = (
        hessians(model, token_batches(), 3, Gptq(damping=damping), RANK_0) for damping in (0, 0.1)
    )
    for name in BANKS:
        for before, after in zip(plain[name], damped[name], strict=True):
            expected = before + 0.1 * before.diagonal().mean() * torch.eye(len(before))
            assert torch.allclose(after, expected, rtol=4 * EPS)


def test_what_sees_nothing_is_damped_all_the_same():
    """By 1e-6 of the damping: the inputs of a model without embeddings are zero everywhere."""
    model = busy_model()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "bank" not in name:
                parameter.zero_()
    found = hessians(model, token_batches(1), 1, Gptq(damping=0.5), RANK_0)
    for hessian_CC in found["up_bank"]:
        assert torch.equal(hessian_CC, 0.5e-6 * torch.eye(len(hessian_CC)))


@pytest.mark.parametrize("size", [2, 5])
def test_the_ranks_together_see_every_batch_once(size):
    """The sums of the ranks add up to that of one; with 5 ranks one of them has nothing to do."""
    model, batches = busy_model(), token_batches(4)
    whole = hessians(model, batches, 4, UNDAMPED, RANK_0)
    parts = [hessians(model, batches, 4, UNDAMPED, world) for world in ranks(size)]
    for name in BANKS:
        together = sum(part[name] for part in parts)
        assert torch.allclose(together, whole[name], rtol=0, atol=8 * EPS * whole[name].max())
    assert any(part["up_bank"].any() for part in parts)
    assert (size == 5) == any(not part["up_bank"].any() for part in parts)


def test_a_rank_computes_nothing_for_the_batches_of_others(inputs_seen):
    model = busy_model()
    hessians(model, token_batches(4), 4, UNDAMPED, ranks(4)[2])
    seen = inputs_seen(model.up_bank[0])
    assert seen.shape == (4 * 16, model.embed.size(1))


def test_no_more_batches_are_taken_than_asked_for():
    endless = (random_tokens(2, 8, seed=seed) for seed in count())
    one = hessians(busy_model(), endless, 2, UNDAMPED, RANK_0)
    assert torch.equal(next(endless), random_tokens(2, 8, seed=2))
    two = hessians(
        busy_model(), [random_tokens(2, 8, seed=seed) for seed in (0, 1)], 2, UNDAMPED, RANK_0
    )
    assert all(torch.equal(one[name], two[name]) for name in BANKS)


def test_under_bfloat16_every_batch_is_a_bfloat16_sum():
    """As published: one batch alone is exactly representable, two together are not."""
    model = busy_model(dtype=torch.bfloat16)
    one, two = (hessians(model, token_batches(n), n, UNDAMPED, RANK_0) for n in (1, 2))
    for name in BANKS:
        assert one[name].dtype == two[name].dtype == torch.float32
        assert torch.equal(one[name], one[name].bfloat16().float())
        assert not torch.equal(two[name], two[name].bfloat16().float())


def test_a_model_can_be_trained_after_calibration():
    """Nothing of inference mode stays in the weights, the Hessians or the generated text."""
    model = busy_model()
    found = hessians(model, token_batches(1), 1, UNDAMPED, RANK_0)
    tokens = generated()[0]
    model.nll(tokens[:, :-1], tokens[:, 1:]).mean().backward()
    assert model.embed.grad is not None
    assert not any(h.is_inference() for h in found.values())


# -- generated text


def test_a_seed_gives_one_text_of_the_shape_that_was_asked_for_and_another_seed_another():
    assert [tuple(batch.shape) for batch in generated()] == [(4, LENGTH), (4, LENGTH), (2, LENGTH)]
    assert torch.cat(generated()).unique().numel() > 20
    assert torch.equal(torch.cat(generated()), torch.cat(generated()))
    assert not torch.equal(torch.cat(generated()), torch.cat(generated(seed=8)))


@pytest.mark.parametrize("size", [2, 4])
def test_the_text_does_not_depend_on_the_number_of_ranks(size):
    """Every rank writes its own batches of the same text and leaves the rest to the sum."""
    whole = torch.cat(generated())
    parts = [torch.cat(generated(world)) for world in ranks(size)]
    assert torch.equal(sum(parts), whole)
    assert all((part == 0).any() for part in parts)


def test_the_draws_are_those_of_multinomial_from_one_generator_in_order():
    """Written once more with the sampler of torch, batch by batch."""
    model, draw = busy_model(), torch.Generator().manual_seed(7)
    for batch in generated():
        tokens = torch.randint(VOCAB_SIZE, (len(batch), 1), generator=draw)
        while tokens.size(1) < LENGTH:
            with torch.inference_mode():
                logits = model.head(model.body(tokens))[:, -1]
            p = torch.softmax(logits / GENERATED.temperature, dim=-1)
            tokens = torch.cat([tokens, torch.multinomial(p, 1, generator=draw)], dim=1)
        assert torch.equal(batch, tokens)


def test_a_low_temperature_says_what_is_most_likely():
    model = busy_model()
    for tokens in generated(config=GENERATED.model_copy(update={"temperature": 1e-4})):
        with torch.inference_mode():
            likely = model.head(model.body(tokens[:, :-1])).argmax(dim=-1)
        assert torch.equal(tokens[:, 1:], likely)


def test_a_beat_is_heard_for_every_token_that_this_rank_draws():
    beats = []
    generated(beat=lambda: beats.append(1))
    assert len(beats) == 3 * (LENGTH - 1)
