"""LeakyReLU(s): x where x > 0 and s·x elsewhere."""

from torch import nn

from trainer.activations import Params


def build(hidden: int, params: Params) -> nn.LeakyReLU:
    return nn.LeakyReLU(params["slope"])
