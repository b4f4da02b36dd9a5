"""Nats of capped logits, in training and in scoring.

EPS is half a unit in the last place of a float32 of order one. z sums 32 or 64 products.
"""

import pytest
import torch
import torch.nn.functional as F

from tests.support.drawn_tensors import normal
from tests.support.tiny import busy_model, random_tokens
from trainer.model import cross_entropy
from trainer.model.cross_entropy import capped_nll

EPS = 2.0**-24


def exact_nll(hidden, embed, targets, cap):
    z = hidden.double() @ embed.double().T
    return F.cross_entropy(cap * torch.tanh(z / cap), targets, reduction="none")


def targets_of(num, vocab_size):
    return torch.randint(vocab_size, (num,), generator=torch.Generator().manual_seed(2))


def test_the_nats_are_those_of_capped_logits_however_many_exist_at_once(monkeypatch):
    """Tolerance: s = sigmoid(…) is known to 2·EPS, a logit is 2·cap of it, rounded as a number of
    up to 2·cap; z sums 32 products of order ten; nats are a difference of two such."""
    hidden, embed, targets = normal(21, 32), 2 * normal(300, 32, seed=1), targets_of(21, 300)
    for cap in (5.0, 30.0, 100.0):
        atol = 2 * (4 * EPS * 2 * cap + 32 * EPS * 10)
        expected = exact_nll(hidden, embed, targets, cap)
        for logits_at_once in (1, 4 * 300, 2**17):
            monkeypatch.setitem(cross_entropy.LOGITS_AT_ONCE, "cpu", logits_at_once)
            with torch.no_grad():
                found = capped_nll(hidden, embed, targets, cap)
            assert found.dtype == torch.float32
            torch.testing.assert_close(found.double(), expected, rtol=0.0, atol=atol)
        trained = capped_nll(hidden.requires_grad_(), embed, targets, cap).detach()
        torch.testing.assert_close(trained.double(), expected, rtol=0.0, atol=atol)


@pytest.mark.parametrize("size", [0.1, 30.0])
def test_the_gradients_are_those_of_capped_logits(size):
    """In float64, far below the cap and near it."""
    hidden = (size * normal(40, 8)).double().requires_grad_()
    embed = normal(50, 8, seed=1).double().requires_grad_()
    targets = targets_of(40, 50)
    found = capped_nll(hidden, embed, targets, 30.0)  # whose logits are float32
    expected = exact_nll(hidden, embed, targets, 30.0)
    for a, b in zip(
        torch.autograd.grad(found.mean(), [hidden, embed]),
        torch.autograd.grad(expected.mean(), [hidden, embed]),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=0.0, atol=64 * EPS * float(b.abs().max()))


def test_the_nats_of_many_targets_have_no_common_error():
    """1e-6 bits per byte are 1.4e-6 nats for a token of two bytes. A mean of 20,000."""
    hidden, embed = F.normalize(normal(20_000, 64), dim=1) * 8, normal(1024, 64, seed=1)
    targets = targets_of(20_000, 1024)
    with torch.no_grad():
        found = capped_nll(hidden, embed, targets, 30.0).double()
    assert (found - exact_nll(hidden, embed, targets, 30.0)).mean().abs() < 2e-7


def test_in_bfloat16_the_nats_are_those_of_the_head():
    """Logits are rounded to bfloat16 by both; after that both compute in float32."""
    model, tokens = busy_model(dtype=torch.bfloat16), random_tokens(3, 33)
    model.set_precision()
    with torch.no_grad():
        hidden = model.body(tokens[:, :-1])
        logits = model.head(hidden).flatten(0, 1)
        expected = F.cross_entropy(logits, tokens[:, 1:].flatten(), reduction="none")
        found = model.nll_of(hidden, tokens[:, 1:]).flatten()
    torch.testing.assert_close(found, expected, rtol=0.0, atol=2 * (4 * EPS * 60 + 8 * EPS * 60))
