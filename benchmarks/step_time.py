"""Is any activation slower than another for reasons of code?

One training step of each activation in turn, round after round, on the same batch: machines are
noisy, so only ratios within a round are reported (median and quartiles over the rounds).
"""

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import torch

from trainer.contract import ActivationSpec, RunSpec
from trainer.recipe import load_recipe
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
UNKNOWN_DATA = "0" * 64


class Contender:
    """A model with its optimizers that takes the same step again and again."""

    def __init__(self, spec: RunSpec, world: World) -> None:
        model = build_model(spec).on_device(world.device)
        self._training = Training(model, spec.recipe, spec.seed, world)
        self._optimizers = self._training.optimizers()

    def step_s(self, batch: MicroBatches) -> float:
        start_s = time.perf_counter()
        take_step(self._training, self._optimizers, batch, 1, 0.0)
        self._training.world.synchronize()
        return time.perf_counter() - start_s


def measure(recipe_name: str, device: str, rounds: int, warmup: int) -> dict[str, list[float]]:
    """Seconds of every step, by activation; element i of each list is of round i."""
    recipe = load_recipe(recipe_name)
    with open_world(device, threads=1) as world:
        contenders = {
            name: Contender(
                RunSpec(
                    recipe_name=recipe_name,
                    recipe=recipe,
                    activation=activation,
                    seed=0,
                    budget="1steps",
                    device="cuda" if device == "cuda" else "cpu",
                    dtype="bfloat16" if device == "cuda" else "float32",
                    data_dir=".",
                    corpus_sha256=UNKNOWN_DATA,
                    tokenizer_sha256=UNKNOWN_DATA,
                ),
                world,
            )
            for name, activation in CONTENDERS.items()
        }
        train = recipe.train
        shape = (train.batch_tokens // train.micro_steps // train.seq_len, train.seq_len)
        draw = torch.Generator().manual_seed(0)
        tokens = torch.randint(recipe.model.vocab_size, (2, *shape), generator=draw)
        batch = [(tokens[0], tokens[1])] * train.micro_steps
        times: dict[str, list[float]] = {name: [] for name in contenders}
        for i in range(warmup + rounds):
            for name, contender in contenders.items():
                taken_s = contender.step_s(batch)
                if i >= warmup:
                    times[name].append(taken_s)
    return times


def ratios(times: dict[str, list[float]]) -> dict[str, tuple[float, float, float]]:
    """(first quartile, median, third quartile) of each activation's time over the reference's."""
    table = {}
    for name, values in times.items():
        relative = [a / b for a, b in zip(values, times[REFERENCE], strict=True)]
        low, middle, high = statistics.quantiles(relative, n=4)
        table[name] = (low, middle, high)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="local")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--warmup", type=int, default=5)
    arguments = parser.parse_args()
    times = measure(arguments.recipe, arguments.device, arguments.rounds, arguments.warmup)
    table = ratios(times)
    print(
        f"step time over that of {REFERENCE}, recipe {arguments.recipe}, {arguments.rounds} rounds"
    )
    for name, (low, middle, high) in table.items():
        ms = 1000 * statistics.median(times[name])
        print(f"  {name:18} {middle:.3f}  (quartiles {low:.3f} to {high:.3f})  median {ms:.1f} ms")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"step_time-{arguments.recipe}-{arguments.device}.json"
    record = {
        "ratios": table,
        "seconds": times,
        "machine": platform.platform(),
        "torch": torch.__version__,
        "trainer_sha256": trainer_source().sha256,
    }
    path.write_text(json.dumps(record, indent=1), encoding="utf-8")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
