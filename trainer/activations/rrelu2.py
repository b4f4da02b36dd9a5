"""RReLU²: the square of x where x > 0 and of s·x elsewhere, with s random in training.

s ~ U(low, high), by default torch's U(1/8, 1/3). In scoring s is the mean, (low + high) / 2. RReLU
as published draws one s per element; here a layer has one per step, so that β stays what it is for
the family: an input of one element.
"""

import numpy as np
import torch

from trainer.activations import Params
from trainer.activations.squared import Squared


class RReLU2(Squared):
    """The family member whose β is drawn at every step; it starts with the β of scoring."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__(torch.tensor([((low + high) / 2) ** 2]), learned=False)
        self.low, self.high = low, high

    def begin_step(self, seed: int, step: int | None, layer: int) -> None:
        """See :class:`trainer.activations.StepDependent`."""
        where = 0.5 if step is None else uniform(seed, step, layer)
        with torch.no_grad():  # under equal_cost β has a gradient, which is dropped
            self.beta.fill_(((1 - where) * self.low + where * self.high) ** 2)


def uniform(seed: int, step: int, layer: int) -> float:
    """A number in [0, 1) that these three decide, whoever asks, when and how often.

    Philox4x64-10 with ``seed`` as its key and (0, 0, step, layer) as its counter, which counts up
    once before the draw; the upper 53 bits of its first word. The raw words, because numpy keeps
    them from version to version and its distributions not.
    """
    philox = np.random.Philox(key=seed, counter=np.array([0, 0, step, layer], dtype=np.uint64))
    return (int(philox.random_raw()) >> 11) * 2.0**-53


def build(hidden: int, params: Params) -> RReLU2:
    return RReLU2(params["low"], params["high"])
