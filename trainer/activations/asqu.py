"""ASQU: one learned β per channel and layer, from 0.25 on, which is the β of slope 0.5.

β may become negative, which no slope expresses. Published as parameter-golf PR #1035, which trains
β by Adam at a rate of 0.001 without weight decay.
"""

import torch

from trainer.activations import Params
from trainer.activations.squared import Squared

INITIAL_BETA = 0.25


def build(hidden: int, params: Params) -> Squared:
    return Squared(torch.full((hidden,), INITIAL_BETA), learned=True)
