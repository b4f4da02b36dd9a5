"""LeakyReLU²(s): the square of x where x > 0 and of s·x elsewhere, so β = s²."""

import torch

from trainer.activations import Params
from trainer.activations.squared import Squared


def build(hidden: int, params: Params) -> Squared:
    return Squared(torch.tensor([params["slope"] ** 2]), learned=False)
