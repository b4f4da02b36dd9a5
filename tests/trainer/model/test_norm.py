"""The norm and the rotation are those of their formulas, in value and in gradient.

EPS is half a unit in the last place of a float32 of order one.
"""

import torch

from tests.support.drawn_tensors import normal
from trainer.model.attention import EPS as GUARD
from trainer.model.attention import normed_and_rotated, rms_norm, rope_table, rotate

EPS = 2.0**-24
T = 32


def test_the_norm_is_x_over_its_root_mean_square_with_a_finite_gradient_at_zero():
    x = normal(3, 5, 8).double()
    for scale in (1.0, 0.5):
        expected = scale * x / (x.square().mean(dim=-1, keepdim=True) + GUARD).sqrt()
        torch.testing.assert_close(rms_norm(x, scale), expected, rtol=0.0, atol=1e-12)
    zeros = torch.zeros(2, 8, requires_grad=True)
    rms_norm(zeros).sum().backward()
    assert torch.isfinite(zeros.grad).all()


def test_a_rotation_keeps_lengths_and_leaves_the_other_dimensions_alone():
    """Tolerance: two products and a sum for each component, and cos² + sin² of rounded values."""
    cos, sin = rope_table(T, 8, 10_000.0)
    x = normal(2, T, 3, 16)
    y = rotate(x, cos, sin)
    assert torch.equal(y[..., 8:], x[..., 8:])
    torch.testing.assert_close(y.norm(dim=-1), x.norm(dim=-1), rtol=8 * EPS, atol=0.0)
    assert torch.equal(y[:, 0], x[:, 0])


def test_scores_of_rotated_vectors_depend_on_the_distance_alone():
    """Tolerance: angles of up to T radians in float32 are known to T · EPS, on each side."""
    cos, sin = rope_table(T, 8, 10_000.0)
    q = rotate(normal(1, 1, 1, 8).expand(1, T, 1, 8), cos, sin)[0, :, 0]
    k = rotate(normal(1, 1, 1, 8, seed=1).expand(1, T, 1, 8), cos, sin)[0, :, 0]
    scores = q @ k.T
    size = float(q[0].norm() * k[0].norm())
    torch.testing.assert_close(scores[1:, 1:], scores[:-1, :-1], rtol=0, atol=4 * T * EPS * size)
    assert scores[0, 0].sub(scores[0, 5]).abs() > 0.01 * size


def test_norm_rotation_and_gain_are_one_after_the_other():
    x, gain, table = normal(2, 6, 3, 8), normal(3, seed=1), rope_table(6, 4, 100.0)
    expected = rotate(rms_norm(x), *table) * gain[:, None]
    assert torch.equal(normed_and_rotated(x, gain, *table), expected)
