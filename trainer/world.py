"""Which rank is this, what do the ranks share, and what time is it?

The only place of the trainer that reads the environment. There is one clock: rank 0's, read after
the device has finished its work and broadcast, so that schedule and stop agree on every rank.
"""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from trainer.strict import ConfigError

COLLECTIVE_TIMEOUT = timedelta(seconds=120)


@dataclass(frozen=True, slots=True)
class World:
    """Rank ``rank`` of ``size``, computing on ``device``."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def share(self, num_items: int) -> range:
        """This rank's contiguous part of ``num_items`` items; the parts cover each item once."""
        return range(num_items * self.rank // self.size, num_items * (self.rank + 1) // self.size)

    def sum_(self, tensor: Tensor) -> Tensor:
        """``tensor`` summed over ranks, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Sum the gradients over ranks; an absent gradient counts as zero everywhere."""
        if self.size == 1:
            return
        present = list(parameters)
        for p in present:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        flat = torch.cat([p.grad.flatten() for p in present if p.grad is not None])
        dist.all_reduce(flat)
        offset = 0
        for p in present:
            assert p.grad is not None
            p.grad.copy_(flat[offset : offset + p.numel()].view_as(p))
            offset += p.numel()

    def synchronize(self) -> None:
        """Wait until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds_since(self, start_s: float) -> float:
        """Rank 0's time since its own ``start_s`` (of time.perf_counter), on every rank."""
        self.synchronize()
        elapsed = torch.tensor(time.perf_counter() - start_s, dtype=torch.float64)
        if self.size > 1:
            on_device = elapsed.to(self.device)
            dist.broadcast(on_device, src=0)
            elapsed = on_device.cpu()
        return float(elapsed)


@contextmanager
def open_world(device: str, threads: int) -> Iterator[World]:
    """The world that the environment describes: torchrun's variables, or a single rank."""
    rank, size, local = (int(os.environ.get(k, d)) for k, d in _VARIABLES.items())
    torch.set_num_threads(threads)
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "device cuda: torch sees no CUDA device here. Use --device cpu, or a torch built for "
            "this machine's GPUs (make setup TORCH=system keeps the one that is installed)."
        )
    where = torch.device(device, local) if device == "cuda" else torch.device("cpu")
    if where.type == "cuda":
        torch.cuda.set_device(where)
        torch.set_float32_matmul_precision("high")
    if size == 1:
        yield World(rank=0, size=1, device=where)
        return
    backend = "nccl" if where.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=COLLECTIVE_TIMEOUT)
    try:
        yield World(rank=rank, size=size, device=where)
    finally:
        dist.destroy_process_group()


_VARIABLES = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
