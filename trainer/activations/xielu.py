"""xIELU: α_p·x² + x/2 where x > 0 and α_n·(eˣ − 1 − x) + x/2 elsewhere; each layer learns both α.

α_p = softplus(a_p) and α_n = ½ + softplus(a_n), and both start at 0.8. Source: Huang and Schlag
(2024), arXiv:2411.13010. The implementations in use clip x at −10⁻⁶ before the exponential, so that
f(0) is −10⁻⁶·α_n and f′ there ½ − α_n; here both are the formula's, 0 and ½.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.activations import Params

BETA = 0.5
INITIAL_ALPHA = 0.8


class XIELU(nn.Module):
    """The function with the parameters of one layer, each a vector of one."""

    def __init__(self) -> None:
        super().__init__()
        self.a_p = nn.Parameter(torch.tensor([_inverse_softplus(INITIAL_ALPHA)]))
        self.a_n = nn.Parameter(torch.tensor([_inverse_softplus(INITIAL_ALPHA - BETA)]))

    def forward(self, x_BTF: Tensor) -> Tensor:
        """Computed in float32, or a wider type of ``x``, and rounded once.

        α_n·(eˣ − 1 − x) + x/2 is α_n·(eˣ − 1) − (α_n − ½)·x, which subtracts no two large numbers.
        """
        wide = x_BTF.float() if x_BTF.itemsize < torch.float32.itemsize else x_BTF
        p, n = F.softplus(self.a_p.to(wide.dtype)), F.softplus(self.a_n.to(wide.dtype))
        below = wide.clamp(max=0)
        negative = (BETA + n) * torch.expm1(below) - n * below
        return torch.where(wide > 0, wide * (p * wide + BETA), negative).to(x_BTF.dtype)


def _inverse_softplus(y: float) -> float:
    return math.log(math.expm1(y))


def build(hidden: int, params: Params) -> XIELU:
    return XIELU()
