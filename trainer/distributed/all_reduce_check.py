"""Check the all-reduce between the ranks of a node, and measure its bandwidth.

``python -m trainer.distributed.all_reduce_check --rank 0 --ranks 8 --rendezvous FILE --device
cuda``, once for each rank, before a node's first cell. Rank 0 prints what was found as JSON; exit
status 1 for a wrong sum.
"""

import argparse
import json
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

NUM_ELEMENTS = {"cuda": 2**26, "cpu": 2**18}  # 256 MiB: long enough that bandwidth counts
NUM_WARM, NUM_TIMED = 3, 10
TIMEOUT = timedelta(seconds=120)


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    rank, ranks = arguments.rank, arguments.ranks
    on_gpu = arguments.device == "cuda"
    device = torch.device("cuda", rank) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    backend = "nccl" if on_gpu else "gloo"
    place = f"file://{arguments.rendezvous.resolve()}"
    dist.init_process_group(backend, place, timeout=TIMEOUT, rank=rank, world_size=ranks)
    try:
        found = torch.full((NUM_ELEMENTS[device.type],), rank + 1.0, device=device)
        dist.all_reduce(found)
        expected = ranks * (ranks + 1) / 2  # exact in float32
        if not bool((found == expected).all()):
            print(f"rank {rank}: the sum of 1 to {ranks} is not {expected:g}", file=sys.stderr)
            return 1
        seconds = _time(found, device)
    finally:
        dist.destroy_process_group()
    if rank == 0:
        print(json.dumps(_finding(backend, ranks, found.nbytes, seconds)))
    return 0


def _time(tensor: torch.Tensor, device: torch.device) -> float:
    """Mean seconds of one all-reduce of ``tensor``, whose content is lost."""
    tensor.zero_()  # sums of it stay finite
    for _ in range(NUM_WARM):
        dist.all_reduce(tensor)
    _synchronize(device)
    start_s = time.perf_counter()
    for _ in range(NUM_TIMED):
        dist.all_reduce(tensor)
    _synchronize(device)
    return (time.perf_counter() - start_s) / NUM_TIMED


def _finding(backend: str, ranks: int, num_bytes: int, seconds: float) -> dict[str, object]:
    """``bus_gb_s``: what each rank sends and receives, 2·(n − 1)/n of the tensor, as nccl-tests."""
    version = ".".join(map(str, torch.cuda.nccl.version())) if backend == "nccl" else None
    bus_gb_s = 2 * (ranks - 1) / ranks * num_bytes / seconds / 1e9
    return {"backend": backend, "version": version, "ranks": ranks, "bus_gb_s": bus_gb_s}


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer.distributed.all_reduce_check", description=__doc__
    )
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--ranks", type=int, required=True)
    parser.add_argument("--rendezvous", type=Path, required=True, help="a file that is not there")
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    return parser


if __name__ == "__main__":
    sys.exit(main())
