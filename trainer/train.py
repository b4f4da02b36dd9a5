"""Take steps until the budget is spent: the training loop of one cell."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from trainer.averaging import Average
from trainer.budget import Budget
from trainer.data.loader import Loader
from trainer.model import GPT
from trainer.optim import Optimizers
from trainer.recipe import Recipe
from trainer.schedule import lr_multiplier
from trainer.scoring.bpb import Score
from trainer.world import World

MicroBatches = Sequence[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Training:
    """What is trained, as which recipe, seed and rank."""

    model: GPT
    recipe: Recipe
    seed: int
    world: World

    @cached_property
    def nll(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The model's, compiled where that pays; warming up compiles it, outside the budget."""
        return self.model.compiled_nll(self.recipe.train.seq_len)

    def optimizers(self) -> Optimizers:
        return Optimizers(self.model, self.recipe.optim, self.world)


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
    """The steps that were taken, and their training losses in nats per token (mean over ranks).

    ``validations`` are (updates taken, score of the weights then), as the recipe asks for them.
    """

    steps: tuple[StepLog, ...]
    losses: tuple[float, ...]
    validations: tuple[tuple[int, Score], ...] = ()

    @property
    def train_s(self) -> float:
        return self.steps[-1].elapsed_s if self.steps else 0.0

    @property
    def first_bad_step(self) -> int | None:
        """The first step (from 1) whose loss is not finite; None if there is none."""
        bad = (i for i, loss in enumerate(self.losses, start=1) if not math.isfinite(loss))
        return next(bad, None)


@dataclass(frozen=True, slots=True)
class Watch:
    """Who looks on: at each step, with its loss at every ``check_every``-th; at the weights."""

    check_every: int
    on_step: Callable[[StepLog, float | None], None]
    validate: Callable[[int], Score]


def warm_up(training: Training, loader: Loader) -> None:
    """Take full steps on real batches, then restore the weights: nothing but caches remains.

    The caller makes its optimizers and its loader anew afterwards.
    """
    model = training.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizers = training.optimizers()
    for step in range(training.recipe.train.warmup_steps):
        take_step(training, optimizers, loader.next_batch(), step, 1.0)
    training.world.synchronize()
    model.begin_step(training.seed, None)
    model.load_state_dict(before)


def train(
    training: Training, loader: Loader, budget: Budget, average: Average, watch: Watch
) -> Trained:
    """Train in place under ``budget``; stop early where a checked loss is not finite.

    Validation in between is off the clock.
    """
    model, recipe, world = training.model, training.recipe, training.world
    optimizers = training.optimizers()
    steps: list[StepLog] = []
    losses: list[Tensor] = []
    validations: list[tuple[int, Score]] = []
    start_s, elapsed_s, checked = time.perf_counter(), 0.0, None
    while True:
        step = len(steps)
        remaining = budget.remaining_steps(step, elapsed_s)
        is_last = remaining is not None and remaining <= 0
        is_last = is_last or (checked is not None and not math.isfinite(checked))
        if _validates(recipe.scoring.every_steps, step, is_last=is_last):
            paused_s = time.perf_counter()
            model.begin_step(training.seed, None)
            validations.append((step, watch.validate(step)))
            start_s += time.perf_counter() - paused_s
        if is_last:
            break
        multiplier = lr_multiplier(remaining, recipe.train.warmdown_steps)
        loss = take_step(training, optimizers, loader.next_batch(), step, multiplier)
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
        checked = _over_ranks([loss], world)[0] if (step + 1) % watch.check_every == 0 else None
        watch.on_step(steps[-1], checked)
    model.begin_step(training.seed, None)
    return Trained(tuple(steps), tuple(_over_ranks(losses, world)), tuple(validations))


def _validates(every_steps: int | None, step: int, *, is_last: bool) -> bool:
    """Before the first step, after every so many, and after the last."""
    return every_steps is not None and (is_last or step % every_steps == 0)


def take_step(
    training: Training, optimizers: Optimizers, batch: MicroBatches, step: int, lr_mult: float
) -> Tensor:
    """One update from this rank's micro-batches; returns its part of the mean loss, detached."""
    model, config = training.model, training.recipe.train
    model.train()
    model.begin_step(training.seed, step)
    late = config.late_qat_below is not None and lr_mult < config.late_qat_below
    with model.late_qat(enabled=late):
        loss = _accumulate_gradients(training, batch)
    optimizers.step(step, lr_mult)
    return loss


def _accumulate_gradients(training: Training, batch: MicroBatches) -> Tensor:
    """Leave the mean gradient of the step's micro-batches that are this rank's; their mean loss.

    Both are means over the micro-steps of all ranks, so that they add up over ranks.
    """
    model, optim, device = training.model, training.recipe.optim, training.world.device
    micro_steps = training.recipe.train.micro_steps
    parameters = list(model.parameters())
    clipped: list[Tensor] = []
    total = torch.zeros((), device=device)
    for x_BT, y_BT in batch:
        x, y = (t.to(device, non_blocking=True) for t in (x_BT, y_BT))
        loss = training.nll(x, y).mean()
        if optim.clip == "per_shard" and optim.grad_clip is not None:
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, optim.grad_clip)
            clipped = _add_gradients(clipped, parameters, 1 / micro_steps)
        else:
            (loss / micro_steps).backward()
        total += loss.detach() / micro_steps
    if clipped:
        for parameter, gradient in zip(parameters, clipped, strict=True):
            parameter.grad = gradient
    return total


def _add_gradients(sums: list[Tensor], parameters: Sequence[Tensor], factor: float) -> list[Tensor]:
    """``sums`` plus ``factor`` times the gradients, which are dropped; absent ones are zero."""
    scaled = [torch.zeros_like(p) if p.grad is None else p.grad.mul_(factor) for p in parameters]
    for parameter in parameters:
        parameter.grad = None
    if sums:
        torch._foreach_add_(scaled, sums)
    return scaled


def _over_ranks(losses: list[Tensor], world: World) -> list[float]:
    if not losses:
        return []
    summed: list[float] = world.sum_(torch.stack(losses)).tolist()
    return summed
