"""Check on this device that FlashAttention-3 compiles and computes what torch's attention does.

Some versions of the package cannot be in a compiled graph, and a wheel may have been built for
another torch or GPU. So a model that would use it has it computed once, compiled as in training,
for whole sequences and for their last positions, beside torch's attention in float32; where it
differs, or does not compile or run, torch's is used.
"""

import sys
from contextlib import nullcontext

import torch
from torch import Tensor

from trainer.model.attention import Attention, attend
from trainer.model.compilation import compiled

BATCH, LENGTH, TAIL = 2, 999, 65  # no multiples of a tile
# Weights and what they are multiplied with are rounded to bfloat16 some four times, by 2⁻⁹ of
# themselves at most. A mask or a head that is another's is far above.
TOLERANCE = 2.0**-6


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
        say(f"it does not run here ({type(error).__name__}: {str(error).partition(chr(10))[0]})")
        return False
    wrong = [error for error in errors if not error < TOLERANCE]  # NaN among them
    if wrong:
        say(f"it is off by {wrong[0]:.2g} of a result, at most {TOLERANCE:.2g} is rounding")
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


def say(what: str) -> None:
    """Tell why FlashAttention-3 is not used."""
    print(
        f"warning: FlashAttention-3 is not used: {what}. torch's attention is.",
        file=sys.stderr,
        flush=True,
    )
