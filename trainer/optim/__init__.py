"""Which optimizer moves which parameter? Four kinds, told apart by name, partition the model."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn

from trainer.optim.muon import Muon
from trainer.recipe import Optim
from trainer.schedule import muon_momentum

Kind = Literal["matrices", "embeddings", "activation", "scalars"]


def kind_of(name: str) -> Kind:
    """What a parameter is, for the optimizer and for the quantizer alike.

    The projections of the bigram and value embeddings count as scalars, as published.
    """
    if name.endswith("_bank"):
        return "matrices"
    if name == "embed" or name.endswith(".embed"):
        return "embeddings"
    if name.startswith("activations."):
        return "activation"
    return "scalars"


def parameters_by_kind(model: nn.Module) -> dict[Kind, list[nn.Parameter]]:
    """Every parameter of ``model`` under exactly one kind."""
    groups: dict[Kind, list[nn.Parameter]] = {
        "matrices": [],
        "embeddings": [],
        "activation": [],
        "scalars": [],
    }
    for name, parameter in model.named_parameters():
        groups[kind_of(name)].append(parameter)
    return groups


class Optimizers:
    """Muon for the matrices and AdamW for the rest, stepped together under one schedule.

    A learned activation has a group of its own: its rate, and no weight decay.
    """

    def __init__(self, model: nn.Module, config: Optim) -> None:
        self._config = config
        groups = parameters_by_kind(model)
        self._muon = Muon(
            groups["matrices"],
            lr=config.matrix_lr,
            weight_decay=config.weight_decay,
            newton_schulz_steps=config.newton_schulz_steps,
        )
        rates: dict[Kind, tuple[float, float]] = {
            "embeddings": (config.embed_lr, config.weight_decay),
            "scalars": (config.scalar_lr, config.weight_decay),
            "activation": (config.activation_lr, 0.0),
        }
        self._adam = torch.optim.AdamW(
            [
                {"params": groups[kind], "lr": lr, "weight_decay": decay}
                for kind, (lr, decay) in rates.items()
                if groups[kind]
            ],
            betas=(config.adam_beta1, config.adam_beta2),
            eps=config.adam_eps,
            fused=True,
        )
        self._all: Sequence[torch.optim.Optimizer] = (self._adam, self._muon)
        for group in self._param_groups():
            group["base_lr"] = group["lr"]

    def step(self, step: int, lr_multiplier: float) -> None:
        """Apply the gradients as update ``step`` (from 0), then drop them."""
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
        for optimizer in self._all:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def _param_groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self._all for group in optimizer.param_groups]
