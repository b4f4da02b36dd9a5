"""Choose what computes the MLP of a model: the fused Triton kernel or torch's expression.

The choice is made once for a model; its name is the column ``mlp_backend`` of every row.
"""

from functools import cache
from importlib.util import find_spec
from typing import Literal

import torch
from torch import nn

from trainer.activations.squared import SquaredFamily
from trainer.model.mlp import MLP, mlp

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
    if in_family and dtype is torch.bfloat16 and _triton_is_here() and _is_correct(device, *shape):
        return "triton_fused"
    return "torch_compiled"


def mlp_of(backend: Backend) -> MLP:
    """The function that computes the MLP so."""
    if backend != "triton_fused":
        return mlp
    from trainer.model.mlp_fused import fused_mlp  # needs Triton, and is of no use without a GPU

    return fused_mlp


@cache
def _triton_is_here() -> bool:
    return find_spec("triton") is not None


@cache
def _is_correct(device: torch.device, width: int, hidden: int) -> bool:
    from trainer.model.mlp_check import is_correct

    return is_correct(device, width, hidden)
