"""Muon: momentum whose update is made orthogonal, for banks of matrices shared among the ranks.

Shapes: N matrices of a bank, R rows, C columns, P matrices of a rank's part. Newton–Schulz quintic
of Jordan (2024). Sharding as in parameter-golf PR #549: every rank gets the summed gradient of its
part of each bank, moves the momentum of that part alone, and the updates are gathered. The banks
overlap: all gradients are on their way before the first is used, and an update is applied while the
next bank's is still being gathered.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainer.distributed.world import PendingTensor, World

QUINTIC = (3.4445, -4.7750, 2.0315)


@dataclass(frozen=True, slots=True)
class NewtonSchulz:
    """An approximation of U·Vᵀ for each matrix U·S·Vᵀ; every singular value ends near 1.

    Each step is X ← a·X + (b·A + c·A²)·X with A = X·Xᵀ, on the matrix scaled to Frobenius norm 1
    and laid with its short side in the rows; computed in the type that it is given in.
    """

    steps: int = 5
    coefficients: tuple[float, float, float] = QUINTIC

    def __call__(self, matrices_NRC: Tensor) -> Tensor:
        a, b, c = self.coefficients
        transposed = matrices_NRC.size(-2) > matrices_NRC.size(-1)
        x = matrices_NRC.mT if transposed else matrices_NRC
        x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
        for _ in range(self.steps):
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
        return x.mT if transposed else x


class Muon(torch.optim.Optimizer):
    """w ← w·(1 − lr·decay) − lr·√max(1, R/C)·orthogonalize(g + μ·buf), with buf ← μ·buf + g.

    Gradient and momentum are kept in ``momentum_dtype``; Newton–Schulz runs in ``update_dtype``.
    :meth:`reduce` has to come before :meth:`step`.
    """

    def __init__(
        self,
        banks: Iterable[Tensor],
        *,
        lr: float,
        weight_decay: float,
        newton_schulz: NewtonSchulz,
        momentum_dtype: torch.dtype,
        update_dtype: torch.dtype,
        world: World,
    ) -> None:
        defaults = {"lr": lr, "momentum": 0.0, "weight_decay": weight_decay}
        largest_first = sorted(banks, key=torch.Tensor.numel, reverse=True)
        super().__init__(largest_first, defaults)
        self._newton_schulz = newton_schulz
        self._momentum_dtype, self._update_dtype, self._world = momentum_dtype, update_dtype, world
        self._pending: list[tuple[Tensor, dict[str, Any], PendingTensor]] = []

    @torch.no_grad()
    def reduce(self) -> None:
        """Send every bank's gradient on its way to the ranks that own its parts."""
        self._pending = [
            (bank, group, self._world.reduce_scatter(bank.grad.to(self._momentum_dtype)))
            for group in self.param_groups
            for bank in group["params"]
            if bank.grad is not None
        ]

    @torch.no_grad()
    def local_gradients(self) -> list[Tensor]:
        """This rank's part of every reduced gradient, to measure and to scale in place."""
        return [pending.wait() for _, _, pending in self._pending]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        waiting: tuple[Tensor, dict[str, Any], PendingTensor] | None = None
        for bank, group, pending in self._pending:
            update_PRC = self._update(bank, pending.wait(), group)
            gathering = self._world.all_gather(update_PRC, len(bank))
            if waiting is not None:
                self._apply(*waiting)
            waiting = bank, group, gathering
        if waiting is not None:
            self._apply(*waiting)
        self._pending = []

    def momentum(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Every bank that has been updated, and its momentum (N, R, C), gathered from all ranks.

        In the order of the groups, which is that of every rank.
        """
        for bank in (bank for group in self.param_groups for bank in group["params"]):
            if bank in self.state:
                momentum_PRC = self.state[bank]["momentum"]
                yield bank, self._world.all_gather(momentum_PRC, len(bank)).wait()

    def set_momentum(self, bank: Tensor, momentum_NRC: Tensor) -> None:
        """Go on from this momentum, of which the rank takes its part."""
        whole_NRC = momentum_NRC.to(bank.device, self._momentum_dtype)
        self.state[bank]["momentum"] = self._world.part(whole_NRC)

    def _update(self, bank: Tensor, gradient_PRC: Tensor, group: dict[str, Any]) -> Tensor:
        state = self.state[bank]
        if not state:
            state["momentum"] = torch.zeros_like(gradient_PRC)
        momentum_PRC = state["momentum"].mul_(group["momentum"]).add_(gradient_PRC)
        nesterov_PRC = gradient_PRC.add(momentum_PRC, alpha=group["momentum"])
        return self._newton_schulz(nesterov_PRC.to(self._update_dtype))

    def _apply(self, bank: Tensor, group: dict[str, Any], pending: PendingTensor) -> None:
        rows, columns = bank.shape[-2:]
        scale = max(1.0, rows / columns) ** 0.5
        bank.mul_(1 - group["lr"] * group["weight_decay"])
        bank.add_(pending.wait().to(bank.dtype), alpha=-group["lr"] * scale)
