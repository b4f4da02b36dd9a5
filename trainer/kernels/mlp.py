"""The MLP of one layer: up-projection, activation, down-projection.

Which form of it computes is decided here, once for a model; ``mlp_backend`` names it and is a
column of every row. Shapes: B sequences, T tokens, D width, F hidden channels.
"""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.activations.squared import SquaredFamily

Observe = Callable[[Tensor], None]
MLP = Callable[[Tensor, Tensor, nn.Module, Tensor, Observe | None], Tensor]
Backend = Literal["triton_fused", "torch_compiled", "torch"]


def mlp_backend(
    device: torch.device, dtype: torch.dtype, activation: nn.Module, shape: tuple[int, int]
) -> Backend:
    """What computes the MLP of that activation in training there; ``shape`` is (D, F).

    The kernel serves the squared family in bfloat16 on CUDA, where Triton is installed and the
    kernel has been found right; every other activation keeps the expression of torch, which is
    compiled on CUDA. What is observed (the hidden channels, for GPTQ and the mechanism study) is
    computed by the expression everywhere.
    """
    if device.type != "cuda":
        return "torch"
    in_family = isinstance(activation, SquaredFamily)
    if in_family and dtype is torch.bfloat16 and _triton_is_here() and _is_right(device, *shape):
        return "triton_fused"
    return "torch_compiled"


def mlp_of(backend: Backend) -> MLP:
    """The function that computes the MLP so."""
    if backend != "triton_fused":
        return mlp
    from trainer.kernels.fused import fused_mlp  # needs Triton, and is of no use without a GPU

    return fused_mlp


def mlp(
    x_BTD: Tensor, up_FD: Tensor, activation: nn.Module, down_DF: Tensor, observe: Observe | None
) -> Tensor:
    """down · activation(up · x); ``observe`` is shown the activated hidden channels, if given."""
    hidden_BTF = activation(F.linear(x_BTD, up_FD))
    if observe is not None:
        observe(hidden_BTF)
    return F.linear(hidden_BTF, down_DF)


@cache
def _triton_is_here() -> bool:
    return find_spec("triton") is not None


@cache
def _is_right(device: torch.device, width: int, hidden: int) -> bool:
    from trainer.kernels.proof import is_right

    return is_right(device, width, hidden)
