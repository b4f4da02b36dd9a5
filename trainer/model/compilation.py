"""Compile the forward pass so that a node's caches keep it, and count what they did not have.

The first cell of a graph on a node compiles it, and every cell after it, whatever its slope and
seed, should find it: a count above zero there says that it did not. Counted are graphs that torch
traced through autograd or compiled without being able to look them up, graphs that it looked up in
vain, and Triton kernels that were compiled in this process.
"""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from importlib.util import find_spec
from typing import Any, Final

import torch
import torch.compiler.config
from torch import Tensor

from trainer.source import trainer_source

Forward = Callable[..., Tensor]
"""A function of tokens (B, T) and more."""

NUM_GRAPHS: Final = 64
"""At most, of one function: beyond torch's own 8 a cell would fail, or be scored uncompiled."""

_kernels_compiled = 0


def compiled(
    forward: Forward, precision: Callable[[Tensor], AbstractContextManager[object]], **options: Any
) -> Forward:
    """``forward`` compiled for each shape that it meets; ``options`` are those of torch.compile.

    ``precision`` is entered outside: torch keeps no graph on disk that switches autocast. What it
    keeps is for this source of the trainer alone, for the backward of an operator of our own is in
    the graph that is kept and not in the key that it is found by. What breaks the graph is an
    error: of two halves torch 2.13 may keep views of the first that another process reads as
    shapes of 2⁶⁰.
    """
    torch.compiler.config.cache_key_tag = trainer_source().sha256
    dynamo = torch._dynamo.config
    dynamo.cache_size_limit = NUM_GRAPHS
    _keep_functions_of_autograd()
    whole = not dynamo.disable  # TORCH_COMPILE_DISABLE=1 gives no graph at all
    function = torch.compile(forward, dynamic=False, fullgraph=whole, **options)

    def within(tokens_BT: Tensor, *arguments: Any) -> Tensor:
        with precision(tokens_BT):
            result: Tensor = function(tokens_BT, *arguments)
        return result

    return within


def _keep_functions_of_autograd() -> None:
    """FlashAttention-3 is an autograd.Function, whose two halves are traced into the graph."""
    from torch._functorch import config

    if hasattr(config, "autograd_cache_allow_custom_autograd_functions"):  # not in torch 2.6
        config.autograd_cache_allow_custom_autograd_functions = True


def during_compilation(during: Callable[[], AbstractContextManager[object]]) -> None:
    """Be within ``during()`` whenever torch compiles: minutes, where a node has kept nothing."""
    from torch._dynamo.callback import on_compile_end, on_compile_start

    entered = ExitStack()

    def enter(*_: object) -> None:
        entered.enter_context(during())

    on_compile_start(enter)
    on_compile_end(lambda *_: entered.close())


class Compilation:
    """Counts from when it is made, on a process that computes on ``device``."""

    def __init__(self, device: torch.device) -> None:
        if device.type == "cuda" and find_spec("triton") is not None:
            _listen()
        self._traced, self._missed = _traced(), _missed()

    def misses(self) -> int | None:
        """Graphs and kernels compiled since; None where nothing was to be compiled."""
        return _missed() - self._missed if _traced() > self._traced else None


_MISSES = (
    ("inductor", "fxgraph_cache_miss"),
    ("inductor", "fxgraph_cache_bypass"),
    ("aot_autograd", "autograd_cache_bypass"),
)


def _traced() -> int:
    return _counted("stats", "unique_graphs")


def _missed() -> int:
    return _kernels_compiled + sum(_counted(group, name) for group, name in _MISSES)


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
