"""One update: what this rank's micro-batches make of the weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from trainer.config import Recipe
from trainer.distributed.world import World
from trainer.model import GPT
from trainer.optim.optimizers import Optimizers

MicroBatches = Sequence[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Training:
    """What is trained, as which recipe, seed and rank."""

    model: GPT
    recipe: Recipe
    seed: int
    world: World
    beat: Callable[[], None] = lambda: None
    """Called after every micro-step: a long step is no hang."""

    def __post_init__(self) -> None:
        if self.recipe.train.equal_cost:
            self.model.cost_as_learned()

    @cached_property
    def nll(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The model's, compiled where that pays; warming up compiles it, outside the budget."""
        return self.model.compiled_nll(self.recipe.train.seq_len)

    def optimizers(self) -> Optimizers:
        return Optimizers(self.model, self.recipe.optim, self.world)


def take_step(
    training: Training, optimizers: Optimizers, batch: MicroBatches, step: int, lr_mult: float
) -> Tensor:
    """One update from this rank's micro-batches; returns its part of the mean loss, detached."""
    loss, in_float32 = _gradients(training, batch, step, lr_mult)
    optimizers.step(step, lr_mult, in_float32)
    return loss


def compile_step(training: Training, batch: MicroBatches, lr_mult: float) -> None:
    """Compile the graph of a step at ``lr_mult``: rank 0 first, and the others find it on disk.

    All at once, each of eight ranks would compile all of it, with a pool of compilers of its own.
    """
    if training.world.size == 1 or training.nll == training.model.nll:
        return
    training.world.rank_0_first(lambda: _gradients(training, batch[:1], 0, lr_mult))
    training.model.zero_grad()


def _gradients(
    training: Training, batch: MicroBatches, step: int, lr_mult: float
) -> tuple[Tensor, dict[Tensor, Tensor]]:
    """What :func:`_accumulate_gradients` gives, of the model as it is in update ``step``."""
    model, config = training.model, training.recipe.train
    model.train()
    model.begin_step(training.seed, step)
    late = config.late_qat_below is not None and lr_mult < config.late_qat_below
    with model.late_qat(enabled=late):
        return _accumulate_gradients(training, batch)


def _accumulate_gradients(
    training: Training, batch: MicroBatches
) -> tuple[Tensor, dict[Tensor, Tensor]]:
    """Leave the mean gradient of the step's micro-batches that are this rank's; their mean loss.

    Both are means over the micro-steps of all ranks, so that they add up over ranks. Gradients of
    bfloat16 weights are added up in float32 and returned, to be rounded once all ranks' are in: so
    they do not depend on how many ranks share the micro-batches.
    """
    model, optim, device = training.model, training.recipe.optim, training.world.device
    micro_steps = training.recipe.train.micro_steps
    parameters = list(model.parameters())
    rounded = [p for p in parameters if p.dtype is torch.bfloat16]
    sums: dict[Tensor, Tensor] = {}
    total = torch.zeros((), device=device)
    at_once = _at_once(training, batch)
    for start in range(0, len(batch), at_once):
        micro_batches = batch[start : start + at_once]
        x, y = (_joined(tokens, device) for tokens in zip(*micro_batches, strict=True))
        loss = training.nll(x, y).mean()
        if optim.clip == "per_shard" and optim.grad_clip is not None:
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, optim.grad_clip)
            _add_gradients(sums, parameters, 1 / micro_steps)
        else:
            (loss * len(micro_batches) / micro_steps).backward()
            _add_gradients(sums, rounded, 1.0)
        total += loss.detach() * len(micro_batches) / micro_steps
        training.beat()
    for parameter in [p for p in sums if p.dtype is not torch.bfloat16]:
        parameter.grad = sums.pop(parameter)
    return total, sums


def _at_once(training: Training, batch: MicroBatches) -> int:
    """How many micro-batches go through the model together.

    Their mean is the mean of their means, up to the order of a float32 sum. A gradient that is
    clipped by itself needs a pass by itself, and one micro-batch fills a GPU alone.
    """
    if training.recipe.optim.clip == "per_shard" or training.world.device.type != "cpu":
        return 1
    return max(1, _TOKENS_AT_ONCE // max(1, batch[0][0].numel()))


_TOKENS_AT_ONCE = 1024
"""On a CPU: a step of the local recipe takes 0.81 to 0.86 in one pass of what it takes in two."""


def _joined(tokens: Sequence[Tensor], device: torch.device) -> Tensor:
    whole = tokens[0] if len(tokens) == 1 else torch.cat(list(tokens))
    return whole.to(device, non_blocking=True)


def _add_gradients(sums: dict[Tensor, Tensor], parameters: Sequence[Tensor], factor: float) -> None:
    """Add ``factor`` times the gradients to ``sums``, those in bfloat16 in float32; drop them."""
    for parameter in parameters:
        if parameter.grad is None:
            continue
        is_rounded = parameter.dtype is torch.bfloat16
        scaled = parameter.grad.float() if is_rounded else parameter.grad
        scaled = scaled if factor == 1.0 else scaled.mul_(factor)
        sums[parameter] = sums[parameter].add_(scaled) if parameter in sums else scaled
        parameter.grad = None
