"""A stand-in for FlashAttention-3, of the form that the package has.

Operators whose forward gives more than the output, and whose backward writes into tensors that it
is handed, inside a function of autograd. B sequences, S queries, T keys, H and G heads, K
dimensions.
"""

import torch
from torch import Tensor

from trainer.model.attention import attend


@torch.library.custom_op("stand_in_flash::forward", mutates_args=())
def forward(q_BSHK: Tensor, k_BTGK: Tensor, v_BTGK: Tensor) -> tuple[Tensor, Tensor]:
    lse_BHS = q_BSHK.new_zeros(q_BSHK.shape[:3], dtype=torch.float32).transpose(1, 2)
    return attend(q_BSHK, k_BTGK, v_BTGK).contiguous(), lse_BHS.contiguous()


@forward.register_fake
def _(q_BSHK: Tensor, k_BTGK: Tensor, v_BTGK: Tensor) -> tuple[Tensor, Tensor]:
    batch, length, heads, _ = q_BSHK.shape
    return torch.empty_like(q_BSHK), q_BSHK.new_empty(batch, heads, length, dtype=torch.float32)


@torch.library.custom_op("stand_in_flash::backward", mutates_args=("to_q", "to_k", "to_v"))
def backward(
    to_y: Tensor, q: Tensor, k: Tensor, v: Tensor, to_q: Tensor, to_k: Tensor, to_v: Tensor
) -> None:
    for place, gradient in zip((to_q, to_k, to_v), _gradients(to_y, q, k, v), strict=True):
        place.copy_(gradient)


def _gradients(to_y: Tensor, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """By the formula: nothing is differentiated inside of an operator."""
    (num, asked), (groups, dim) = (q.size(1), k.size(1)), k.shape[2:]
    to_y, q = (t.float().unflatten(2, (groups, -1)) for t in (to_y, q))
    future = torch.ones(num, asked, dtype=torch.bool).triu(asked - num + 1)
    scores = torch.einsum("bsghk,btgk->bghst", q, k.float()) / dim**0.5
    p = scores.masked_fill(future, -torch.inf).softmax(dim=-1)
    to_p = torch.einsum("bsghk,btgk->bghst", to_y, v.float())
    to_s = p * (to_p - (p * to_p).sum(dim=-1, keepdim=True)) / dim**0.5
    return (
        torch.einsum("bghst,btgk->bsghk", to_s, k.float()).flatten(2, 3),
        torch.einsum("bghst,bsghk->btgk", to_s, q),
        torch.einsum("bghst,bsghk->btgk", p, to_y),
    )


class Flash(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v):
        y, lse = forward(q, k, v)
        ctx.save_for_backward(q, k, v)
        return y, lse

    @staticmethod
    def backward(ctx, to_y, to_lse):
        saved = ctx.saved_tensors
        gradients = [torch.empty_like(t) for t in saved]
        backward(to_y.contiguous(), *saved, *gradients)
        return tuple(gradients)


def flash_attn_func(q, k, v, *, causal):
    """As newer wheels: it can be in a graph, and some versions give the lse as well."""
    assert causal
    return Flash.apply(q, k, v)


@torch._dynamo.disable
def untraceable(q, k, v, *, causal):
    """As wheels before there were operators: nothing that a compiler can look into."""
    return attend(q, k, v)


def mask_of_the_first_key(q, k, v, *, causal):
    """A mask that is aligned to the first key, as FlashAttention's was before 2.1."""
    length = q.size(1)
    return attend(q, k[:, :length], v[:, :length])


def other_heads(q, k, v, *, causal):
    """Queries that ask the keys of another group."""
    return attend(q, k.flip(2), v.flip(2))
