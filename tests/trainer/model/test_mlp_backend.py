"""Which MLP runs where, and how many graphs serve every slope and seed."""

import os
import shutil
import subprocess
import sys
from functools import partial

import pytest
import torch
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd

from tests.support.commands import ROOT
from tests.support.tiny import busy_model, default_params, random_tokens
from trainer.activations import ACTIVATIONS, build_activation
from trainer.cell import placed
from trainer.distributed.world import World
from trainer.model import compilation
from trainer.model import mlp_backend as seam
from trainer.model.mlp import mlp
from trainer.model.mlp_backend import mlp_backend, mlp_of

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
FAMILY = ("relu2", "leaky_relu2", "leaky_relu2_layers", "asqu", "prelu2", "rrelu2")
T = 16
SHAPE = (8, 16)
SMALL = {"model.bigram": None, "model.value_embedding": None, "model.xsa_last_layers": 0}


@pytest.fixture
def triton_is_here(monkeypatch):
    monkeypatch.setattr(seam, "_triton_is_here", lambda: True)
    monkeypatch.setattr(seam, "_is_correct", lambda device, width, hidden: True)


def default(name):
    return build_activation(name, default_params(name), 8)


# -- the choice


@pytest.mark.usefixtures("triton_is_here")
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_kernel_serves_the_squared_family_in_bfloat16_on_cuda_and_nobody_else(name):
    activation = default(name)
    expected = "triton_fused" if name in FAMILY else "torch_compiled"
    assert mlp_backend(CUDA, torch.bfloat16, activation, SHAPE) == expected
    assert mlp_backend(CUDA, torch.float32, activation, SHAPE) == "torch_compiled"
    assert mlp_backend(CPU, torch.bfloat16, activation, SHAPE) == "torch"
    assert mlp_of("torch") is mlp_of("torch_compiled") is mlp


@pytest.mark.usefixtures("triton_is_here")
@pytest.mark.parametrize("lacking", ["_triton_is_here", "_is_correct"])
def test_without_triton_or_where_the_kernel_is_wrong_torch_computes_it(monkeypatch, lacking):
    monkeypatch.setattr(seam, lacking, lambda *_: False)
    assert mlp_backend(CUDA, torch.bfloat16, default("relu2"), SHAPE) == "torch_compiled"


def test_a_model_says_what_computes_its_mlp():
    model = busy_model(SMALL)
    assert model.on_device(CPU).mlp_backend == "torch"


class Another(World):
    """A rank of several, one of which is not this one and has no kernel that is right."""

    def largest(self, tensor):
        return torch.ones_like(tensor)


def test_where_one_rank_lacks_the_kernel_no_rank_uses_it(monkeypatch):
    monkeypatch.setattr("trainer.model.gpt.mlp_backend", lambda *_: "triton_fused")
    monkeypatch.setattr("trainer.model.gpt.mlp_of", lambda _: mlp)
    model = busy_model(SMALL)
    assert placed(model, World(rank=0, size=1, device=CPU)).mlp_backend == "triton_fused"
    assert placed(model, Another(rank=0, size=1, device=CPU)).mlp_backend == "torch_compiled"


# -- graphs


class Compiled:
    """What would be compiled: forward and backward of each graph that was traced, as code and
    shapes of inputs, which is what inductor's cache goes by."""

    def __init__(self) -> None:
        self.forward, self.backward = [], []
        self._backend = aot_autograd(
            fw_compiler=partial(_record, self.forward), bw_compiler=partial(_record, self.backward)
        )

    def step(self, activation, params, *, seed=7, equal_cost=False):
        model = busy_model(SMALL, activation=activation, params=params, seed=seed)
        if equal_cost:
            model.cost_as_learned()
        tokens = random_tokens(2, T + 1, seed=seed)
        nll = compilation.compiled(model.nll, model.precision, backend=self._backend)
        nll(tokens[:, :-1], tokens[:, 1:]).mean().backward()


def _record(where, graph, inputs):
    where.append((graph.code, [(tuple(x.shape), x.dtype) for x in inputs]))
    return make_boxed_func(graph.forward)


FIXED = [
    ("relu2", {}),
    *(("leaky_relu2", {"slope": s}) for s in (0.0, 0.3, 0.9)),
    ("leaky_relu2_layers", {"slopes": [0.3, 0.5]}),
]


@pytest.fixture
def compiled():
    torch._dynamo.reset()
    yield Compiled()
    torch._dynamo.reset()


quiet = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")


@quiet
@pytest.mark.slow
def test_two_graphs_serve_every_slope_and_seed(compiled):
    """One where β is fixed, one where each channel learns it; at equal cost the second alone."""
    for seed, (activation, params) in enumerate(FIXED):
        compiled.step(activation, params, seed=seed)
    assert len(compiled.forward) == len(compiled.backward) == 1
    compiled.step("asqu", {})
    compiled.step("asqu", {"init": 0.0}, seed=3)
    assert len(compiled.forward) == len(compiled.backward) == 2
    torch._dynamo.reset()  # as in another process
    compiled.step(*FIXED[2], seed=5)
    for seed, (activation, params) in enumerate(FIXED):
        compiled.step(activation, params, seed=seed, equal_cost=True)
    assert len(compiled.forward) == len(compiled.backward) == 4
    for graphs in (compiled.forward, compiled.backward):
        fixed, learned, fixed_again, at_equal_cost = graphs
        assert fixed_again == fixed
        assert at_equal_cost == learned != fixed
    assert ((1,), torch.float32) in compiled.forward[0][1]  # β is among the inputs


A_PROCESS = """
import contextlib, sys, torch
from trainer.activations import build_activation
from trainer.model.compilation import Compilation, compiled
from trainer.model.mlp import mlp

slope = float(sys.argv[1])
compilation = Compilation(torch.device("cpu"))
activation = build_activation("leaky_relu2", {"slope": slope}, 16)
shapes = (2, 8), (16, 8), (8, 16)
x, up, down = (slope * torch.ones(shape, requires_grad=True) for shape in shapes)
nothing = contextlib.nullcontext()
compute = compiled(lambda x, up, down: mlp(x, up, activation, down, None), lambda _: nothing)
compute(x, up, down).sum().backward()
print(compilation.misses())
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a compiler of C++")
def test_the_second_process_of_a_node_compiles_nothing_whatever_its_slope(tmp_path):
    """With torch's own compiler and its caches on disk, on the CPU: neither traced through autograd
    again nor compiled."""
    misses = []
    for slope in ("0.1", "0.9"):
        done = subprocess.run(
            [sys.executable, "-c", A_PROCESS, slope],
            cwd=ROOT,
            env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        misses.append(int(done.stdout))
    assert misses[0] > 0
    assert misses[1] == 0
