"""What did this process have to compile that the node's caches did not have?

The first cell of a graph on a node compiles it, and every cell after it, whatever its slope and
seed, should find it: a count above zero there says that it did not. Counted are graphs that torch's
inductor compiled (or could not look up), and Triton kernels that were compiled in this process.
"""

import sys
from importlib.util import find_spec
from typing import Any

import torch

_kernels_compiled = 0


class Compilation:
    """Counts from when it is made, on a process that computes on ``device``."""

    def __init__(self, device: torch.device) -> None:
        if device.type == "cuda" and find_spec("triton") is not None:
            _listen()
        self._traced, self._missed = _traced(), _missed()

    def misses(self) -> int | None:
        """Graphs and kernels compiled since; None where nothing was to be compiled."""
        return _missed() - self._missed if _traced() > self._traced else None


def _traced() -> int:
    return _counted("stats", "unique_graphs")


def _missed() -> int:
    graphs = ("fxgraph_cache_miss", "fxgraph_cache_bypass")
    return _kernels_compiled + sum(_counted("inductor", name) for name in graphs)


def _counted(group: str, name: str) -> int:
    """0 where the compiler has not been imported: that takes a second, which a laptop need not."""
    compiler = sys.modules.get("torch._dynamo.utils")
    return 0 if compiler is None else int(compiler.counters[group][name])


def _listen() -> None:
    """Be told of every kernel that Triton compiles here, beside whoever listens already."""
    from triton import knobs

    before = knobs.compilation.listener
    if getattr(before, "counts_misses", False):
        return

    def heard(*, cache_hit: bool, **facts: Any) -> None:
        global _kernels_compiled
        _kernels_compiled += not cache_hit
        if before is not None:
            before(cache_hit=cache_hit, **facts)

    heard.counts_misses = True  # type: ignore[attr-defined]
    knobs.compilation.listener = heard
