"""What Triton makes of the kernels for a GPU, without one: compiled, and read.

Speed is measured by `make bench-gpu`; that registers do not spill and tensor cores are used can be
read here.
"""

import re
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from trainer.model import compilation
from trainer.model.compilation import Compilation

pytestmark = pytest.mark.skipif(
    find_spec("triton") is None,
    reason="Triton is not installed: it is for Linux, and of `pip install .[dev]` there",
)

HOPPER, AMPERE = 90, 80
POINTERS = dict.fromkeys(("x", "up", "z", "h", "to_y", "down", "to_z"), "*bf16")
TYPES = POINTERS | {"beta": "*fp32", "sums": "*fp32"}
SIZES = ("tokens", "width", "hidden")
KERNELS = [("_up", {"KEEP": True}), ("_gate", {"LEARNED": False}), ("_gate", {"LEARNED": True})]


def compile_for(capability, kernel, flags, config):
    """The kernel as it is launched at sizes that 16 divides."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from trainer.model import mlp_triton

    function = getattr(mlp_triton, kernel)
    constants = {**flags, **config.kwargs, "EVEN": True, "beta_stride": 1}
    names = function.arg_names
    kinds = {name: TYPES.get(name, "i32" if name in SIZES else "constexpr") for name in names}
    by_16 = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if n not in constants}
    source = ASTSource(
        function, kinds, {(names.index(k),): value for k, value in constants.items()}, by_16
    )
    options = {"num_warps": config.num_warps, "num_stages": config.num_stages}
    return triton.compile(source, GPUTarget("cuda", capability, 32), options)


@pytest.fixture
def fresh_cache(tmp_path, monkeypatch):
    from triton import knobs

    monkeypatch.setattr(knobs.cache, "dir", str(tmp_path / "triton"))
    monkeypatch.setattr(knobs.compilation, "listener", None)


def stack_bytes(compiled, folder):
    """What a thread keeps outside of registers."""
    import triton

    (folder / "kernel.cubin").write_bytes(compiled.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    done = subprocess.run(
        [tool, "--dump-resource-usage", folder / "kernel.cubin"],
        capture_output=True,
        text=True,
        check=True,
    )
    (found,) = re.findall(r"STACK:(\d+)", done.stdout)
    return int(found)


def every(num_configs):
    from trainer.model import mlp_triton

    return mlp_triton.CONFIGS[:num_configs]


@pytest.mark.usefixtures("fresh_cache")
@pytest.mark.parametrize(
    ("capability", "product", "num_configs"),
    [
        (HOPPER, "wgmma.mma_async", 1),
        pytest.param(HOPPER, "wgmma.mma_async", None, marks=pytest.mark.slow),
        pytest.param(AMPERE, "mma.sync", None, marks=pytest.mark.slow),
    ],
)
def test_the_kernels_use_tensor_cores_and_spill_no_register(
    tmp_path, capability, product, num_configs
):
    for kernel, flags in KERNELS:
        for config in every(num_configs):
            compiled = compile_for(capability, kernel, flags, config)
            assert product in compiled.asm["ptx"], (kernel, flags, str(config))
            assert stack_bytes(compiled, tmp_path) == 0, (kernel, flags, str(config))


@pytest.mark.usefixtures("fresh_cache")
def test_a_kernel_that_the_cache_has_is_no_miss(monkeypatch):
    monkeypatch.setattr(compilation, "_traced", iter(range(10)).__next__)
    first = Compilation(torch.device("cuda"))
    (config,) = every(1)
    compile_for(HOPPER, *KERNELS[0], config)
    assert first.misses() == 1
    second = Compilation(torch.device("cuda"))
    compile_for(HOPPER, *KERNELS[0], config)
    assert second.misses() == 0
