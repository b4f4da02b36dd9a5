"""The parameters that test-time training adapts, those that it freezes, and its optimizers.

Shapes: L layers, H heads, D width; N matrices of R rows and C columns.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer.config import TTT
from trainer.model import GPT
from trainer.optim.muon import NewtonSchulz

STACKED_VECTORS = ("_LH", "_LD")  # endings of names: one vector for each layer
STACKED_BY_LAYER = (*STACKED_VECTORS, "_L2D")


@dataclass(frozen=True, slots=True)
class AdaptedParameter:
    """A parameter that is adapted, but for the slices ``frozen`` of its first dimension."""

    name: str
    parameter: nn.Parameter
    frozen: tuple[int, ...]

    @property
    def is_matrix(self) -> bool:
        """Whether each layer's tensor of this name (or the one that all share) is a matrix."""
        return self.parameter.ndim >= 2 and not self.name.endswith(STACKED_VECTORS)

    def drop_frozen_gradient(self) -> None:
        """What is frozen has a gradient of zero: no part in the norm, and no step."""
        if self.frozen and self.parameter.grad is not None:
            self.parameter.grad[list(self.frozen)] = 0.0


def adapted_parameters(model: GPT, ttt: TTT) -> list[AdaptedParameter]:
    """The parameters of ``model`` that are adapted; those frozen as a whole are left out."""
    num_layers = model.config.num_layers
    frozen_activations = tuple(f"activations.{layer}." for layer in range(ttt.freeze_layers))
    return [
        AdaptedParameter(name, parameter, _frozen(name, num_layers, ttt))
        for name, parameter in model.named_parameters()
        if not name.startswith(frozen_activations)
    ]


def _frozen(name: str, num_layers: int, ttt: TTT) -> tuple[int, ...]:
    first = range(ttt.freeze_layers)
    if name.endswith(STACKED_BY_LAYER):
        return tuple(first)
    if not ttt.freeze_matrices:
        return ()
    if name in ("up_bank", "down_bank"):
        return tuple(first)
    if name in ("qo_bank", "kv_bank"):  # of every layer q and k, then of every layer o and v
        return (*first, *(num_layers + layer for layer in first))
    return ()


def optimizer_for(
    moved: list[AdaptedParameter],
    ttt: TTT,
    *,
    newton_schulz: NewtonSchulz,
    update_dtype: torch.dtype,
) -> torch.optim.Optimizer:
    """SGD, whose momentum persists, or Muon without any."""
    if ttt.optimizer == "sgd":
        return torch.optim.SGD([m.parameter for m in moved], lr=ttt.lr, momentum=ttt.momentum)
    return MuonWithoutMomentum(
        moved, lr=ttt.lr, newton_schulz=newton_schulz, update_dtype=update_dtype
    )


class MuonWithoutMomentum(torch.optim.Optimizer):
    """w ← w − lr·orthogonalize(g) where w is a matrix, w ← w − lr·g where it is a vector.

    As parameter-golf PR #1176 adapts: every matrix, embeddings and projections too, without
    momentum, decay, or a factor for its shape. Newton–Schulz runs in ``update_dtype``.
    """

    def __init__(
        self,
        moved: list[AdaptedParameter],
        *,
        lr: float,
        newton_schulz: NewtonSchulz,
        update_dtype: torch.dtype,
    ) -> None:
        groups = [
            {
                "params": [m.parameter for m in moved if m.is_matrix is are_matrices],
                "are_matrices": are_matrices,
            }
            for are_matrices in (True, False)
        ]
        super().__init__(groups, {"lr": lr})
        self._newton_schulz, self._dtype = newton_schulz, update_dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    gradient = parameter.grad.float()
                    update = self._orthogonal(gradient) if group["are_matrices"] else gradient
                    parameter.add_(update.to(parameter.dtype), alpha=-group["lr"])

    def _orthogonal(self, gradient: Tensor) -> Tensor:
        """Of every matrix in the last two dimensions."""
        matrices_NRC = gradient.reshape(-1, *gradient.shape[-2:]).to(self._dtype)
        return self._newton_schulz(matrices_NRC).reshape(gradient.shape)
