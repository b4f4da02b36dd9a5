"""The MLP with its activation inside the matrix products, for the squared family on CUDA.

Forward: z = x·Uᵀ with h = f(z) in its epilogue, y = h·Dᵀ. Of the F hidden channels z alone is kept;
h is a function of it. Backward: ∂h = ∂y·D with ∂z = ∂h·f′(z), h and the sums of ∂β in its epilogue,
then ∂x = ∂z·U, ∂U = ∂zᵀ·x, ∂D = ∂yᵀ·h. The products without an epilogue are torch's. Shapes: B
sequences, T tokens, N of them in all, D width, F hidden channels, R blocks of tokens.

z is rounded to the type of ``x`` where it is kept, so in bfloat16 the backward sees f′ and h at a z
that is off by up to 2⁻⁹ of itself, as the unfused expression does in both directions. The gradient
of β is summed in float32, by block of tokens and then over the blocks.
"""

from typing import Any

import torch
from torch import Tensor, nn

from trainer.activations.squared import SquaredFamily
from trainer.model import mlp_triton
from trainer.model.mlp import Observe, mlp


def fused_mlp(
    x_BTD: Tensor, up_FD: Tensor, activation: nn.Module, down_DF: Tensor, observe: Observe | None
) -> Tensor:
    """What :func:`trainer.model.mlp.mlp` computes; where it is observed, by that.

    The matrices are rounded to the type of ``x``, as autocast rounds them.
    """
    if observe is not None or not isinstance(activation, SquaredFamily):
        return mlp(x_BTD, up_FD, activation, down_DF, observe)
    x_ND = x_BTD.flatten(0, -2).contiguous()
    up, down, beta = up_FD.to(x_ND.dtype), down_DF.to(x_ND.dtype), activation.beta.float()
    if torch.is_grad_enabled():
        y_ND, _ = differentiable(x_ND, up, beta, down)
    else:
        y_ND = activated(x_ND, up, beta) @ down.T
    return y_ND.view(x_BTD.shape)


# Opaque to torch.compile, so that a step stays one graph.


@torch.library.custom_op("activation_sweep::fused_mlp", mutates_args=())
def differentiable(
    x_ND: Tensor, up_FD: Tensor, beta: Tensor, down_DF: Tensor
) -> tuple[Tensor, Tensor]:
    """y (N, D), and z (N, F) for the backward."""
    z_NF, h_NF = mlp_triton.up(x_ND, up_FD, beta, keep=True)
    assert z_NF is not None
    return h_NF @ down_DF.T, z_NF


@torch.library.custom_op("activation_sweep::activated", mutates_args=())
def activated(x_ND: Tensor, up_FD: Tensor, beta: Tensor) -> Tensor:
    """f(z) alone (N, F), where nothing will be differentiated."""
    return mlp_triton.up(x_ND, up_FD, beta, keep=False)[1]


@torch.library.custom_op("activation_sweep::gate", mutates_args=())
def gate(to_y_ND: Tensor, down_DF: Tensor, z_NF: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """∂z and f(z), both (N, F)."""
    return mlp_triton.gate(to_y_ND, down_DF, z_NF, beta, learned=False)[:2]


@torch.library.custom_op("activation_sweep::gate_learned", mutates_args=())
def gate_learned(
    to_y_ND: Tensor, down_DF: Tensor, z_NF: Tensor, beta: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """∂z and f(z), both (N, F), and ∂β by block of tokens (R, F)."""
    to_z_NF, h_NF, sums_RF = mlp_triton.gate(to_y_ND, down_DF, z_NF, beta, learned=True)
    assert sums_RF is not None
    return to_z_NF, h_NF, sums_RF


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)  # of z: as large as z
    ctx.save_for_backward(*inputs, output[1])


def _backward(ctx: Any, to_y: Tensor, _: Any) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    x_ND, up_FD, beta, down_DF, z_NF = ctx.saved_tensors
    to_y_ND, to_beta = to_y.contiguous(), None
    if ctx.needs_input_grad[2]:
        to_z_NF, h_NF, sums_RF = gate_learned(to_y_ND, down_DF, z_NF, beta)
        to_beta = sums_RF.sum(dim=0).sum_to_size(beta.shape)
    else:
        to_z_NF, h_NF = gate(to_y_ND, down_DF, z_NF, beta)
    return to_z_NF @ up_FD, to_z_NF.T @ x_ND, to_beta, to_y_ND.T @ h_NF


# An operator's, and no autograd.Function: torch keeps no graph on disk with one, unless told to.
differentiable.register_autograd(_backward, setup_context=_keep)


@differentiable.register_fake
def _(x_ND: Tensor, up_FD: Tensor, beta: Tensor, down_DF: Tensor) -> tuple[Tensor, Tensor]:
    return x_ND.new_empty(len(x_ND), len(down_DF)), x_ND.new_empty(len(x_ND), len(up_FD))


@activated.register_fake
def _(x_ND: Tensor, up_FD: Tensor, beta: Tensor) -> Tensor:
    return x_ND.new_empty(len(x_ND), len(up_FD))


@gate.register_fake
def _(to_y_ND: Tensor, down_DF: Tensor, z_NF: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(z_NF), torch.empty_like(z_NF)


@gate_learned.register_fake
def _(
    to_y_ND: Tensor, down_DF: Tensor, z_NF: Tensor, beta: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    sums_RF = beta.new_empty(mlp_triton.num_blocks(z_NF), z_NF.size(1))
    return torch.empty_like(z_NF), torch.empty_like(z_NF), sums_RF
