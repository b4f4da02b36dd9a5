"""SiLU (Swish): x·σ(x), with σ the logistic function."""

from torch import nn

from trainer.activations import Params


def build(hidden: int, params: Params) -> nn.SiLU:
    return nn.SiLU()
