"""The optimizers of a model: Muon for the matrices and AdamW for the rest, under one schedule."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainer.config import Optim
from trainer.distributed.world import NO_GRADIENTS, World
from trainer.model import GPT
from trainer.optim.muon import Muon, NewtonSchulz
from trainer.optim.parameter_kinds import Kind, parameters_by_kind
from trainer.optim.schedule import muon_momentum


class Optimizers:
    """Muon for the matrices and AdamW for the rest, stepped together under one schedule.

    A learned activation has a group of its own: its rate, and no weight decay.
    """

    def __init__(self, model: GPT, config: Optim, world: World) -> None:
        self._config, self._world = config, world
        self._names: dict[Tensor, str] = {p: name for name, p in model.named_parameters()}
        groups = parameters_by_kind(model)
        compute = model.compute_dtype
        self._muon = Muon(
            groups["matrices"],
            lr=config.matrix_lr,
            weight_decay=config.weight_decay,
            newton_schulz=newton_schulz_of(config),
            momentum_dtype=compute if config.muon_momentum_dtype == "compute" else torch.float32,
            update_dtype=compute,
            world=world,
        )
        self._replicated = [p for kind, ps in groups.items() if kind != "matrices" for p in ps]
        self._adam = torch.optim.AdamW(
            _adam_groups(groups, config),
            betas=(config.adam_beta1, config.adam_beta2),
            eps=config.adam_eps,
            fused=True,
        )
        self._all: Sequence[torch.optim.Optimizer] = (self._adam, self._muon)
        for group in self._param_groups():
            group["base_lr"] = group["lr"]

    def step(
        self, step: int, lr_multiplier: float, in_float32: Mapping[Tensor, Tensor] = NO_GRADIENTS
    ) -> None:
        """Sum the ranks' gradients, apply them as update ``step`` (from 0), drop them.

        ``in_float32`` holds those that are rounded to the type of their weights after the sum.
        """
        config = self._config
        for group in self._param_groups():
            group["lr"] = group["base_lr"] * lr_multiplier
        for group in self._muon.param_groups:
            group["momentum"] = muon_momentum(
                step,
                config.muon_momentum_start,
                config.muon_momentum,
                config.muon_momentum_warmup_steps,
            )
        self._muon.reduce()
        self._world.sum_gradients(self._replicated, in_float32)
        if config.grad_clip is not None and config.clip == "global":
            self._clip_to(config.grad_clip)
        self._adam.step()
        self._muon.step()
        for optimizer in self._all:
            optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def state(self) -> dict[str, Tensor]:
        """What the next update depends on, whole: momentum that the ranks share is gathered.

        Every rank has to ask. Rates are not in it, for they are those of a step.
        """
        moments = {
            f"{self._names[p]}.{key}": value
            for p, of_p in self._adam.state.items()
            for key, value in of_p.items()
        }
        gathered = self._muon.momentum()
        return moments | {f"{self._names[p]}.momentum": value for p, value in gathered}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on as the optimizers did that had this ``state``, with any number of ranks."""
        parameters = {name: p for p, name in self._names.items()}
        for path, value in state.items():
            name, _, key = path.rpartition(".")
            p = parameters[name]
            if key == "momentum":
                self._muon.set_momentum(p, value)
            else:
                self._adam.state[p][key] = value.to(p.device, copy=True)

    @torch.no_grad()
    def _clip_to(self, max_norm: float) -> None:
        """Scale the summed gradient to a norm of at most ``max_norm``, its parts on their ranks."""
        parts = self._muon.local_gradients()
        whole = [p.grad for p in self._replicated if p.grad is not None]
        square = self._world.sum_(_square_norm(parts)) + _square_norm(whole)
        factor = (max_norm / (square.sqrt() + 1e-6)).clamp(max=1.0)
        for gradients in (parts, whole):
            torch._foreach_mul_(gradients, factor)

    def _param_groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self._all for group in optimizer.param_groups]


def newton_schulz_of(config: Optim) -> NewtonSchulz:
    """What the recipe orthogonalizes with, in training and at test time."""
    return NewtonSchulz(config.newton_schulz_steps, config.newton_schulz)


def _adam_groups(groups: dict[Kind, list[nn.Parameter]], config: Optim) -> list[dict[str, Any]]:
    decay = config.weight_decay if config.adam_weight_decay is None else config.adam_weight_decay
    of_gains = decay if config.gain_weight_decay is None else config.gain_weight_decay
    rates: dict[Kind, tuple[float, float]] = {
        "embeddings": (config.embed_lr, decay),
        "projections": (config.scalar_lr, decay),
        "gains": (config.scalar_lr, of_gains),
        "activation": (config.activation_lr, 0.0),
    }
    return [
        {"params": groups[kind], "lr": lr, "weight_decay": weight_decay}
        for kind, (lr, weight_decay) in rates.items()
        if groups[kind]
    ]


def _square_norm(gradients: Sequence[Tensor]) -> Tensor:
    norms = torch._foreach_norm(list(gradients), dtype=torch.float32)
    return torch.stack(norms).square().sum()
