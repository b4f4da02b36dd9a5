"""PReLU²: the square of x where x > 0 and of a·x elsewhere, with one learned slope a per layer.

So β = a², and a function of this kind never has the negative β that ASQU may learn. The slope
starts where torch's PReLU starts it, at 0.25, which is β = 0.0625.
"""

import torch
from torch import Tensor, nn

from trainer.activations import Params
from trainer.activations.squared import SquaredFamily


class PReLU2(SquaredFamily):
    """The family member whose β is the square of a learned slope."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor([slope]))

    @property
    def beta(self) -> Tensor:  # type: ignore[override]
        return self.slope * self.slope


def build(hidden: int, params: Params) -> PReLU2:
    return PReLU2(params["init"])
