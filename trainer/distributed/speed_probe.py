"""Probe a machine's speed by the same short work before and after a timed cell.

A matmul and, between several ranks, an all-reduce, of sizes that no recipe changes: what they take
depends on the node and not on the cell. It leaves nothing behind: its numbers are drawn from a
generator of its own. D is the side of a matrix.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from trainer.distributed.world import World


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is timed together as one repetition: some ten milliseconds at most where it is meant."""

    side: int
    dtype: torch.dtype
    matmuls: int
    reduced: int


# On an H100 8 products of 2·4096³ operations are about 2 ms (computed, not measured), on one core
# of a CPU 2 of 2·256³ are about 2 ms. All-reduced are 64 MiB, and 1 MiB between CPUs.
SIZES = {
    "cuda": Sizes(side=4096, dtype=torch.bfloat16, matmuls=8, reduced=2**24),
    "cpu": Sizes(side=256, dtype=torch.float32, matmuls=2, reduced=2**18),
}
NUM_WARM, NUM_TIMED = 5, 15


@dataclass(frozen=True, slots=True)
class Probe:
    """Medians, of the rank where they are largest: the slowest GPU sets the pace of all."""

    matmul_ms: float
    allreduce_ms: float | None


def probe(world: World) -> Probe:
    """Every rank has to take part."""
    sizes = SIZES[world.device.type]
    draw = torch.Generator(world.device).manual_seed(0)
    shape = 2, sizes.side, sizes.side
    left_DD, right_DD = torch.randn(
        shape, generator=draw, device=world.device, dtype=sizes.dtype
    ).unbind()
    product_DD = torch.empty_like(left_DD)

    def multiply() -> None:
        for _ in range(sizes.matmuls):
            torch.mm(left_DD, right_DD, out=product_DD)

    found_ms = [_median_ms(multiply, world)]
    if world.size > 1:
        flat = torch.zeros(sizes.reduced, device=world.device)
        found_ms.append(_median_ms(lambda: world.sum_(flat), world))
    slowest = torch.tensor(found_ms, dtype=torch.float64, device=world.device)
    matmul_ms, *allreduce_ms = world.largest(slowest).tolist()
    return Probe(matmul_ms, *allreduce_ms or [None])


def _median_ms(work: Callable[[], object], world: World) -> float:
    taken_ms = []
    for _ in range(NUM_WARM + NUM_TIMED):
        world.synchronize()
        start_s = time.perf_counter()
        work()
        world.synchronize()
        taken_ms.append(1000 * (time.perf_counter() - start_s))
    return statistics.median(taken_ms[NUM_WARM:])
