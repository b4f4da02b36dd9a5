"""Is any activation slower than another for reasons of code?

One training step of each activation in turn, round after round, on the same batch: machines are
noisy, so only ratios within a round are reported (median and quartiles over the rounds). With
``--device cuda`` each activation runs in three forms: eager, compiled, and compiled with the fused
MLP. There a step is one micro-step and an update, as each of eight GPUs takes it at the shapes of
the recipe, and the reference is compiled and not fused: #549 as published.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.hardware import peaks_of, versions
from trainer.contract import ActivationSpec, RunSpec
from trainer.describe import describe
from trainer.recipe import Recipe, load_recipe
from trainer.run import build_model
from trainer.source import trainer_source
from trainer.step import MicroBatches, Training, take_step
from trainer.world import World, open_world

RESULTS = Path(__file__).parent / "results"
CONTENDERS = {
    "relu2": ActivationSpec(name="relu2"),
    "leaky_relu2-s0.3": ActivationSpec(name="leaky_relu2", params={"slope": 0.3}),
    "leaky_relu2-s0.5": ActivationSpec(name="leaky_relu2", params={"slope": 0.5}),
    "leaky_relu2-s0.9": ActivationSpec(name="leaky_relu2", params={"slope": 0.9}),
    "asqu": ActivationSpec(name="asqu"),
}
REFERENCE = "leaky_relu2-s0.5"
FORMS = {"cpu": ("torch",), "cuda": ("eager", "compiled", "fused")}
PUBLISHED = "compiled"
"""The form of the reference on CUDA."""
UNKNOWN_DATA = "0" * 64


class Uncompiled(Training):
    """Training that runs the model as it is written, on CUDA too."""

    @property
    def nll(self) -> Callable[[Tensor, Tensor], Tensor]:
        return self.model.nll


class Contender:
    """A model with its optimizers that takes the same step again and again."""

    def __init__(self, spec: RunSpec, world: World, form: str) -> None:
        model = build_model(spec).on_device(world.device, fused=form == "fused")
        kind = Uncompiled if form == "eager" else Training
        self._training = kind(model, spec.recipe, spec.seed, world)
        self._optimizers = self._training.optimizers()

    def step_s(self, batch: MicroBatches) -> float:
        start_s = time.perf_counter()
        take_step(self._training, self._optimizers, batch, 1, 0.0)
        self._training.world.synchronize()
        return time.perf_counter() - start_s


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


def measure(recipe_name: str, device: str, rounds: int, warmup: int) -> dict[str, list[float]]:
    """Seconds of every step, by activation; element i of each list is of round i."""
    recipe = load_recipe(recipe_name)
    with open_world(device, threads=1) as world:
        contenders = {
            _name(form, label): Contender(
                spec_of(recipe_name, recipe, activation, device),
                world,
                form,
            )
            for form in FORMS[device]
            for label, activation in CONTENDERS.items()
        }
        train = recipe.train
        shape = (train.batch_tokens // train.micro_steps // train.seq_len, train.seq_len)
        draw = torch.Generator().manual_seed(0)
        tokens = torch.randint(recipe.model.vocab_size, (2, *shape), generator=draw)
        batch = [(tokens[0], tokens[1])] * (1 if device == "cuda" else train.micro_steps)
        times: dict[str, list[float]] = {name: [] for name in contenders}
        for i in range(warmup + rounds):
            for name, contender in contenders.items():
                taken_s = contender.step_s(batch)
                if i >= warmup:
                    times[name].append(taken_s)
    return times


def _name(form: str, label: str) -> str:
    return label if form == "torch" else f"{form} {label}"


def reference_on(device: str) -> str:
    """Whose time the others are relative to."""
    return _name(PUBLISHED if device == "cuda" else "torch", REFERENCE)


def utilisation(recipe: Recipe, times: dict[str, list[float]], gpu: str) -> dict[str, float]:
    """Model FLOPs of a micro-step over what the GPU could do in the median step."""
    peaks = peaks_of(gpu)
    if peaks is None:
        return {}
    per_token = describe(recipe, CONTENDERS[REFERENCE], "bfloat16")["flops_per_token"]["training"]
    flops = per_token * recipe.train.batch_tokens / recipe.train.micro_steps
    return {name: flops / statistics.median(s) / peaks.flops_per_s for name, s in times.items()}


def ratios(times: dict[str, list[float]], reference: str) -> dict[str, tuple[float, float, float]]:
    """(first quartile, median, third quartile) of each activation's time over the reference's."""
    table = {}
    for name, values in times.items():
        relative = [a / b for a, b in zip(values, times[reference], strict=True)]
        low, middle, high = statistics.quantiles(relative, n=4)
        table[name] = (low, middle, high)
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", help="default: local, and pr549 on CUDA")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--warmup", type=int, default=5)
    arguments = parser.parse_args()
    device: str = arguments.device
    if device == "cuda" and not torch.cuda.is_available():
        print("step_time --device cuda needs a CUDA GPU: there is none here, nothing was measured.")
        return 2
    recipe = arguments.recipe or ("pr549" if device == "cuda" else "local")
    times = measure(recipe, device, arguments.rounds, arguments.warmup)
    reference = reference_on(device)
    table = ratios(times, reference)
    used = {}
    if device == "cuda":
        used = utilisation(load_recipe(recipe), times, torch.cuda.get_device_name())
    print(f"step time over that of {reference}, recipe {recipe}, {arguments.rounds} rounds")
    for name, (low, middle, high) in table.items():
        ms = 1000 * statistics.median(times[name])
        beside = f"  MFU {used[name]:.2f}" if name in used else ""
        print(
            f"  {name:26} {middle:.3f}  (quartiles {low:.3f} to {high:.3f})  "
            f"median {ms:.1f} ms{beside}"
        )
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"step_time-{recipe}-{device}.json"
    record = {
        **versions(),
        "reference": reference,
        "ratios": table,
        "model_flops_utilisation": used,
        "seconds": times,
        "machine": platform.platform(),
        "trainer_sha256": trainer_source().sha256,
    }
    path.write_text(json.dumps(record, indent=1), encoding="utf-8")
    print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
