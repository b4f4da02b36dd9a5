"""What is computed of the last positions alone is what all positions give there.

EPS is half a unit in the last place of a float32 of order one. T tokens, D width, V vocabulary.
"""

import pytest
import torch
import torch.nn.functional as F

from tests.support.reduced import REDUCED
from tests.support.tiny import random_tokens
from trainer.config import load_recipe
from trainer.model import GPT, cross_entropy
from trainer.model.attention import attend
from trainer.model.cross_entropy import capped_nll
from trainer.model.init import initialize

EPS = 2.0**-24
T, STRIDE = 32, 16
LOCAL = {"train.seq_len": T, "scoring.seq_len": T, "scoring.stride": STRIDE}
RECIPES = {**REDUCED, "local": LOCAL}
every_recipe = pytest.mark.parametrize("recipe", RECIPES)
every_tail = pytest.mark.parametrize("tail", [1, STRIDE, T])
# Sums of up to 128 products in another order, in each of eight products of the last layer, of
# values of order ten.
ROUNDING = 8 * 128 * EPS * 10


def busy(recipe, dtype=torch.float32):
    """A model of ``recipe`` at a reduced size, in which every parameter matters."""
    model = GPT(
        load_recipe(recipe, RECIPES[recipe]).model,
        activation="asqu",
        activation_params={},
        num_positions=T,
        dtype=dtype,
    )
    initialize(model, 7)
    draw = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=draw))
    return model


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# -- the body


@every_recipe
@every_tail
def test_the_tail_is_the_last_positions_of_the_whole(recipe, tail):
    model, tokens = busy(recipe), random_tokens(3, T)
    with torch.no_grad():
        whole, found = model.body(tokens), model.body(tokens, tail)
    assert found.shape == (3, tail, model.config.width)
    torch.testing.assert_close(found, whole[:, -tail:], rtol=0.0, atol=ROUNDING)


@every_recipe
def test_a_tail_of_all_positions_is_the_whole_in_every_bit(recipe):
    model, tokens = busy(recipe), random_tokens(3, T)
    with torch.no_grad():
        assert torch.equal(model.body(tokens, T), model.body(tokens))


@every_recipe
@every_tail
def test_the_tail_has_the_gradients_of_the_last_positions_of_the_whole(recipe, tail):
    """Tolerance: sums over up to 3·T positions and through every layer, each as above, in terms of
    the largest gradient."""
    model, tokens = busy(recipe), random_tokens(3, T + 1)
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    weights = list(model.parameters())
    expected = torch.autograd.grad(model.nll(inputs, targets)[:, -tail:].sum(), weights)
    found = torch.autograd.grad(model.nll(inputs, targets, tail).sum(), weights)
    largest = max(float(g.abs().max()) for g in expected)
    for (name, _), g, reference in zip(model.named_parameters(), found, expected, strict=True):
        assert reference.any(), name
        torch.testing.assert_close(g, reference, rtol=0.0, atol=ROUNDING * largest)


@every_recipe
@pytest.mark.parametrize("position", [0, T - STRIDE, T - STRIDE + 1, T - 1])
def test_changing_a_token_changes_no_earlier_state_of_the_tail_in_any_bit(recipe, position):
    model, tokens = busy(recipe), random_tokens(2, T)
    changed = tokens.clone()
    changed[:, position] = (changed[:, position] + 1) % model.config.vocab_size
    with torch.no_grad():
        before, after = model.body(tokens, STRIDE), model.body(changed, STRIDE)
    first = max(0, position - (T - STRIDE))
    assert torch.equal(before[:, :first], after[:, :first])
    assert not torch.equal(before[:, first], after[:, first])


@every_recipe
def test_a_tap_is_shown_what_is_computed_and_changes_nothing(recipe):
    """Keys and values need all positions of the last layer; nothing else of it does."""
    model, tokens, seen = busy(recipe), random_tokens(2, T), {}
    with torch.no_grad():
        plain = model.body(tokens, STRIDE)
        tapped = model.body(
            tokens, STRIDE, tap=lambda what, layer, x: seen.update({(what, layer): x})
        )
    assert torch.equal(tapped, plain)
    last = model.config.num_layers - 1
    for (what, layer), x in seen.items():
        assert x.shape[1] == (STRIDE if layer == last and what != "attention_in" else T), what


@every_tail
@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (4, 2), (4, 1)])
def test_the_last_queries_see_their_own_and_earlier_keys(tail, heads, groups):
    """In float64. Tolerance: exponentials and sums of T terms of order one."""
    q, k, v = (normal(2, T, n, 8, seed=n + 1).double() for n in (heads, groups, groups))
    torch.testing.assert_close(
        attend(q[:, -tail:], k, v), attend(q, k, v)[:, -tail:], rtol=0, atol=1e-13
    )


# -- the cross-entropy


def exact_nll(hidden, embed, targets, cap):
    z = hidden.double() @ embed.double().T
    return F.cross_entropy(cap * torch.tanh(z / cap), targets, reduction="none")


@pytest.mark.parametrize("cap", [5.0, 30.0, 100.0])
@pytest.mark.parametrize("logits_at_once", [1, 4 * 300, 2**17])
def test_the_nats_are_those_of_capped_logits(cap, logits_at_once, monkeypatch):
    """Tolerance: s = sigmoid(…) is known to 2·EPS, a logit is 2·cap of it, rounded as a number of
    up to 2·cap; z sums 32 products of order ten; nats are a difference of two such."""
    monkeypatch.setitem(cross_entropy.LOGITS_AT_ONCE, "cpu", logits_at_once)
    hidden, embed = normal(21, 32), 2 * normal(300, 32, seed=1)
    targets = torch.randint(300, (21,), generator=torch.Generator().manual_seed(2))
    found = capped_nll(hidden, embed, targets, cap)
    assert found.dtype == torch.float32
    atol = 2 * (4 * EPS * 2 * cap + 32 * EPS * 10)
    expected = exact_nll(hidden, embed, targets, cap)
    torch.testing.assert_close(found.double(), expected, rtol=0.0, atol=atol)


def test_the_nats_of_many_targets_have_no_common_error():
    """1e-6 bits per byte are 1.4e-6 nats for a token of two bytes. A mean of 20,000."""
    hidden, embed = F.normalize(normal(20_000, 64), dim=1) * 8, normal(1024, 64, seed=1)
    targets = torch.randint(1024, (20_000,), generator=torch.Generator().manual_seed(2))
    apart = capped_nll(hidden, embed, targets, 30.0).double() - exact_nll(
        hidden, embed, targets, 30.0
    )
    assert apart.mean().abs() < 2e-7


def test_without_a_gradient_the_nats_are_those_of_training():
    """Tolerance: as above, for a cap of 30 and 64 products."""
    model, tokens = busy("pr549"), random_tokens(3, T + 1)
    trained = model.nll(tokens[:, :-1], tokens[:, 1:])
    assert trained.requires_grad
    with torch.no_grad():
        scored = model.nll(tokens[:, :-1], tokens[:, 1:])
    atol = 2 * (4 * EPS * 60 + 64 * EPS * 30) + 64 * EPS * 10
    torch.testing.assert_close(scored, trained.detach(), rtol=0.0, atol=atol)


def test_in_bfloat16_the_nats_are_those_of_the_head():
    """Logits are rounded to bfloat16 by both; after that both compute in float32."""
    model, tokens = busy("pr549", torch.bfloat16), random_tokens(3, T + 1)
    model.set_precision()
    with torch.no_grad():
        hidden = model.body(tokens[:, :-1])
        logits = model.head(hidden).flatten(0, 1)
        expected = F.cross_entropy(logits, tokens[:, 1:].flatten(), reduction="none")
        found = model.nll_of(hidden, tokens[:, 1:]).flatten()
    torch.testing.assert_close(found, expected, rtol=0.0, atol=2 * (4 * EPS * 60 + 8 * EPS * 60))
