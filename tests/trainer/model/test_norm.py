"""What is written by hand for a CPU is the expression, in value and in every gradient."""

import pytest
import torch
import torch.nn.functional as F

from tests.support.tiny import tiny_model, tiny_recipe
from trainer.model.attention import rope_table
from trainer.model.loss import mean_capped_nll
from trainer.model.norm import EPS, normed_and_rotated, rms_norm, rotate

CAP = 30.0


def drawn(*shape, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=draw, dtype=torch.float64, requires_grad=True)


def expected_norm(x, scale=1.0):
    return scale * x / (x.square().mean(dim=-1, keepdim=True) + EPS).sqrt()


def same(found, expected, inputs, atol=1e-12):
    """Values and the gradients of some weighted sum."""
    torch.testing.assert_close(found, expected, rtol=0.0, atol=atol)
    weights = drawn(*expected.shape, seed=9).detach() if expected.ndim else 1.0
    for a, b in zip(
        torch.autograd.grad((found * weights).sum(), inputs),
        torch.autograd.grad((expected * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=0.0, atol=atol)


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_the_norm_is_x_over_its_root_mean_square(scale):
    x = drawn(3, 5, 8)
    same(rms_norm(x, scale), expected_norm(x, scale), [x])


def test_a_vector_of_zeros_has_a_norm_and_a_finite_gradient():
    x = torch.zeros(2, 8, requires_grad=True)
    rms_norm(x).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_norm_rotation_and_gain_are_one_after_the_other():
    x, gain = drawn(2, 6, 3, 8), drawn(3, seed=1)
    table = rope_table(6, 4, 100.0)
    found = normed_and_rotated(x, gain, *table)
    same(found, rotate(expected_norm(x), *table) * gain[:, None], [x, gain])


def test_a_part_of_a_wider_tensor_is_normed_and_rotated_in_place_of_a_copy():
    wide, gain = drawn(2, 6, 32), drawn(3, seed=1)
    part = wide[..., :24].unflatten(-1, (3, 8))
    table = rope_table(6, 4, 100.0)
    same(
        normed_and_rotated(part, gain, *table),
        rotate(expected_norm(part), *table) * gain[:, None],
        [wide, gain],
    )


@pytest.mark.parametrize("num_tokens", [1, 128, 300])
@pytest.mark.parametrize("size", [0.1, 30.0])
def test_the_mean_loss_is_the_cross_entropy_of_capped_logits(num_tokens, size):
    hidden, embed = drawn(num_tokens, 8), drawn(50, 8, seed=1)
    hidden = (hidden.detach() * size).requires_grad_()
    targets = torch.randint(50, (num_tokens,), generator=torch.Generator().manual_seed(2))
    logits = CAP * torch.tanh(hidden @ embed.T / CAP)
    same(
        mean_capped_nll(hidden, embed, targets, CAP),
        F.cross_entropy(logits, targets),
        [hidden, embed],
    )


def test_in_float32_the_mean_loss_is_that_of_each_target():
    """2⁻¹⁹ · 2: a logit is off by 1.8e-6 at most, as is the logarithm of their sum."""
    model = tiny_model()
    draw = torch.Generator().manual_seed(3)
    x, y = torch.randint(tiny_recipe().model.vocab_size, (2, 4, 32), generator=draw)
    found, expected = model.mean_nll(x, y), model.nll(x, y).mean()
    assert float(found.detach()) == pytest.approx(float(expected.detach()), abs=2.0**-18)
