"""A count of what the caches of a node did not have; None where nothing was compiled."""

import json
import runpy
import sys
from contextlib import nullcontext

import pytest
import torch
from torch._dynamo.callback import callback_handler
from torch._dynamo.exc import Unsupported

from tests.support.graphs import Kept
from trainer.contract import PROGRESS_FILE
from trainer.model import compilation
from trainer.model.compilation import Compilation, compiled, during_compilation
from trainer.progress import Progress

CPU = torch.device("cpu")


@pytest.fixture
def counters():
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    yield counters
    torch._dynamo.reset()


def test_where_nothing_is_compiled_there_is_no_count(counters):
    counters["inductor"]["fxgraph_cache_miss"] += 1  # of another cell of this process
    assert Compilation(CPU).misses() is None


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_only_what_no_cache_had_is_counted(counters):
    compilation = Compilation(CPU)
    torch.compile(lambda x: x + 1, backend="eager")(torch.ones(2))
    assert compilation.misses() == 0
    counters["inductor"]["fxgraph_cache_hit"] += 5
    counters["inductor"]["fxgraph_cache_miss"] += 2
    counters["inductor"]["fxgraph_cache_bypass"] += 1
    assert compilation.misses() == 3


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 2 * gradient + 0 * x


def in_one_graph(function, backend):
    return compiled(function, lambda _: nullcontext(), backend=backend)


@pytest.mark.usefixtures("counters")
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_a_graph_with_a_function_of_autograd_is_kept():
    """FlashAttention-3 is one."""
    kept, x = Kept(), torch.ones(2, requires_grad=True)
    in_one_graph(Doubled.apply, kept)(x).sum().backward()
    assert kept.num_graphs == 1
    assert x.grad.tolist() == [2.0, 2.0]


@pytest.mark.usefixtures("counters")
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_a_function_in_two_graphs_is_refused_and_one_of_twelve_shapes_is_compiled_for_each():
    def broken(x):
        y = 2 * x
        torch._dynamo.graph_break()
        return y + 1

    kept = Kept()
    with pytest.raises(Unsupported):
        in_one_graph(broken, kept)(torch.ones(2))
    doubled = in_one_graph(lambda x: 2 * x, kept)
    for size in range(2, 14):
        doubled(torch.ones(size))
    assert kept.num_graphs == 12


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_compiling_is_a_phase_and_a_call_of_what_is_compiled_is_not(counters, tmp_path):
    progress, said = Progress(tmp_path, enabled=True), []
    progress.report("score")

    def double(graph, inputs):
        said.append(json.loads((tmp_path / PROGRESS_FILE).read_text())["phase"])
        return graph.forward

    during_compilation(lambda: progress.during("compile"))
    try:
        doubled = in_one_graph(lambda x: 2 * x, double)
        for _ in range(2):
            doubled(torch.ones(2))
            said.append(json.loads((tmp_path / PROGRESS_FILE).read_text())["phase"])
    finally:
        callback_handler.clear()
    assert said == ["compile", "score", "score"]


def test_torchs_own_switch_leaves_a_function_uncompiled():
    kept = Kept()
    with torch._dynamo.config.patch(disable=True):  # TORCH_COMPILE_DISABLE=1
        assert in_one_graph(lambda x: 2 * x, kept)(torch.ones(2)).tolist() == [2.0, 2.0]
    assert kept.num_graphs == 0


def test_counting_imports_no_compiler(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("torch._dynamo")]:
        monkeypatch.setitem(sys.modules, name, None)  # an import of it is an error
    anew = runpy.run_path(compilation.__file__)["Compilation"]
    assert anew(CPU).misses() is None
