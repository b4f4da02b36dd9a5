"""Take steps until the budget is spent: the training loop of one cell."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.averaging import Average
from trainer.budget import Budget
from trainer.data.loader import SequentialLoader
from trainer.model import GPT
from trainer.optim import Optimizers
from trainer.recipe import Recipe
from trainer.schedule import lr_multiplier
from trainer.world import World

MicroBatches = Sequence[tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class StepLog:
    """What is known after update ``step``, counted from 1."""

    step: int
    elapsed_s: float
    lr_mult: float
    step_ms: float
    remaining_steps: float | None


@dataclass(frozen=True, slots=True)
class Trained:
    """The steps that were taken, and their training losses in nats per token (mean over ranks)."""

    steps: tuple[StepLog, ...]
    losses: tuple[float, ...]

    @property
    def train_s(self) -> float:
        return self.steps[-1].elapsed_s if self.steps else 0.0

    @property
    def first_bad_step(self) -> int | None:
        """The first step (from 1) whose loss is not finite; None if there is none."""
        bad = (i for i, loss in enumerate(self.losses, start=1) if not math.isfinite(loss))
        return next(bad, None)


def warm_up(model: GPT, recipe: Recipe, loader: SequentialLoader, world: World) -> None:
    """Take full steps on real batches, then restore the weights: nothing but caches remains.

    The caller makes its optimizers and its loader anew afterwards.
    """
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizers = Optimizers(model, recipe.optim)
    for step in range(recipe.train.warmup_steps):
        take_step(model, loader.next_batch(), optimizers, step, 1.0, recipe, world)
    world.synchronize()
    model.load_state_dict(before)


def train(
    model: GPT,
    loader: SequentialLoader,
    recipe: Recipe,
    budget: Budget,
    average: Average,
    world: World,
    *,
    check_every: int,
    on_step: Callable[[StepLog, Tensor], None],
) -> Trained:
    """Train ``model`` in place under ``budget``; stop early where a checked loss is not finite."""
    optimizers = Optimizers(model, recipe.optim)
    model.train()
    steps: list[StepLog] = []
    losses: list[Tensor] = []
    start_s, elapsed_s = time.perf_counter(), 0.0
    while True:
        step = len(steps)
        remaining = budget.remaining_steps(step, elapsed_s)
        if remaining is not None and remaining <= 0:
            break
        multiplier = lr_multiplier(remaining, recipe.train.warmdown_steps)
        loss = take_step(model, loader.next_batch(), optimizers, step, multiplier, recipe, world)
        average.update()
        previous_s, elapsed_s = elapsed_s, world.seconds_since(start_s)
        losses.append(loss)
        steps.append(
            StepLog(
                step=step + 1,
                elapsed_s=elapsed_s,
                lr_mult=multiplier,
                step_ms=1000 * (elapsed_s - previous_s),
                remaining_steps=budget.remaining_steps(step + 1, elapsed_s),
            )
        )
        on_step(steps[-1], loss)
        if (step + 1) % check_every == 0 and not math.isfinite(_over_ranks([loss], world)[0]):
            break
    return Trained(steps=tuple(steps), losses=tuple(_over_ranks(losses, world)))


def take_step(
    model: GPT,
    batch: MicroBatches,
    optimizers: Optimizers,
    step: int,
    lr_mult: float,
    recipe: Recipe,
    world: World,
) -> Tensor:
    """One update from this rank's micro-batches; returns its part of the mean loss, detached."""
    total = torch.zeros((), device=world.device)
    for x_BT, y_BT in batch:
        x, y = (t.to(world.device, non_blocking=True) for t in (x_BT, y_BT))
        loss = model.nll(x, y).mean() / recipe.train.micro_steps
        loss.backward()
        total += loss.detach()
    parameters = list(model.parameters())
    world.sum_gradients(parameters)
    if recipe.train.grad_clip is not None:
        torch.nn.utils.clip_grad_norm_(parameters, recipe.train.grad_clip)
    optimizers.step(step, lr_mult)
    return total


def _over_ranks(losses: list[Tensor], world: World) -> list[float]:
    if not losses:
        return []
    summed: list[float] = world.sum_(torch.stack(losses)).tolist()
    return summed
