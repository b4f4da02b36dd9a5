"""What did this process have to compile that the node's caches did not have?

The first cell of a graph on a node compiles it, and every cell after it, whatever its slope and
seed, should find it: a count above zero there says that it did not. Counted are graphs that torch's
inductor compiled (or could not look up), and Triton kernels that were compiled by this process.
"""

from importlib.util import find_spec
from typing import Any

from torch._dynamo.utils import counters

_kernels_compiled = 0


class Compilation:
    """Counts from when it is made."""

    def __init__(self) -> None:
        _listen()
        self._graphs, self._misses = _traced(), _missed()

    def misses(self) -> int | None:
        """Graphs and kernels compiled since; None where nothing was to be compiled."""
        return _missed() - self._misses if _traced() > self._graphs else None


def _traced() -> int:
    return int(counters["stats"]["unique_graphs"])


def _missed() -> int:
    inductor = counters["inductor"]
    graphs = inductor["fxgraph_cache_miss"] + inductor["fxgraph_cache_bypass"]
    return int(graphs) + _kernels_compiled


def _listen() -> None:
    """Be told of every kernel that Triton compiles here, beside whoever listens already."""
    if find_spec("triton") is None:
        return
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
