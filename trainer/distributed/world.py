"""Ranks, their collectives, their devices and the one clock.

The only place of the trainer that reads the environment. There is one clock: rank 0's, read after
the device has finished its work and broadcast, so that schedule and stop agree on every rank.
"""

import os
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from trainer.config.config_errors import ConfigError
from trainer.distributed.malloc import keep_freed_memory

# Ranks part company where rank 0 measures or writes by itself; a rank that is gone is noticed by
# who started the ranks.
COLLECTIVE_TIMEOUT = timedelta(seconds=600)
STATUS_INTERVAL_S = 5.0

T = TypeVar("T")
NO_GRADIENTS: Mapping[Tensor, Tensor] = MappingProxyType({})


@dataclass(slots=True)
class PendingTensor:
    """A tensor that is on its way between ranks; :meth:`wait` returns it when it is there."""

    tensor: Tensor
    work: Any = None

    def wait(self) -> Tensor:
        if self.work is not None:
            self.work.wait()
            self.work = None
        return self.tensor


@dataclass(frozen=True, slots=True)
class World:
    """Rank ``rank`` of ``size``, computing on ``device``."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def has_spare_cores(self) -> bool:
        """Whether the processor is free while the device computes; the cores of a CPU are not."""
        return self.device.type != "cpu"

    def own_range(self, num_items: int) -> range:
        """This rank's contiguous part of ``num_items`` items; the parts cover each item once."""
        return range(num_items * self.rank // self.size, num_items * (self.rank + 1) // self.size)

    def sum_(self, tensor: Tensor) -> Tensor:
        """``tensor`` summed over ranks, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def largest(self, tensor: Tensor) -> Tensor:
        """The largest of ``tensor`` over ranks, element by element, in place."""
        if self.size > 1:
            dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return tensor

    def sum_gradients(
        self, parameters: Iterable[Tensor], in_float32: Mapping[Tensor, Tensor] = NO_GRADIENTS
    ) -> None:
        """Sum the gradients over ranks; an absent gradient counts as zero everywhere.

        The gradient of a parameter is ``in_float32`` if it is there, and is rounded to the
        parameter's type after the sum.
        """
        if self.size == 1:
            for p, gradient in in_float32.items():
                p.grad = gradient.to(p.dtype)
            return
        present = list(parameters)
        own = [in_float32.get(p, p.grad) for p in present]
        flat = torch.cat(
            [
                torch.zeros_like(p).flatten() if gradient is None else gradient.flatten()
                for p, gradient in zip(present, own, strict=True)
            ]
        )
        dist.all_reduce(flat)
        parts = flat.split([p.numel() for p in present])
        for p, part in zip(present, parts, strict=True):
            p.grad = part.view_as(p).to(p.dtype, copy=True)

    def reduce_scatter(self, whole_NRC: Tensor) -> PendingTensor:
        """This rank's part of ``whole_NRC`` summed over ranks, (P, R, C) with P = ⌈N / size⌉.

        Zeros stand behind the last matrix where size does not divide N. ``whole_NRC`` must not be
        written to before it has arrived.
        """
        if self.size == 1:
            return PendingTensor(whole_NRC)
        padded = self._padded(whole_NRC)
        part = padded.new_empty(len(padded) // self.size, *padded.shape[1:])
        return PendingTensor(part, _reduce_scatter_op(part, padded, async_op=True))

    def all_gather(self, part_PRC: Tensor, num_matrices: int) -> PendingTensor:
        """The parts of all ranks behind one another, the first ``num_matrices`` of them."""
        if self.size == 1:
            return PendingTensor(part_PRC)
        whole = part_PRC.new_empty(len(part_PRC) * self.size, *part_PRC.shape[1:])
        work = _all_gather_op(whole, part_PRC.contiguous(), async_op=True)
        return PendingTensor(whole[:num_matrices], work)

    def part(self, whole_NRC: Tensor) -> Tensor:
        """This rank's part of ``whole_NRC``, as :meth:`reduce_scatter` divides it; a copy."""
        parts = self._padded(whole_NRC).chunk(self.size)
        return parts[self.rank].clone()

    def rank_0_first(self, make: Callable[[], T]) -> T:
        """What ``make`` gives on each rank; the others begin when rank 0 has ended.

        So they find in the node's caches what rank 0 has compiled. All go on when the last has
        ended: where the others find nothing, that is as long again.
        """
        if not self.is_main:
            self._meet()
        made = make()
        if self.is_main:
            self._meet()
        self._meet()
        return made

    def _meet(self) -> None:
        self.sum_(torch.zeros((), device=self.device)).item()

    def broadcast_bytes(self, data: bytes) -> bytes:
        """Rank 0's ``data``, on every rank."""
        if self.size == 1:
            return data
        sent: list[bytes] = [data]
        dist.broadcast_object_list(sent, src=0, device=self.device)
        return sent[0]

    def on_rank_0(self, make: Callable[[], T]) -> T:
        """What ``make`` gives on rank 0, on every rank; the others do not call it.

        It may take longer than a collective may: meanwhile rank 0, which makes it on a thread, says
        every ``STATUS_INTERVAL_S`` seconds that it is not done.
        """
        return make() if self.size == 1 else self.begin_on_rank_0(make)()

    def begin_on_rank_0(self, make: Callable[[], T]) -> Callable[[], T]:
        """Begin what :meth:`on_rank_0` does; every rank calls what is returned, to wait for it.

        On a thread: it ends with its rank, and a process that has threads and a device cannot be
        copied. So others have Python meanwhile only where ``make`` leaves it to them.
        """
        thread = ThreadPoolExecutor(1)
        making = thread.submit(make) if self.is_main else None
        thread.shutdown(wait=False)

        def made() -> T:
            while self.size > 1 and not self._is_done(making):
                pass
            sent = [None if making is None else making.result()]
            if self.size > 1:
                dist.broadcast_object_list(sent, src=0, device=self.device)
            return cast("T", sent[0])

        return made

    def _is_done(self, making: "Future[T] | None") -> bool:
        """Whether rank 0's is, after some seconds of waiting for it; an error on rank 0 is raised.

        Who started the ranks notices that one of them is gone.
        """
        if making is not None:
            wait([making], timeout=STATUS_INTERVAL_S)
            if making.done():
                making.result()
        done = torch.tensor(making is not None and making.done(), device=self.device).int()
        dist.broadcast(done, src=0)
        return bool(done)

    def _padded(self, whole_NRC: Tensor) -> Tensor:
        missing = -len(whole_NRC) % self.size
        if missing == 0:
            return whole_NRC.contiguous()
        return torch.cat([whole_NRC, whole_NRC.new_zeros(missing, *whole_NRC.shape[1:])])

    def synchronize(self) -> None:
        """Wait until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def peak_memory_bytes(self) -> int:
        """The most that was used at once: of the device, if it has memory of its own."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

    def reset_peak_memory(self) -> None:
        """Begin anew to look for the peak, where that can be done."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

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
    """The world that the environment describes: torchrun's variables, or a single rank.

    The ranks find each other through the file that RENDEZVOUS_FILE names, else as torchrun says.
    The file must be the group's own: what a dead group has left in one misleads the next.
    """
    rank, size, local = (int(os.environ.get(k, d)) for k, d in _VARIABLES.items())
    torch.set_num_threads(threads)
    keep_freed_memory()
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "device cuda: torch sees no CUDA device here. Use --device cpu, or a torch built for "
            "this machine's GPUs (make setup TORCH=system keeps the one that is installed)."
        )
    where = torch.device(device, local) if device == "cuda" else torch.device("cpu")
    if where.type == "cuda":
        torch.cuda.set_device(where)
    if size == 1:
        yield World(rank=0, size=1, device=where)
        return
    backend = "nccl" if where.type == "cuda" else "gloo"
    dist.init_process_group(
        backend,
        store=_store(size),
        rank=rank,
        world_size=size,
        timeout=COLLECTIVE_TIMEOUT,
        device_id=where if where.type == "cuda" else None,
    )
    yield World(rank=rank, size=size, device=where)
    dist.destroy_process_group()  # not after an error: it may wait for a rank that is gone


def _store(size: int) -> dist.FileStore | None:
    """Where the ranks meet, if the environment names a file.

    torch gives a store that it makes itself the group's patience, and leaves one that it is given
    with its 300 s. Backends begin in it, when they are first used.
    """
    meeting = os.environ.get("RENDEZVOUS_FILE")
    if meeting is None:
        return None
    store = dist.FileStore(meeting, size)
    store.set_timeout(COLLECTIVE_TIMEOUT)
    return store


# Their names from torch 2.13 on, where the old ones warn.
_all_gather_op = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter_op = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
_VARIABLES = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
