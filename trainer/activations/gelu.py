"""GELU: x·Φ(x), with Φ from the error function and not from its approximation by tanh."""

from torch import nn

from trainer.activations import Params


def build(hidden: int, params: Params) -> nn.GELU:
    return nn.GELU(approximate="none")
