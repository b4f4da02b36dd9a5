"""A step waits for its device once: when the clock is read."""

from collections import Counter

import torch
from torch.overrides import TorchFunctionMode

from tests.support.tiny import RANK_0, busy_model, random_tokens, tiny_recipe
from trainer.budget import Steps
from trainer.config import Averaging
from trainer.distributed.world import World
from trainer.training.averaging import Average
from trainer.training.step import Training
from trainer.training.train import _Clock, _TrainingRun

READS = {"item", "tolist", "cpu", "numpy", "__float__", "__int__", "__bool__", "nonzero"}
"""What needs a number on the host, and so the end of all work before it."""


class Reads(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.of_device = Counter()

    def __torch_function__(self, function, types, arguments=(), named=None):
        if function.__name__ in READS and isinstance(arguments[0], torch.Tensor):
            self.of_device[function.__name__] += 1
        return function(*arguments, **(named or {}))


class Waiting(World):
    """Counts how often the device is waited for."""

    def synchronize(self):
        waits.append(None)

    def seconds_since(self, start_s):
        self.synchronize()
        return 1.0


waits: list[None] = []


class Batches:
    position = 0

    def next_batch(self):
        tokens = random_tokens(4, 33)
        return [(tokens[:, :-1], tokens[:, 1:])] * 2


def test_a_step_waits_once_and_reads_nothing_but_a_loss_that_is_to_be_checked():
    world = Waiting(rank=0, size=1, device=RANK_0.device)
    for overrides in ({}, {"optim.clip": "per_shard"}):
        model = busy_model(activation="asqu")
        training = Training(model, tiny_recipe(overrides), 7, world)
        average = Average(Averaging(kind="ema", decay=0.9), dict(model.named_parameters()))
        run = _TrainingRun(training, Batches(), average, check_every=2)
        clock = _Clock(world, 0.0)
        for expected in ({}, {"tolist": 1}):
            waits.clear()
            with Reads() as reads:
                run.advance(Steps(10), clock)
            assert len(waits) == 1
            assert dict(reads.of_device) == expected
