"""The MLP of one layer: up-projection, activation, down-projection.

The seam behind which a fused kernel may stand; ``mlp_backend`` names what ran and is a column of
every row. Shapes: B sequences, T tokens, D width, F hidden channels.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Observe = Callable[[Tensor], None]


def mlp_backend(device: torch.device) -> str:
    """What computes the MLP in training there."""
    return "torch_compiled" if device.type == "cuda" else "torch"


def mlp(
    x_BTD: Tensor, up_FD: Tensor, activation: nn.Module, down_DF: Tensor, observe: Observe | None
) -> Tensor:
    """down · activation(up · x); ``observe`` is shown the activated hidden channels, if given."""
    hidden_BTF = activation(F.linear(x_BTD, up_FD))
    if observe is not None:
        observe(hidden_BTF)
    return F.linear(hidden_BTF, down_DF)
