"""What does reading cost? As a share of a step, and against copying the same tokens.

Shards are synthetic, in a temporary folder, and in the page cache. A step of the local recipe is
measured in turn with the reading of its batch. The shapes of #549 have no step on a CPU to compare
with: one rank of eight reads its micro-step, in turn with a copy of as many tokens in memory to the
int64 that the model takes. With ``--device cuda`` its steps are measured in turn with and without
reading, as a cell reads: a batch ahead on a thread, pinned.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contenders import CONTENDERS, REFERENCE, Ours, build, random_batch
from benchmarks.hardware import need_gpu, versions
from benchmarks.measured import conclude
from benchmarks.turns import Quartiles, in_turn, quartiles, ratios
from trainer.config import Recipe, load_recipe
from trainer.data.loader import BatchLayout, CoprimeLoader, Loader, SequentialLoader
from trainer.data.prefetch import prefetched
from trainer.data.shards import write_shard
from trainer.distributed.world import open_world

NUM_SHARDS, SHARD_TOKENS = 4, 4_000_000
GOAL = 0.01
LOADERS = ("sequential", "coprime")


def shards(folder: Path, vocab_size: int) -> list[Path]:
    """Tokens drawn evenly."""
    draw, paths = np.random.default_rng(0), []
    for index in range(NUM_SHARDS):
        paths.append(folder / f"x_train_{index:06d}.bin")
        write_shard(paths[-1], draw.integers(vocab_size, size=SHARD_TOKENS, dtype=np.uint16))
    return paths


def loader_of(kind: str, recipe: Recipe, paths: list[Path], *, world_size: int) -> Loader:
    """Rank 0's, of an order for as many ranks as there are."""
    layout = BatchLayout(
        batch_tokens=recipe.train.batch_tokens,
        seq_len=recipe.train.seq_len,
        micro_steps=recipe.train.micro_steps,
        virtual_world=world_size,
        rank=0,
        world_size=world_size,
    )
    if kind == "sequential":
        return SequentialLoader(paths, layout)
    return CoprimeLoader(paths, [path.name for path in paths], layout, recipe.data.coprime)


def local_share(paths: list[Path], *, rounds: int) -> dict[str, list[float]]:
    """Seconds of a step of the local recipe, and of reading its batch."""
    recipe = load_recipe("local")
    with open_world("cpu", threads=1) as world:
        ours, batch = (
            Ours(build(recipe, CONTENDERS[REFERENCE]), recipe, world),
            random_batch(recipe),
        )
        work: dict[str, Callable[[], object]] = {"step": lambda: ours.take(batch, 1, 0.0)}
        for kind in LOADERS:
            work[f"local {kind}"] = loader_of(kind, recipe, paths, world_size=1).next_batch
        return in_turn(work, rounds=rounds, warmup=5)


def gpu_share(paths: list[Path], *, rounds: int) -> dict[str, list[float]]:
    """Seconds of a micro-step and update of #549, and of the same with its batch read."""
    recipe = load_recipe("pr549")
    with open_world("cuda", threads=1) as world:
        ours = Ours(build(recipe, CONTENDERS[REFERENCE], "cuda"), recipe, world)
        batch = random_batch(recipe, "cuda")
        work: dict[str, Callable[[], object]] = {"step": lambda: ours.take(batch, 1, 0.0)}
        for kind in LOADERS:
            loader = prefetched(loader_of(kind, recipe, paths, world_size=8), world.device)
            work[f"pr549 step, {kind}"] = lambda loader=loader: ours.take(
                loader.next_batch(), 1, 0.0
            )
        return in_turn(work, rounds=rounds, warmup=5, clock=time.perf_counter)


def published_share(paths: list[Path], *, rounds: int) -> dict[str, list[float]]:
    """Seconds of copying a micro-step of #549 in memory, and of reading it."""
    recipe = load_recipe("pr549")
    in_memory = np.zeros(recipe.train.batch_tokens // recipe.train.micro_steps, np.uint16)
    work: dict[str, Callable[[], object]] = {"copy": lambda: in_memory.astype(np.int64)}
    for kind in LOADERS:
        work[f"pr549 {kind}"] = loader_of(kind, recipe, paths, world_size=8).next_batch
    return in_turn(work, rounds=rounds, warmup=5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--check", action="store_true", help="compare with what was kept")
    given = parser.parse_args()
    need_gpu("loader --device cuda", given.device)
    with tempfile.TemporaryDirectory() as folder:
        paths = shards(Path(folder), 1024)
        if given.device == "cuda":
            times = gpu_share(paths, rounds=given.rounds)
            found = ratios(times, "step")
            print("a step of #549 that reads its batch, over one that has it")
        else:
            local = local_share(paths, rounds=given.rounds)
            published = published_share(paths, rounds=given.rounds)
            times, found = local | published, ratios(local, "step") | ratios(published, "copy")
            print("reading a batch: local over a step, #549 over a copy of its tokens in memory")
    _print(found, times)
    result: Mapping[str, Any] = {**versions(), "ratios": found, "seconds": times}
    conclude(f"loader-{given.device}", result, check=given.check)


def _print(found: Mapping[str, Quartiles], times: Mapping[str, list[float]]) -> None:
    for name, ratio in found.items():
        print(f"  {name:18} {ratio}  median {1000 * quartiles(times[name]).middle:.3f} ms")


if __name__ == "__main__":
    main()
