"""Check on this device that the fused MLP computes what torch's expression computes.

A kernel that is wrong on one GPU or under one version of Triton would train on wrong gradients and
say nothing. So a model that would use it has it computed once, with every gradient and as scoring
computes it, beside the expression in float32; where they differ, or it does not run, the expression
is used.
"""

import sys

import torch
from torch import Tensor

from trainer.activations.squared import Squared
from trainer.model.mlp import mlp

NUM_TOKENS = 16_383  # enough to tune the kernel on, and no multiple of a tile
# Each value is rounded to bfloat16 up to four times on the way, by 2⁻⁹ of itself at most; norms of
# differences stay below half of that where nothing is wrong. A lost tile or a wrong β is far above.
TOLERANCE = 2.0**-7


def is_correct(device: torch.device, width: int, hidden: int, num_tokens: int = NUM_TOKENS) -> bool:
    """Whether outputs and gradients agree, for a β that is fixed, learned by the layer, and learned
    by each channel."""
    try:
        one, each = torch.tensor([0.25]), torch.linspace(-0.5, 1.0, hidden)
        errors = [
            error
            for beta, learned in ((one, False), (one, True), (each, True))
            for error in _errors(
                device, (num_tokens, width, hidden), Squared(beta, learned=learned)
            )
        ]
    except Exception as error:  # a compiler or a driver may raise anything; the expression runs
        _say(f"it does not run here ({type(error).__name__}: {error})")
        return False
    wrong = [error for error in errors if not error < TOLERANCE]  # NaN among them
    if wrong:
        _say(f"it is off by {wrong[0]:.2g} of a result, at most {TOLERANCE:.2g} is rounding")
    return not wrong


def _errors(device: torch.device, shape: tuple[int, int, int], activation: Squared) -> list[float]:
    """Of every result: norm of the difference over norm of what float32 gives.

    Not of the gradient of a β that is one number: its terms may cancel, and it is the sum of what
    each channel's would be.
    """
    from trainer.model.mlp_fused import fused_mlp

    num_tokens, width, hidden = shape
    activation.to(device)
    draw = torch.Generator(device).manual_seed(0)

    def normal(rows: int, columns: int, scale: float) -> Tensor:
        drawn = scale * torch.randn(rows, columns, generator=draw, device=device)
        return drawn.bfloat16()

    x, to_y = normal(num_tokens, width, 1.0), normal(num_tokens, width, 1.0)
    up, down = normal(hidden, width, width**-0.5), normal(width, hidden, hidden**-0.5)
    results = []
    for compute, dtype in ((fused_mlp, torch.bfloat16), (mlp, torch.float32)):
        activation.zero_grad()
        inputs = [t.to(dtype, copy=True).requires_grad_() for t in (x, up, down)]
        with torch.enable_grad():
            y = compute(inputs[0], inputs[1], activation, inputs[2], None)
            y.backward(to_y.to(dtype))
        with torch.no_grad():  # scoring, by a kernel of its own
            scored = compute(inputs[0], inputs[1], activation, inputs[2], None)
        gradients = [t.grad for t in inputs]
        if activation.beta.numel() > 1:
            gradients.append(activation.beta.grad)
        results.append([y.detach(), scored, *(g for g in gradients if g is not None)])
    pairs = zip(*results, strict=True)
    return [float((a.float() - b).norm() / b.norm()) for a, b in pairs]


def _say(what: str) -> None:
    print(
        f"warning: the fused MLP is not used: {what}. torch's expression is.",
        file=sys.stderr,
        flush=True,
    )
