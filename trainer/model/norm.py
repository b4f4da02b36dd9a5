"""How are vectors normalised in few passes over memory? What attention and layers share.

Of small tensors on a CPU it is the number of operations that costs, and autograd takes some twenty
for the backward of a norm and a rotation. So where that is so they are functions with a backward of
their own; elsewhere they are expressions, which a compiler fuses. Tests hold the one against the
other. Shapes: B sequences, T tokens, H heads, K dimensions of a head, R pairs that are rotated.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = torch.finfo(torch.float32).eps


def rms_norm(x: Tensor, scale: float = 1.0) -> Tensor:
    """``scale`` times x over its root mean square along the last dimension, no learned weight.

    In the type of ``x``: some versions of torch return float32 under CUDA's autocast.
    """
    if _is_by_hand(x):
        y: Tensor = _RmsNorm.apply(x, scale)
        return y
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
    if _is_by_hand(x_BTHK):
        y: Tensor = _NormedAndRotated.apply(x_BTHK, gain_H.to(x_BTHK.dtype), cos_TR, sin_TR)
        return y
    return rotate(rms_norm(x_BTHK), cos_TR, sin_TR) * gain_H[:, None].to(x_BTHK.dtype)


def _is_by_hand(x: Tensor) -> bool:
    is_exact = x.dtype in (torch.float32, torch.float64)
    return x.device.type == "cpu" and is_exact and not torch.compiler.is_compiling()


def _inverse_rms(x: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return norm.square_().div_(x.size(-1)).add_(EPS).rsqrt_()


def _through_norm(gradient: Tensor, x: Tensor, inverse: Tensor, along: Tensor) -> Tensor:
    """The gradient of x of y = x · inverse, over ``inverse``; ``along`` is Σ gradient · x."""
    return torch.addcmul(gradient, x, inverse.square().mul_(along).div_(-x.size(-1)))


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        inverse = _inverse_rms(x)
        ctx.save_for_backward(x, inverse)
        ctx.scale = scale
        return x * (inverse if scale == 1.0 else inverse * scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        x, inverse = ctx.saved_tensors
        (gradient,) = gradients
        along = torch.linalg.vecdot(gradient, x).unsqueeze(-1)
        return _through_norm(gradient, x, inverse, along).mul_(inverse * ctx.scale), None


class _NormedAndRotated(torch.autograd.Function):
    """A rotation keeps the products of vectors, so the gradient of the gain needs no rotated x."""

    @staticmethod
    def forward(ctx: Any, x_BTHK: Tensor, gain_H: Tensor, cos_TR: Tensor, sin_TR: Tensor) -> Tensor:
        inverse_BTH1 = _inverse_rms(x_BTHK)
        cos, sin = cos_TR[:, None].to(x_BTHK.dtype), sin_TR[:, None].to(x_BTHK.dtype)
        ctx.save_for_backward(x_BTHK, gain_H, cos, sin, inverse_BTH1)
        return _turned(x_BTHK, cos, sin, forth=True).mul_(inverse_BTH1 * gain_H[:, None])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x_BTHK, gain_H, cos, sin, inverse_BTH1 = ctx.saved_tensors
        back_BTHK = _turned(gradients[0], cos, sin, forth=False)
        along_BTH1 = torch.linalg.vecdot(back_BTHK, x_BTHK).unsqueeze(-1)
        to_gain_H = (along_BTH1 * inverse_BTH1).sum(dim=(0, 1, 3))
        to_x = _through_norm(back_BTHK, x_BTHK, inverse_BTH1, along_BTH1)
        return to_x.mul_(inverse_BTH1 * gain_H[:, None]), to_gain_H, None, None


def _turned(x_BTHK: Tensor, cos: Tensor, sin: Tensor, *, forth: bool) -> Tensor:
    """:func:`rotate`, or back again."""
    half, sign = cos.size(-1), 1.0 if forth else -1.0
    turned = torch.empty(x_BTHK.shape, dtype=x_BTHK.dtype)
    first, second = x_BTHK[..., :half], x_BTHK[..., half : 2 * half]
    torch.mul(first, cos, out=turned[..., :half]).addcmul_(second, sin, value=sign)
    torch.mul(second, cos, out=turned[..., half : 2 * half]).addcmul_(first, sin, value=-sign)
    turned[..., 2 * half :] = x_BTHK[..., 2 * half :]
    return turned
