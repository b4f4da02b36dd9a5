"""A count of what the caches of a node did not have; None where nothing was compiled."""

import subprocess
import sys

import pytest
import torch

from tests.support.commands import ROOT
from trainer.compilation import Compilation

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


def test_counting_imports_no_compiler():
    code = (
        "import sys, torch; from trainer.compilation import Compilation;"
        "print(Compilation(torch.device('cpu')).misses(), 'torch._dynamo' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["None", "False"]
