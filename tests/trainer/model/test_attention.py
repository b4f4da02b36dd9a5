"""Attention is a causal softmax, and XSA removes a projection.

B sequences, T tokens, H query heads, G key-value heads, K dimensions of a head. EPS is half a unit
in the last place of a float32 of order one.
"""

import torch

from tests.support.drawn_tensors import normal
from trainer.model.attention import attend, exclude_self

EPS = 2.0**-24
T = 32


def test_attention_is_a_softmax_over_its_own_and_earlier_positions_of_repeated_keys():
    """In float64; query heads g·H/G … belong to group g, and the last queries alone see the same.
    Tolerance: exponentials and sums of T terms of order one."""
    future = torch.ones(T, T, dtype=torch.bool).triu(1)
    for heads, groups in ((4, 4), (4, 2), (4, 1), (6, 2)):
        q, k, v = (normal(2, T, n, 8, seed=n + 1).double() for n in (heads, groups, groups))
        keys, values = (x.repeat_interleave(heads // groups, dim=2) for x in (k, v))
        scores = torch.einsum("bthk,bshk->bhts", q, keys) / 8**0.5
        weights = scores.masked_fill(future, float("-inf")).softmax(dim=-1)
        expected = torch.einsum("bhts,bshk->bthk", weights, values)
        torch.testing.assert_close(attend(q, k, v), expected, rtol=0.0, atol=1e-13)
        for tail in (1, 16, T):
            found = attend(q[:, -tail:], k, v)
            torch.testing.assert_close(found, expected[:, -tail:], rtol=0.0, atol=1e-13)


def test_no_kernel_is_asked_for_groups_together_with_a_mask(monkeypatch):
    """On CUDA the flash kernel takes no mask, and the one that takes it no groups."""
    exact, asked = torch.nn.functional.scaled_dot_product_attention, []

    def asks(*tensors, attn_mask=None, is_causal=False, enable_gqa=False):
        asked.append((attn_mask is not None, is_causal, enable_gqa))
        return exact(*tensors, attn_mask=attn_mask, is_causal=is_causal, enable_gqa=enable_gqa)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", asks)
    q, k, v = normal(2, T, 4, 8), normal(2, T, 2, 8, seed=1), normal(2, T, 2, 8, seed=2)
    attend(q, k, v), attend(q[:, -8:], k, v)
    assert asked == [(False, True, True), (True, False, False)]


def test_what_xsa_leaves_is_orthogonal_to_the_groups_own_value():
    """Tolerance: 16 products, a unit vector and a difference, of lengths |y| and |v|."""
    for heads, groups in ((4, 4), (4, 2), (2, 1)):
        y, v = normal(2, T, heads, 16), normal(2, T, groups, 16, seed=1)
        left = exclude_self(y, v)
        own = v.repeat_interleave(heads // groups, dim=2)
        cosine = (left * own).sum(-1) / (y.norm(dim=-1) * own.norm(dim=-1))
        assert cosine.abs().max() < 32 * EPS
        # Nothing else is removed: what is missing lies along v.
        removed = y - left
        along = (removed * own).sum(-1, keepdim=True) * own / own.square().sum(-1, keepdim=True)
        assert (removed - along).abs().max() < 64 * EPS * float(y.norm(dim=-1).max())
    assert torch.equal(exclude_self(y, torch.zeros_like(v)), y)
