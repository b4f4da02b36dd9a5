"""Root-mean-square norm and rotary position embedding: what attention and layers share.

Expressions alone, for every device: a compiler fuses them, and on a CPU backwards written by hand
were no faster (docs/performance.md). Shapes: B sequences, T tokens, H heads, K dimensions of a
head, R pairs that are rotated.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

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
