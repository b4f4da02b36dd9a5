"""ELU: x where x > 0 and eˣ − 1 elsewhere."""

from torch import nn

from trainer.activations import Params


def build(hidden: int, params: Params) -> nn.ELU:
    return nn.ELU()
