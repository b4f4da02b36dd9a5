"""ASQU: one learned β per channel and layer, from ``init`` on; 0.25 is the β of slope 0.5.

β may become negative, which no slope expresses. Published as parameter-golf PR #1035, which starts
from 0.25 and trains β by Adam at a rate of 0.001 without weight decay; PR #679 starts from 0.
"""

import torch

from trainer.activations import Params
from trainer.activations.squared import Squared


def build(hidden: int, params: Params) -> Squared:
    return Squared(torch.full((hidden,), params["init"]), learned=True)
