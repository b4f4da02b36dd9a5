"""Muon: momentum whose update is made orthogonal, for banks of matrices.

Shapes: N matrices of a bank, R rows, C columns. Newton–Schulz quintic of Jordan (2024); computed in
bfloat16 on CUDA as published, in float32 on the CPU so that tests can be exact.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalize(matrices_NRC: Tensor, steps: int) -> Tensor:
    """An approximation of U·Vᵀ for each matrix U·S·Vᵀ; every singular value ends near 1.

    Each step is X ← a·X + (b·A + c·A²)·X with A = X·Xᵀ, on the matrix scaled to Frobenius norm 1
    and laid with its short side in the rows.
    """
    a, b, c = QUINTIC
    transposed = matrices_NRC.size(-2) > matrices_NRC.size(-1)
    x = matrices_NRC.mT if transposed else matrices_NRC
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if transposed else x


class Muon(torch.optim.Optimizer):
    """w ← w·(1 − lr·decay) − lr·√max(1, R/C)·orthogonalize(g + μ·buf), with buf ← μ·buf + g."""

    def __init__(
        self, banks: Iterable[Tensor], *, lr: float, weight_decay: float, newton_schulz_steps: int
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": 0.0,
            "weight_decay": weight_decay,
            "newton_schulz_steps": newton_schulz_steps,
        }
        super().__init__(list(banks), defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for bank in group["params"]:
                if bank.grad is not None:
                    self._update(bank, bank.grad, group)

    def _update(self, bank: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[bank]
        if not state:
            state["momentum"] = torch.zeros_like(gradient)
        momentum = state["momentum"].mul_(group["momentum"]).add_(gradient)
        nesterov = gradient.add(momentum, alpha=group["momentum"])
        working = nesterov.bfloat16() if bank.is_cuda else nesterov
        update = orthogonalize(working, group["newton_schulz_steps"])
        rows, columns = bank.shape[-2:]
        scale = max(1.0, rows / columns) ** 0.5
        bank.mul_(1 - group["lr"] * group["weight_decay"])
        bank.add_(update.to(bank.dtype), alpha=-group["lr"] * scale)
