"""What does the fused MLP gain, and does any activation pay for another?

One layer's MLP, forward and backward, at the shapes of a recipe: eager, compiled and fused, for
slopes and for ASQU, in turn within every round. Beside each time stand the time that its arithmetic
takes at the GPU's peak, the time that its bytes take, and the model FLOPs utilisation. It needs a
CUDA GPU; without one it says so and ends with status 2.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.contenders import CONTENDERS, REFERENCE
from benchmarks.hardware import Peaks, need_gpu, peaks_of, versions
from benchmarks.measured import keep
from benchmarks.turns import Quartiles, Times, in_turn, quartiles, spread
from trainer.activations import build_activation
from trainer.config import load_recipe
from trainer.model.compilation import compiled
from trainer.model.mlp import mlp
from trainer.model.mlp_backend import mlp_of

FORMS = ("eager", "compiled", "fused")
PUBLISHED = f"compiled {REFERENCE}"
"""What #549 computes as published, compiled and not fused: what every ratio is relative to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    tokens: int
    width: int
    hidden: int

    @property
    def flops(self) -> int:
        """Of the six products of a forward and backward pass, 2 for each multiplication and sum."""
        return 6 * 2 * self.tokens * self.width * self.hidden

    def min_bytes(self, *, fused: bool) -> int:
        """What has to cross device memory in bfloat16 if every kernel reads and writes once.

        Of the hidden channels: without fusion z is written, read and h written by the activation,
        and h read by the product with D; backward ∂h is written, read with z and ∂z written by the
        derivative, ∂z read twice and h once by the products. Fused, what has z or ∂h in registers
        does the work of the activation: z and h are written and h read; backward z is read, ∂z and
        h written, and read three times by the products.
        """
        outside = 6 * self.tokens * self.width  # x, y; ∂y, ∂x, and x and ∂y for the matrices
        matrices = 6 * self.width * self.hidden  # each read twice, its gradient written
        within = (3 + 6) if fused else (4 + 7)
        return 2 * (outside + matrices + within * self.tokens * self.hidden)


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the table; times in ms, ratios over the published form in the same round."""

    name: str
    ms: float
    ratio: Quartiles
    bound_ms: tuple[float, float] | None
    utilisation: float | None


def measure(
    shape: Shape, device: torch.device, forms: Sequence[str], *, rounds: int, repeats: int
) -> Times:
    """Seconds of one pass, by form and activation; element i of each list is of round i."""
    dtype = torch.bfloat16
    draw = torch.Generator(device).manual_seed(0)

    def normal(rows: int, columns: int, scale: float) -> Tensor:
        return scale * torch.randn(rows, columns, generator=draw, device=device)

    x, to_y = (normal(shape.tokens, shape.width, 1.0).to(dtype)[None] for _ in range(2))
    up = normal(shape.hidden, shape.width, shape.width**-0.5).requires_grad_()
    down = normal(shape.width, shape.hidden, shape.hidden**-0.5).requires_grad_()
    passes = {
        f"{form} {label}": _passes(form, activation, (x, up, down, to_y), repeats)
        for form in forms
        for label, activation in _modules(shape, device).items()
    }
    times = in_turn(passes, rounds=rounds, warmup=2, clock=time.perf_counter)
    return {name: [taken_s / repeats for taken_s in of_round] for name, of_round in times.items()}


def table(
    times: Mapping[str, Sequence[float]], shape: Shape, peaks: Peaks | None, reference: str
) -> list[Line]:
    """Medians, and quartiles of the ratios within each round."""
    lines = []
    for name, values in times.items():
        relative = [a / b for a, b in zip(values, times[reference], strict=True)]
        median_s = statistics.median(values)
        bound_ms = utilisation = None
        if peaks is not None:
            moved = shape.min_bytes(fused=name.startswith("fused"))
            bound_ms = 1e3 * shape.flops / peaks.flops_per_s, 1e3 * moved / peaks.bytes_per_s
            utilisation = shape.flops / median_s / peaks.flops_per_s
        lines.append(Line(name, 1e3 * median_s, quartiles(relative), bound_ms, utilisation))
    return lines


def _modules(shape: Shape, device: torch.device) -> dict[str, nn.Module]:
    return {
        label: build_activation(spec.name, spec.params, shape.hidden).to(device)
        for label, spec in CONTENDERS.items()
    }


def _passes(
    form: str, activation: nn.Module, tensors: tuple[Tensor, Tensor, Tensor, Tensor], repeats: int
) -> Callable[[], None]:
    x, up, down, to_y = tensors
    compute = mlp_of("triton_fused") if form == "fused" else mlp
    x = x.clone().requires_grad_()

    def precision(x: Tensor) -> torch.autocast:
        return torch.autocast(x.device.type, dtype=x.dtype)

    def forward(x: Tensor) -> Tensor:
        return compute(x, up, activation, down, None)

    def eager(x: Tensor) -> Tensor:
        with precision(x):
            return forward(x)

    step = eager if form == "eager" else compiled(forward, precision)
    wanted = [x, up, down, *activation.parameters()]

    def run() -> None:
        for _ in range(repeats):
            torch.autograd.grad(step(x), wanted, to_y)
        _synchronize(x.device)

    return run


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _print(lines: Sequence[Line]) -> None:
    print(f"{'':30} {'ms':>7} {'ratio':>6}  quartiles      arithmetic  bytes     MFU")
    for line in lines:
        low, middle, high = line.ratio
        beside = ""
        if line.bound_ms is not None and line.utilisation is not None:
            arithmetic, moved = line.bound_ms
            beside = f"  {arithmetic:7.3f} ms {moved:6.3f} ms  {line.utilisation:.2f}"
        print(f"{line.name:30} {line.ms:7.3f} {middle:6.3f}  {low:.3f}–{high:.3f}{beside}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="pr549")
    parser.add_argument("--sequences", type=int, default=48, help="of a micro-step")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=10, help="passes in one measurement")
    arguments = parser.parse_args()
    need_gpu("mlp_kernel")
    recipe = load_recipe(arguments.recipe)
    shape = Shape(
        tokens=arguments.sequences * recipe.train.seq_len,
        width=recipe.model.width,
        hidden=recipe.model.mlp_hidden,
    )
    device = torch.device("cuda", torch.cuda.current_device())
    times = measure(shape, device, FORMS, rounds=arguments.rounds, repeats=arguments.repeats)
    lines = table(times, shape, peaks_of(torch.cuda.get_device_name()), PUBLISHED)
    _print(lines)
    found: dict[str, Any] = {}
    for form in FORMS:
        of_form = {label: times[f"{form} {label}"] for label in CONTENDERS}
        slopes, asqu = spread(of_form, "asqu")
        found[form] = {"slowest_over_fastest_fixed": slopes, "asqu_over_fixed": asqu}
        print(f"{form}: slowest over fastest slope {slopes:.3f}, ASQU {asqu:.3f}")
    keep(
        f"mlp_kernel-{arguments.recipe}",
        {
            **versions(),
            "shape": {"tokens": shape.tokens, "width": shape.width, "hidden": shape.hidden},
            "reference": PUBLISHED,
            "lines": [{field: getattr(line, field) for field in Line.__slots__} for line in lines],
            "spread": found,
            "seconds": times,
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
