"""Choose what computes the attention of a model: FlashAttention-3, where it is right, or torch.

The choice is made once for a model; its name is the column ``attention_backend`` of every row. Some
versions of the package cannot be in a compiled graph, and a wheel may have been built for another
torch or GPU. So it is first computed once, compiled as in training, for whole sequences and for
their last positions, beside torch's attention in float32; where it differs, or does not compile or
run, torch's is used.
"""

import importlib
import sys
from contextlib import nullcontext
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from trainer.model.attention import Attention, attend
from trainer.model.compilation import compiled

AttentionBackend = Literal["flash_attn_3", "torch_sdpa"]

BATCH, LENGTH, TAIL = 2, 999, 65  # no multiples of a tile
# Weights and what they are multiplied with are rounded to bfloat16 some four times, by 2⁻⁹ of
# themselves at most. A mask or a head that is another's is far above.
TOLERANCE = 2.0**-6


def attention_backend(
    device: torch.device, dtype: torch.dtype, shape: tuple[int, int, int]
) -> AttentionBackend:
    """What computes attention there; ``shape`` is query heads, key-value heads, dimensions of one.

    FlashAttention-3 in bfloat16 on the GPUs that it is written for, where it is installed and has
    been found right.
    """
    can = device.type == "cuda" and dtype is torch.bfloat16 and _is_hopper(device)
    return "flash_attn_3" if can and _is_proven(device, shape) else "torch_sdpa"


def attention_of(backend: AttentionBackend) -> Attention:
    """The function that computes attention so."""
    flash = _flash_attention_3() if backend == "flash_attn_3" else None
    return flash or attend


@cache
def _is_proven(device: torch.device, shape: tuple[int, int, int]) -> bool:
    flash = _flash_attention_3()
    if flash is None:
        _say("there is no package flash_attn_interface that can be imported")
        return False
    return is_correct(flash, device, shape)


@cache
def _is_hopper(device: torch.device) -> bool:
    """Whether the GPU is of the kind that FlashAttention-3 is written for."""
    return torch.cuda.is_available() and torch.cuda.get_device_capability(device)[0] == 9


@cache
def _flash_attention_3() -> Attention | None:
    """The function of the optional package, which takes (B, T, H, K) as it is here.

    Its causal mask is aligned to the last query and the last key, as ours is.
    """
    try:
        flash = importlib.import_module("flash_attn_interface").flash_attn_func
    except (ImportError, AttributeError, OSError):
        return None

    def causal(q_BTHK: Tensor, k_BTGK: Tensor, v_BTGK: Tensor) -> Tensor:
        result = flash(q_BTHK, k_BTGK, v_BTGK, causal=True)
        return result[0] if isinstance(result, tuple) else result  # some versions add the lse

    return causal


def is_correct(
    flash: Attention, device: torch.device, shape: tuple[int, int, int], length: int = LENGTH
) -> bool:
    """Whether outputs and gradients agree; ``shape`` is query heads, key-value heads, dimensions
    of a head."""
    try:
        with torch.inference_mode(False), torch.enable_grad():
            errors = [
                e for tail in (length, TAIL) for e in _errors(flash, device, shape, length, tail)
            ]
    except Exception as error:  # a compiler or a driver may raise anything; torch's attention runs
        _say(f"it does not run here ({type(error).__name__}: {str(error).partition(chr(10))[0]})")
        return False
    wrong = [error for error in errors if not error < TOLERANCE]  # NaN among them
    if wrong:
        _say(f"it is off by {wrong[0]:.2g} of a result, at most {TOLERANCE:.2g} is rounding")
    return not wrong


def _errors(
    flash: Attention, device: torch.device, shape: tuple[int, int, int], length: int, tail: int
) -> list[float]:
    """Of the output and each gradient: norm of the difference over norm of what float32 gives."""
    heads, groups, dim = shape
    draw = torch.Generator(device).manual_seed(0)

    def normal(positions: int, heads: int) -> Tensor:
        size = BATCH, positions, heads, dim
        return torch.randn(size, generator=draw, device=device).bfloat16()

    tensors = normal(tail, heads), normal(length, groups), normal(length, groups)
    to_y = normal(tail, heads)
    # Traced through autograd as in training; compiling what surrounds it would prove nothing more.
    step = compiled(flash, lambda _: nullcontext(), backend="aot_eager")
    results = []
    for compute, dtype in ((step, torch.bfloat16), (attend, torch.float32)):
        inputs = [t.to(dtype, copy=True).requires_grad_() for t in tensors]
        y = compute(*inputs)
        results.append([y.detach(), *torch.autograd.grad(y, inputs, to_y.to(dtype))])
    pairs = zip(*results, strict=True)
    return [float((a.float() - b).norm() / b.norm()) for a, b in pairs]


def _say(what: str) -> None:
    """Tell why FlashAttention-3 is not used."""
    print(
        f"warning: FlashAttention-3 is not used: {what}. torch's attention is.",
        file=sys.stderr,
        flush=True,
    )
