"""The MLP of one layer: up-projection, activation, down-projection.

Shapes: B sequences, T tokens, D width, F hidden channels.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

Observe = Callable[[Tensor], None]
MLP = Callable[[Tensor, Tensor, nn.Module, Tensor, Observe | None], Tensor]


def mlp(
    x_BTD: Tensor, up_FD: Tensor, activation: nn.Module, down_DF: Tensor, observe: Observe | None
) -> Tensor:
    """down · activation(up · x); ``observe`` is shown the activated hidden channels, if given."""
    hidden_BTF = activation(F.linear(x_BTD, up_FD))
    if observe is not None:
        observe(hidden_BTF)
    return F.linear(hidden_BTF, down_DF)
