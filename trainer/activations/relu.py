"""ReLU: max(x, 0)."""

from torch import nn

from trainer.activations import Params


def build(hidden: int, params: Params) -> nn.ReLU:
    return nn.ReLU()
