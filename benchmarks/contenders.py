"""What is measured: the trainer's own step, for slopes and for a learned β, on drawn tokens."""

from collections.abc import Callable
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from trainer.cell import build_model, set_matmul_precision
from trainer.config import Recipe
from trainer.contract import ActivationSpec, RunSpec
from trainer.distributed.world import World
from trainer.model import GPT
from trainer.model.compilation import compiled
from trainer.training.averaging import Average
from trainer.training.step import MicroBatches, Training, take_step

CONTENDERS = {
    "relu2": ActivationSpec(name="relu2"),
    "leaky_relu2-s0.3": ActivationSpec(name="leaky_relu2", params={"slope": 0.3}),
    "leaky_relu2-s0.5": ActivationSpec(name="leaky_relu2", params={"slope": 0.5}),
    "leaky_relu2-s0.9": ActivationSpec(name="leaky_relu2", params={"slope": 0.9}),
    "asqu": ActivationSpec(name="asqu"),
}
REFERENCE = "leaky_relu2-s0.5"
Form = Literal["eager", "compiled", "fused", "tuned"]
"""On CUDA: nothing compiled; compiled, as published; compiled, with the fused MLP; and that with
every kernel chosen by trying, which takes minutes to compile."""
UNKNOWN_DATA = "0" * 64


class Ours:
    """The trainer's step, as a cell takes it, its average included."""

    def __init__(self, model: GPT, recipe: Recipe, world: World, form: Form = "fused") -> None:
        is_fused, self._world = form in ("fused", "tuned"), world
        set_matmul_precision(world.device, bfloat16=model.compute_dtype is torch.bfloat16)
        self.model = model.on_device(world.device, fused=is_fused)
        self._training = _KINDS.get(form, Training)(self.model, recipe, 0, world)
        self._optimizers = self._training.optimizers()
        self._average = Average(recipe.averaging, dict(model.named_parameters()))

    def take(self, batch: MicroBatches, step: int, lr_mult: float) -> float:
        """One update (from 0), done when this returns; the mean loss before it."""
        loss = take_step(self._training, self._optimizers, batch, step, lr_mult)
        self._average.update()
        self._world.synchronize()
        return float(loss)

    def average(self) -> dict[str, Tensor]:
        """The averaged weights by name."""
        return self._average.current()


class Uncompiled(Training):
    """Training that runs the model as it is written, on CUDA too."""

    @cached_property
    def nll(self) -> Callable[[Tensor, Tensor], Tensor]:
        return self.model.nll


class Tuned(Training):
    """Training whose kernels are the fastest of those that the compiler tries."""

    @cached_property
    def nll(self) -> Callable[[Tensor, Tensor], Tensor]:
        mode = "max-autotune-no-cudagraphs"
        return compiled(self.model.nll, self.model.precision, mode=mode)


_KINDS: dict[Form, type[Training]] = {"eager": Uncompiled, "tuned": Tuned}


def build(
    recipe: Recipe, activation: ActivationSpec, device: str = "cpu", name: str = "benchmark"
) -> GPT:
    """The model with the weights of seed 0, in the types of that device."""
    return build_model(spec_of(name, recipe, activation, device))


def spec_of(name: str, recipe: Recipe, activation: ActivationSpec, device: str) -> RunSpec:
    """A question that needs no data: what is measured reads none."""
    return RunSpec(
        recipe_name=name,
        recipe=recipe,
        activation=activation,
        seed=0,
        budget="1steps",
        device="cuda" if device == "cuda" else "cpu",
        dtype="bfloat16" if device == "cuda" else "float32",
        data_dir=".",
        corpus_sha256=UNKNOWN_DATA,
        tokenizer_sha256=UNKNOWN_DATA,
    )


def random_batch(recipe: Recipe, device: str = "cpu") -> MicroBatches:
    """One step's micro-batches of tokens drawn evenly.

    On CUDA one of them, which each of eight GPUs takes of a step of the published recipes.
    """
    train, draw = recipe.train, torch.Generator().manual_seed(0)
    shape = (2, train.batch_tokens // train.micro_steps // train.seq_len, train.seq_len)
    drawn = [
        torch.randint(recipe.model.vocab_size, shape, generator=draw)
        for _ in range(1 if device == "cuda" else train.micro_steps)
    ]
    return [(tokens[0], tokens[1]) for tokens in drawn]
