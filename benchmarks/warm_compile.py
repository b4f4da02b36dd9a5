"""How long does a cell wait for code that the node has compiled before?

The training graph of a recipe is compiled once, in a process that leaves it in caches on disk; then
fresh processes, which have imported the compiler as the fork server has, each take the time to
their first gradient, with another slope: in turn with all that is kept, and with compiled kernels
kept but the graph traced through autograd anew, as it is where torch cannot keep it. On a CPU the
kernels are inductor's C++, for sequences of 128 tokens; with ``--device cuda`` it is a first step
with the fused MLP.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

import torch

from benchmarks.contenders import Ours, build, random_batch
from benchmarks.hardware import need_gpu, versions
from benchmarks.measured import ROOT, conclude
from benchmarks.turns import Quartiles, quartiles
from trainer.config import load_recipe
from trainer.contract import ActivationSpec
from trainer.distributed.world import open_world
from trainer.model.compilation import Compilation, compiled

WAYS = {"kept": "1", "traced anew": "0"}
LENGTH = 128


def first_gradient(recipe_name: str, device: str, slope: float) -> dict[str, Any]:
    """Seconds to the first gradient in this process, and what had to be compiled for it."""
    __import__("torch._inductor.compile_fx")
    recipe = load_recipe(recipe_name)
    activation = ActivationSpec(name="leaky_relu2", params={"slope": slope})
    model = build(recipe, activation, device)
    with open_world(device, threads=1) as world:
        compilation = Compilation(world.device)
        start_s = time.perf_counter()
        if device == "cuda":
            Ours(model, recipe, world).take(random_batch(recipe, device), 1, 0.0)
        else:
            length = min(LENGTH, recipe.train.seq_len)
            tokens = torch.zeros(1, length + 1, dtype=torch.int64)
            model._rope(length)
            nll = compiled(model.nll, model.precision)
            nll(tokens[:, :-1], tokens[:, 1:]).mean().backward()
        return {"s": time.perf_counter() - start_s, "misses": compilation.misses()}


def asked(recipe: str, device: str, slope: float, caches: str, keeps: str) -> dict[str, Any]:
    """:func:`first_gradient` of a fresh process."""
    variables = {
        "TORCHINDUCTOR_CACHE_DIR": f"{caches}/inductor",
        "TRITON_CACHE_DIR": f"{caches}/triton",
        "TORCHINDUCTOR_AUTOGRAD_CACHE": keeps,
    }
    command = [sys.executable, "-m", "benchmarks.warm_compile", "--answer", str(slope)]
    done = subprocess.run(
        [*command, "--recipe", recipe, "--device", device],
        cwd=ROOT,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="pr549")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--check", action="store_true", help="compare with what was kept")
    parser.add_argument("--answer", type=float, metavar="SLOPE", help=argparse.SUPPRESS)
    given = parser.parse_args()
    need_gpu("warm_compile --device cuda", given.device)
    if given.answer is not None:
        print(json.dumps(first_gradient(given.recipe, given.device, given.answer)))
        return 0
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as caches:
        first = asked(given.recipe, given.device, 0.5, caches, "1")
        print(f"recipe {given.recipe}: compiled in {first['s']:.1f} s; found again, to the first")
        for i in range(given.rounds):
            for way, keeps in WAYS.items():
                found = asked(given.recipe, given.device, 0.1 * (1 + i), caches, keeps)
                times[way].append(found["s"])
                if way == "kept" and found["misses"] != 0:
                    sys.exit(f"{found['misses']} graphs or kernels were not found again")
    for way, seconds in times.items():
        print(f"  {way:12} {quartiles(seconds)} s")
    ratio: Quartiles = quartiles(
        [a / b for a, b in zip(times["kept"], times["traced anew"], strict=True)]
    )
    print(f"  kept / traced anew {ratio}")
    result = {**versions(), "recipe": given.recipe, "first_s": first["s"], "seconds": times}
    result["ratios"] = {"kept / traced anew": ratio}
    conclude(f"warm_compile-{given.recipe}-{given.device}", result, check=given.check)
    return 0


if __name__ == "__main__":
    sys.exit(main())
