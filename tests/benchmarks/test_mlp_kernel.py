"""The benchmark of the fused MLP counts what there is to count, and needs a GPU to measure it."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import (
    cell_overhead,
    loader,
    memory,
    mlp_kernel,
    scoring,
    step_time,
    warm_compile,
)
from benchmarks.contenders import CONTENDERS
from benchmarks.hardware import Peaks, peaks_of
from benchmarks.mlp_kernel import Shape, measure, table
from benchmarks.turns import spread
from trainer.activations import build_activation
from trainer.model.mlp import mlp

SMALL = Shape(tokens=24, width=8, hidden=16)


def test_the_flops_are_those_that_torch_counts():
    x, up, down = (
        torch.zeros(shape, device="meta", requires_grad=True)
        for shape in ((1, 24, 8), (16, 8), (8, 16))
    )
    activation = build_activation("relu2", {}, 16).to("meta")
    with FlopCounterMode(display=False) as counter:
        mlp(x, up, activation, down, None).sum().backward()
    assert counter.get_total_flops() == SMALL.flops


def test_fusion_saves_two_passes_over_the_hidden_channels():
    saved = SMALL.min_bytes(fused=False) - SMALL.min_bytes(fused=True)
    assert saved == 2 * 2 * SMALL.tokens * SMALL.hidden


def test_every_activation_is_measured_and_compared_within_its_round():
    """In the one form that needs no compiler, on the CPU; the times mean nothing."""
    times = measure(SMALL, torch.device("cpu"), ("eager",), rounds=3, repeats=1)
    assert times.keys() == {f"eager {label}" for label in CONTENDERS}
    reference = "eager leaky_relu2-s0.5"
    lines = table(times, SMALL, Peaks(1e12, 1e12), reference)
    (own,) = (line for line in lines if line.name == reference)
    assert own.ratio == (1.0, 1.0, 1.0)
    assert own.utilisation == pytest.approx(SMALL.flops / (own.ms / 1e3) / 1e12)


def test_the_spread_is_of_rounds_and_not_of_the_drift_between_them():
    drift = [1.0, 2.0, 4.0]
    times = {label: list(drift) for label in CONTENDERS}
    assert spread(times, "asqu") == (1.0, 1.0)
    times["relu2"] = [1.1 * t for t in drift]
    times["asqu"] = [1.5 * t for t in drift]
    assert spread(times, "asqu") == pytest.approx((1.1, 1.5))


def test_an_unknown_gpu_has_no_peak():
    assert peaks_of("NVIDIA H100 80GB HBM3") == Peaks(989e12, 3.35e12)
    assert peaks_of("NVIDIA H100 PCIe").flops_per_s < 989e12
    assert peaks_of("a drawing of a GPU") is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize(
    ("benchmark", "flags"),
    [
        (mlp_kernel, []),
        *((each, ["--device", "cuda"]) for each in (step_time, loader, memory, scoring)),
        *((each, ["--device", "cuda"]) for each in (warm_compile, cell_overhead)),
    ],
)
def test_without_a_gpu_it_says_so_and_ends_with_status_2(benchmark, flags, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [benchmark.__name__, *flags])
    with pytest.raises(SystemExit) as ended:
        benchmark.main()
    assert ended.value.code == 2
    assert "needs a CUDA GPU" in capsys.readouterr().out
