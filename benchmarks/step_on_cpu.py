"""How much faster than the plain implementation is a training step on a CPU, for each activation?

The trainer's step, its average included, and that of :mod:`benchmarks.plain` from the same weights
on the same batch with the same threads, in turn. Beside it the bound: the products of matrices that
the mathematics asks for, at the speed that this core multiplies large matrices with.
"""

import argparse
from collections.abc import Callable

import torch

from benchmarks.contenders import CONTENDERS, REFERENCE, Ours, build, random_batch
from benchmarks.measured import conclude
from benchmarks.plain import PlainStep
from benchmarks.turns import Quartiles, in_turn, quartiles, ratios
from trainer.config import Recipe, load_recipe
from trainer.describe import describe
from trainer.distributed.world import open_world

GOAL = 0.8
SIDE = 512
"""Of the matrices that the bound is told by: 2·512³ operations, 3 MB."""


def measure(recipe: Recipe, *, rounds: int, warmup: int) -> dict[str, list[float]]:
    """Seconds of every step: "plain LABEL" and "ours LABEL" in turn."""
    batch = random_batch(recipe)
    work: dict[str, Callable[[], object]] = {}
    with open_world("cpu", threads=1) as world:
        for label, activation in CONTENDERS.items():
            model = build(recipe, activation)
            plain, ours = PlainStep(model, recipe), Ours(model, recipe, world)
            # Step 1 at rate 0: every operation is done and the weights stay as they are.
            work[f"plain {label}"] = lambda plain=plain: plain.take(batch, 1, 0.0)
            work[f"ours {label}"] = lambda ours=ours: ours.take(batch, 1, 0.0)
        return in_turn(work, rounds=rounds, warmup=warmup)


def over_plain(times: dict[str, list[float]]) -> dict[str, Quartiles]:
    """Ours over plain, by activation."""
    labels = [name.removeprefix("ours ") for name in times if name.startswith("ours ")]
    return {
        label: ratios({"plain": times[f"plain {label}"], label: times[f"ours {label}"]}, "plain")[
            label
        ]
        for label in labels
    }


def products_per_step(recipe: Recipe) -> float:
    """Floating-point operations of the products of matrices, Newton–Schulz included."""
    per_token = describe(recipe, CONTENDERS[REFERENCE], "float32")["flops_per_token"]["training"]
    total = float(per_token) * recipe.train.batch_tokens
    model = build(recipe, CONTENDERS[REFERENCE])
    for name, p in model.named_parameters():
        if name.endswith("_bank"):
            short, long = sorted(p.shape[1:])
            each = 2 * short * short * (2 * long + short)  # X·Xᵀ, A·A and the product with X
            total += len(p) * recipe.optim.newton_schulz_steps * each
    return total


def products_per_s(rounds: int = 20) -> float:
    """What one thread multiplies large float32 matrices with, the best of ``rounds``."""
    left, right = torch.randn(2, SIDE, SIDE).unbind()
    times = in_turn({"mm": lambda: torch.mm(left, right)}, rounds=rounds, warmup=3)
    return float(2 * SIDE**3 / min(times["mm"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="local")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--check", action="store_true", help="compare with what was kept")
    given = parser.parse_args()
    recipe = load_recipe(given.recipe)
    times = measure(recipe, rounds=given.rounds, warmup=given.warmup)
    table = over_plain(times)
    operations, speed = products_per_step(recipe), products_per_s()
    bound_ms = 1000 * operations / speed
    print(f"step time over that of the plain one, recipe {given.recipe}, {given.rounds} rounds")
    for label, ratio in table.items():
        plain_ms, ours_ms = (
            1000 * quartiles(times[f"{which} {label}"]).middle for which in ("plain", "ours")
        )
        print(f"  {label:18} {ratio}  plain {plain_ms:.1f} ms, ours {ours_ms:.1f} ms")
    print(
        f"  bound: {operations / 1e6:.0f} MFLOP of products at {speed / 1e9:.0f} GFLOP/s are "
        f"{bound_ms:.1f} ms"
    )
    result = {
        "recipe": given.recipe,
        "ratios": table,
        "seconds": times,
        "flops_per_step": operations,
        "flops_per_s": speed,
        "bound_ms": bound_ms,
    }
    conclude(f"step_on_cpu-{given.recipe}", result, check=given.check)


if __name__ == "__main__":
    main()
