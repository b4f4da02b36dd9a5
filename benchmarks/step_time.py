"""Is any activation slower than another for reasons of code, and how far is a step from the GPU?

One training step of each activation in turn, round after round, on the same batch: machines are
noisy, so only ratios within a round are reported (median and quartiles over the rounds). With
``--device cuda`` each activation runs in four forms: eager, compiled, compiled with the fused MLP,
and that with the compiler looking for the fastest kernels (tuned). There a step is one micro-step
and an update, as each of eight GPUs takes it at the shapes of the recipe, and the reference is
compiled and not fused: #549 as published.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.contenders import CONTENDERS, REFERENCE, Form, Ours, build, random_batch
from benchmarks.hardware import need_gpu, peaks_of, versions
from benchmarks.measured import conclude
from benchmarks.turns import Quartiles, Times, in_turn, ratios, spread
from trainer.config import Recipe, load_recipe
from trainer.describe import describe
from trainer.distributed.world import open_world
from trainer.source import trainer_source

FORMS: dict[str, tuple[Form, ...]] = {
    "cpu": ("eager",),
    "cuda": ("eager", "compiled", "fused", "tuned"),
}
PUBLISHED: dict[str, Form] = {"cpu": "eager", "cuda": "compiled"}
"""The form of the reference."""


def measure(recipe: Recipe, device: str, *, rounds: int, warmup: int) -> Times:
    """Seconds of every step, by form and activation."""
    with open_world(device, threads=1) as world:
        batch = random_batch(recipe, device)
        work: dict[str, Callable[[], object]] = {}
        for form in FORMS[device]:
            for label, activation in CONTENDERS.items():
                ours = Ours(build(recipe, activation, device), recipe, world, form)
                # Step 1 at rate 0: every operation is done and the weights stay as they are.
                work[f"{form} {label}"] = lambda ours=ours: ours.take(batch, 1, 0.0)
        clock = time.process_time if device == "cpu" else time.perf_counter
        return in_turn(work, rounds=rounds, warmup=warmup, clock=clock)


def utilisation(recipe: Recipe, times: Times, gpu: str) -> dict[str, float]:
    """Model FLOPs of a micro-step over what the GPU could do in the median step."""
    peaks = peaks_of(gpu)
    if peaks is None:
        return {}
    per_token = describe(recipe, CONTENDERS[REFERENCE], "bfloat16")["flops_per_token"]["training"]
    flops = per_token * recipe.train.batch_tokens / recipe.train.micro_steps
    return {name: flops / statistics.median(s) / peaks.flops_per_s for name, s in times.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", help="default: local, and pr549 on CUDA")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--check", action="store_true", help="compare with what was kept")
    given = parser.parse_args()
    device: str = given.device
    need_gpu("step_time --device cuda", device)
    name = given.recipe or ("pr549" if device == "cuda" else "local")
    recipe = load_recipe(name)
    times = measure(recipe, device, rounds=given.rounds, warmup=given.warmup)
    reference = f"{PUBLISHED[device]} {REFERENCE}"
    found = ratios(times, reference)
    gpu = torch.cuda.get_device_name() if device == "cuda" else None
    used = {} if gpu is None else utilisation(recipe, times, gpu)
    print(f"step time over that of {reference}, recipe {name}, {given.rounds} rounds")
    for contender, seconds in times.items():
        ratio = found.get(contender, Quartiles(1.0, 1.0, 1.0))
        beside = f"  MFU {used[contender]:.2f}" if contender in used else ""
        ms = 1000 * statistics.median(seconds)
        print(f"  {contender:26} {ratio}  median {ms:.1f} ms{beside}")
    spreads = {}
    for form in FORMS[device]:
        spreads[form] = spread({label: times[f"{form} {label}"] for label in CONTENDERS}, "asqu")
        slopes, asqu = spreads[form]
        print(f"{form}: slowest over fastest slope {slopes:.3f}, ASQU {asqu:.3f}")
    result: dict[str, Any] = {
        **versions(),
        "recipe": name,
        "reference": reference,
        "ratios": found,
        "slowest_over_fastest_slope_and_asqu": spreads,
        "model_flops_utilisation": used,
        "seconds": times,
        "trainer_sha256": trainer_source().sha256,
    }
    conclude(f"step_time-{name}-{device}", result, check=given.check)
    return 0


if __name__ == "__main__":
    sys.exit(main())
