"""What tests ask of the fused MLP, as functions that the interpreter's process is told to call.

N tokens, D width, F hidden channels.
"""

import contextlib
import io
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tests.support.graphs import Kept
from tests.support.tiny import busy_model, random_tokens
from trainer.activations.squared import Squared
from trainer.model.compilation import compiled


@dataclass(frozen=True)
class Given:
    """The inputs of one MLP, and the gradient of its output."""

    x_ND: Tensor
    up_FD: Tensor
    beta: Tensor
    down_DF: Tensor
    to_y_ND: Tensor

    def to(self, dtype: torch.dtype) -> "Given":
        """All but β, which is float32 in every run."""
        rounded = {name: getattr(self, name).to(dtype) for name in ("x_ND", "up_FD", "down_DF")}
        return replace(self, **rounded, to_y_ND=self.to_y_ND.to(dtype))


@dataclass(frozen=True)
class Found:
    """The output and every gradient; that of β is None where it is fixed."""

    y: Tensor
    to_x: Tensor | None
    to_up: Tensor | None
    to_beta: Tensor | None
    to_down: Tensor | None


def given(tokens: int, width: int, hidden: int, beta: Tensor, seed: int = 0) -> Given:
    """Normal inputs, scaled so that z, y and the gradients are of order one."""
    draw = torch.Generator().manual_seed(seed)

    def normal(rows: int, columns: int, scale: float = 1.0) -> Tensor:
        return scale * torch.randn(rows, columns, generator=draw)

    x, up = normal(tokens, width), normal(hidden, width, width**-0.5)
    return Given(x, up, beta, normal(width, hidden, hidden**-0.5), normal(tokens, width))


def reference(given: Given) -> Found:
    """Autograd through the formula, in float64."""
    x, up, beta, down, to_y = (
        t.double().requires_grad_()
        for t in (given.x_ND, given.up_FD, given.beta, given.down_DF, given.to_y_ND)
    )
    z = x @ up.T
    y = torch.where(z > 0, z * z, beta * z * z) @ down.T
    y.backward(to_y.detach())
    return Found(y.detach(), x.grad, up.grad, beta.grad, down.grad)


def fused(given: Given, learned: bool = True) -> Found:
    """Forward and backward of the fused MLP."""
    from trainer.model.mlp_fused import fused_mlp

    x, up, down = (t.clone().requires_grad_() for t in (given.x_ND, given.up_FD, given.down_DF))
    activation = Squared(given.beta.clone(), learned=learned)
    y = fused_mlp(x, up, activation, down, None)
    y.backward(given.to_y_ND)
    return Found(y.detach(), x.grad, up.grad, activation.beta.grad, down.grad)


def fused_without_gradients(given: Given) -> Tensor:
    """y, as scoring computes it."""
    from trainer.model.mlp_fused import fused_mlp

    activation = Squared(given.beta, learned=False)
    with torch.inference_mode():
        return fused_mlp(given.x_ND, given.up_FD, activation, given.down_DF, None).clone()


def check_operators(given: Given) -> list[str]:
    """torch's own check of every operator's schema, and of its shapes without data; their names."""
    from trainer.model import mlp_fused

    forward = given.x_ND, given.up_FD, given.beta
    _, z_NF = mlp_fused.differentiable(*forward, given.down_DF)
    backward = given.to_y_ND, given.down_DF, z_NF, given.beta
    checked = {
        mlp_fused.differentiable: (*forward, given.down_DF),
        mlp_fused.activated: forward,
        mlp_fused.gate: backward,
        mlp_fused.gate_learned: backward,
    }
    for operator, arguments in checked.items():
        torch.library.opcheck(operator, arguments, test_utils=("test_schema", "test_faketensor"))
    return [operator._name for operator in checked]


def model_step(
    activation: str, params: dict[str, float], form: str, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, list[Tensor]]:
    """nll and all gradients of a small model whose MLP is plain, fused, or fused and traced."""
    model = busy_model(activation=activation, params=params, dtype=dtype)
    model.set_precision()
    tokens = random_tokens(2, 17)
    step = model.nll
    if form != "plain":
        from trainer.model.mlp_fused import fused_mlp

        model._mlp = fused_mlp
    if form == "traced":
        torch._dynamo.reset()
        step = compiled(model.nll, model.precision, backend=Kept())
    nll = step(tokens[:, :-1], tokens[:, 1:])
    nll.mean().backward()
    return nll.detach(), [p.grad for p in model.parameters() if p.grad is not None]


def proof(shape: tuple[int, int, int], fault: str | None) -> tuple[bool, str]:
    """What the proof says of the kernel, or of one with a fault, and what it prints."""
    from trainer.model import mlp_check, mlp_triton

    up, gate = mlp_triton.up, mlp_triton.gate

    def faulty_gate(to_y: Tensor, down: Tensor, z: Tensor, beta: Tensor, *, learned: bool):
        to_z, h, sums = gate(to_y, down, z, beta, learned=learned)
        match fault:
            case "no slope below zero":
                to_z = to_z.where(z > 0, 0.0)
            case "a lost tile":
                h[:16, 32:64] = 0
            case "no compiler":
                raise RuntimeError("no compiler")
        return to_z, h, sums

    def faulty_up(x: Tensor, matrix: Tensor, beta: Tensor, *, keep: bool):
        z, h = up(x, matrix, beta, keep=keep)
        return z, h if keep or fault != "wrong in scoring" else h / 2

    said = io.StringIO()
    mlp_triton.up = faulty_up
    mlp_triton.gate = gate if fault is None else faulty_gate
    try:
        with contextlib.redirect_stderr(said):
            return mlp_check.is_correct(torch.device("cpu"), *shape), said.getvalue()
    finally:
        mlp_triton.up, mlp_triton.gate = up, gate
