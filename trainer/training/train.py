"""Take steps until the budget is spent: the training loop of one cell."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import astuple, dataclass

import torch
from torch import Tensor

from trainer.budget import Budget
from trainer.data.loader import Loader
from trainer.distributed.world import World
from trainer.evaluate.bpb import Score
from trainer.optim.schedule import lr_multiplier
from trainer.training.averaging import Average
from trainer.training.checkpoint import Checkpointer, State
from trainer.training.step import Training, compile_step, take_step


@dataclass(frozen=True, slots=True)
class StepLog:
    """What is known after update ``step``, counted from 1."""

    step: int
    elapsed_s: float
    lr_mult: float
    step_ms: float
    remaining_steps: float | None


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """The steps that were taken, and their training losses in nats per token (mean over ranks).

    ``validations`` are (updates taken, score of the weights then), as the recipe asks for them.
    ``resumed_from_step``: the updates that were taken from a checkpoint, None if none were.
    """

    steps: tuple[StepLog, ...]
    losses: tuple[float, ...]
    validations: tuple[tuple[int, Score], ...] = ()
    resumed_from_step: int | None = None

    @property
    def train_s(self) -> float:
        return self.steps[-1].elapsed_s if self.steps else 0.0

    @property
    def first_bad_step(self) -> int | None:
        """The first step (from 1) whose loss is not finite; None if there is none."""
        bad = (i for i, loss in enumerate(self.losses, start=1) if not math.isfinite(loss))
        return next(bad, None)


@dataclass(frozen=True, slots=True)
class TrainingHooks:
    """Who looks on: at the start, and how many steps were taken from a checkpoint if any were; at
    each step, with its loss at every ``check_every``-th; at the weights.
    """

    check_every: int
    on_start: Callable[[int | None], None]
    on_step: Callable[[StepLog, float | None], None]
    validate: Callable[[int], Score]


def warm_up(training: Training, loader: Loader) -> None:
    """Take full steps on real batches, then restore the weights: nothing but caches remains.

    The caller makes its optimizers and its loader anew afterwards.
    """
    model = training.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizers = training.optimizers()
    config = training.recipe.train
    multipliers = [1.0] * config.warmup_steps
    if config.warmup_steps and config.late_qat_below is not None:  # a graph of its own
        multipliers.append(0.0)
    for step, multiplier in enumerate(multipliers):
        batch = loader.next_batch()
        if step == 0 or multiplier == 0.0:
            compile_step(training, batch, multiplier)
        take_step(training, optimizers, batch, step, multiplier)
    training.world.synchronize()
    model.begin_step(training.seed, None)
    model.load_state_dict(before)


def train(
    training: Training,
    loader: Loader,
    budget: Budget,
    average: Average,
    hooks: TrainingHooks,
    checkpointer: Checkpointer | None = None,
) -> TrainingResult:
    """Train in place under ``budget``; stop early where a checked loss is not finite.

    With a ``checkpointer`` the steps go on from its checkpoint, if it has one, and SIGTERM ends
    them at another (``Stopped``). Validation in between and saving are off the clock.
    """
    course = _TrainingRun(training, loader, average, check_every=hooks.check_every)
    if checkpointer is not None and (state := checkpointer.load()) is not None:
        course.restore(state, budget)
    hooks.on_start(course.resumed_from_step)
    clock = _Clock(training.world, course.elapsed_s)
    with checkpointer.heeding_sigterm() if checkpointer is not None else nullcontext():
        while True:
            is_last = course.is_over(budget)
            if _validates(training.recipe.scoring.every_steps, course.step, is_last=is_last):
                with clock.stopped():
                    training.model.begin_step(training.seed, None)
                    course.validations.append((course.step, hooks.validate(course.step)))
            if is_last:
                break
            course.advance(budget, clock)
            hooks.on_step(course.steps[-1], course.checked)
            if checkpointer is not None:
                with clock.stopped():
                    course.keep(checkpointer, is_over=course.is_over(budget))
    training.model.begin_step(training.seed, None)
    return course.trained()


class _Clock:
    """Training time so far, by rank 0, on every rank."""

    def __init__(self, world: World, spent_s: float) -> None:
        self._world = world
        self._start_s = time.perf_counter() - spent_s

    def read(self) -> float:
        return self._world.seconds_since(self._start_s)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        paused_s = time.perf_counter()
        yield
        self._start_s += time.perf_counter() - paused_s


class _TrainingRun:
    """How far training has come: what the next step depends on, and what will be reported.

    ``checked`` is the loss of the last step over all ranks, where that step is one to be checked.
    """

    def __init__(
        self, training: Training, loader: Loader, average: Average, *, check_every: int
    ) -> None:
        self._training, self._loader, self._average = training, loader, average
        self._optimizers = training.optimizers()
        self._check_every = check_every
        self._losses: list[Tensor] = []
        self.steps: list[StepLog] = []
        self.validations: list[tuple[int, Score]] = []
        self.checked: float | None = None
        self.resumed_from_step: int | None = None

    @property
    def step(self) -> int:
        """Updates taken."""
        return len(self.steps)

    @property
    def elapsed_s(self) -> float:
        return self.steps[-1].elapsed_s if self.steps else 0.0

    def is_over(self, budget: Budget) -> bool:
        remaining = budget.remaining_steps(self.step, self.elapsed_s)
        diverged = self.checked is not None and not math.isfinite(self.checked)
        return diverged or (remaining is not None and remaining <= 0)

    def advance(self, budget: Budget, clock: _Clock) -> None:
        """Take one step."""
        training, step = self._training, self.step
        remaining = budget.remaining_steps(step, self.elapsed_s)
        multiplier = lr_multiplier(remaining, training.recipe.train.warmdown_steps)
        batch = self._loader.next_batch()
        loss = take_step(training, self._optimizers, batch, step, multiplier)
        self._average.update()
        elapsed_s = clock.read()
        self._losses.append(loss)
        self.steps.append(
            StepLog(
                step=step + 1,
                elapsed_s=elapsed_s,
                lr_mult=multiplier,
                step_ms=1000 * (elapsed_s - self.elapsed_s),
                remaining_steps=budget.remaining_steps(step + 1, elapsed_s),
            )
        )
        self._check()

    def _check(self) -> None:
        is_due = self.step % self._check_every == 0 and self._losses
        self.checked = _over_ranks(self._losses[-1:], self._training.world)[0] if is_due else None

    def state(self) -> State:
        """All that another process needs to go on; every rank has to ask.

        Random activations, late QAT and the schedule follow from the step, and nothing in training
        draws from a generator.
        """
        own_1S, size = torch.stack(self._losses)[None], self._training.world.size
        parts = {
            "model": self._training.model.state_dict(),
            "optimizers": self._optimizers.state(),
            "average": self._average.state(),
            "course": {
                "losses_WS": self._training.world.all_gather(own_1S, size).wait(),
                "times_S3": torch.tensor(
                    [(log.elapsed_s, log.lr_mult, log.step_ms) for log in self.steps],
                    dtype=torch.float64,
                ),
            },
        }
        return State(
            {f"{part}.{name}": t for part, tensors in parts.items() for name, t in tensors.items()},
            {
                "position": self._loader.position,
                "validations": [(step, astuple(score)) for step, score in self.validations],
            },
        )

    def keep(self, checkpointer: Checkpointer, *, is_over: bool) -> None:
        """Save what there is if it is time, or at the end; Stopped if the run is to stop."""
        is_due, must_stop = checkpointer.look()
        if must_stop:
            checkpointer.stop(self.state(), self.step)
        if is_due or is_over:
            checkpointer.save(self.state())

    def restore(self, state: State, budget: Budget) -> None:
        """Go on as the run did that had this ``state``."""
        world, own = self._training.world, state.under("course")
        self._training.model.load_state_dict(state.under("model"))
        self._optimizers.restore(state.under("optimizers"))
        self._average.restore(state.under("average"))
        self._loader.seek(state.facts["position"])
        self._losses = list(own["losses_WS"][world.rank].to(world.device))
        self.steps = [
            StepLog(step, elapsed_s, lr_mult, step_ms, budget.remaining_steps(step, elapsed_s))
            for step, (elapsed_s, lr_mult, step_ms) in enumerate(own["times_S3"].tolist(), start=1)
        ]
        self.validations = [(step, Score(*sums)) for step, sums in state.facts["validations"]]
        self.resumed_from_step = self.step
        self._check()

    def trained(self) -> TrainingResult:
        losses = _over_ranks(self._losses, self._training.world)
        return TrainingResult(
            tuple(self.steps), tuple(losses), tuple(self.validations), self.resumed_from_step
        )


def _validates(every_steps: int | None, step: int, *, is_last: bool) -> bool:
    """Before the first step, after every so many, and after the last."""
    return every_steps is not None and (is_last or step % every_steps == 0)


def _over_ranks(losses: list[Tensor], world: World) -> list[float]:
    if not losses:
        return []
    summed: list[float] = world.sum_(torch.stack(losses)).tolist()
    return summed
