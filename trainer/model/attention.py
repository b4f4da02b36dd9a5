"""Causal grouped-query attention with normalised queries and keys, partial RoPE and XSA.

Shapes: B sequences, T tokens, S of the last of them that ask, H query heads, G key-value heads, K
dimensions of a head, R pairs of them that are rotated. Pure functions; the model owns the weights.
Norm and rotation are expressions alone, for every device: a compiler fuses them, and on a CPU
backwards written by hand were no faster (docs/performance.md).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
EPS = torch.finfo(torch.float32).eps


def rms_norm(x: Tensor, scale: float = 1.0) -> Tensor:
    """``scale`` times x over its root mean square along the last dimension, no learned weight.

    In the type of ``x``: some versions of torch return float32 under CUDA's autocast.
    """
    y = F.rms_norm(x, (x.size(-1),), eps=EPS).to(x.dtype)
    return y if scale == 1.0 else y * scale


def rotate(x_BTHK: Tensor, cos_TR: Tensor, sin_TR: Tensor) -> Tensor:
    """Rotate the first 2R dimensions by −θ, halves paired; the others pass unchanged."""
    half = cos_TR.size(-1)
    cos, sin = cos_TR[:, None].to(x_BTHK.dtype), sin_TR[:, None].to(x_BTHK.dtype)
    first, second, rest = x_BTHK.split([half, half, x_BTHK.size(-1) - 2 * half], dim=-1)
    return torch.cat([first * cos + second * sin, second * cos - first * sin, rest], dim=-1)


def normed_and_rotated(x_BTHK: Tensor, gain_H: Tensor, cos_TR: Tensor, sin_TR: Tensor) -> Tensor:
    """rotate(rms_norm(x)) · gain, the gain of each head."""
    return rotate(rms_norm(x_BTHK), cos_TR, sin_TR) * gain_H[:, None].to(x_BTHK.dtype)


def rope_table(
    num_positions: int, rope_dims: int, base: float, rounded_to: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Cosine and sine of position · base^(−2i / rope_dims), float32 (num_positions, rope_dims / 2).

    ``rounded_to`` is the type that the frequencies pass through; angles are float32.
    """
    frequencies = base ** (-torch.arange(0, rope_dims, 2, dtype=torch.float32) / rope_dims)
    frequencies = frequencies.to(rounded_to).float()
    angles = torch.outer(torch.arange(num_positions, dtype=torch.float32), frequencies)
    return angles.cos(), angles.sin()


def stretched_base(base: float, rope_dims: int, length: int, ntk_len: int) -> float:
    """The NTK-aware base for sequences of ``length`` > ``ntk_len``: base · (length / ntk_len)^p.

    p = rope_dims / (rope_dims − 2), with which the slowest frequency falls by the whole factor.

    >>> round(stretched_base(10000.0, 16, 2048, 1024))
    22082
    """
    return base * (length / ntk_len) ** (rope_dims / (rope_dims - 2))


def attend(q_BSHK: Tensor, k_BTGK: Tensor, v_BTGK: Tensor) -> Tensor:
    """Softmax attention of the last S positions to their own and earlier ones; scale 1/√K."""
    num_queries, num_keys = q_BSHK.size(1), k_BTGK.size(1)
    q, k, v = q_BSHK.transpose(1, 2), k_BTGK.transpose(1, 2), v_BTGK.transpose(1, 2)
    if num_queries == num_keys:
        grouped = q_BSHK.size(2) != k_BTGK.size(2)
        y_BHSK = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
    else:
        # torch's own causal mask lets query i see key i, which is not its position. And on CUDA no
        # kernel but the one that keeps all scores takes groups together with a mask: so the heads
        # of a group are laid behind one another, as more queries of one head.
        batch, groups, _, dim = k.shape
        seen = _seen(num_queries, num_keys, q.device).repeat(q.size(1) // groups, 1)
        y = F.scaled_dot_product_attention(q.reshape(batch, groups, -1, dim), k, v, attn_mask=seen)
        y_BHSK = y.reshape(q.shape)
    return y_BHSK.transpose(1, 2)


def _seen(num_queries: int, num_keys: int, device: torch.device) -> Tensor:
    """Which keys each of the last positions sees, bool (S, T)."""
    every_ST = torch.ones(num_queries, num_keys, dtype=torch.bool, device=device)
    return every_ST.tril(num_keys - num_queries)


def exclude_self(y_BTHK: Tensor, v_BTGK: Tensor) -> Tensor:
    """XSA: remove from each head's output its projection on the value at the same position.

    The remainder is orthogonal to that value up to rounding; a zero value removes nothing. In the
    type of ``y``: CUDA's autocast computes norms and sums in float32.
    """
    batch, length, heads, dim = y_BTHK.shape
    groups = v_BTGK.size(2)
    unit_BTG1K = F.normalize(v_BTGK, dim=-1, eps=1e-12).unsqueeze(3)
    y_BTGHK = y_BTHK.reshape(batch, length, groups, heads // groups, dim)
    along = (y_BTGHK * unit_BTG1K).sum(dim=-1, keepdim=True)
    return (y_BTGHK - along * unit_BTG1K).reshape(batch, length, heads, dim).to(y_BTHK.dtype)
