"""What the compiler is handed, looked at before it is traced as on a GPU."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, fx
from torch._dynamo.backends.debugging import aot_eager
from torch._functorch._aot_autograd.autograd_cache import check_cacheable


class Kept:
    """A backend of torch.compile that counts graphs, and refuses one that torch would not keep on
    disk: every cell would trace it anew."""

    def __init__(self) -> None:
        self.num_graphs = 0

    def __call__(self, graph: fx.GraphModule, inputs: Sequence[Tensor]) -> Any:
        check_cacheable(graph)
        self.num_graphs += 1
        return aot_eager(graph, inputs)
