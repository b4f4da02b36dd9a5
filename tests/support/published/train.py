"""Optimizers, schedules and the training loop (parameter-golf PR #1035, #549, #1176)."""

import math

import numpy as np
import torch
from torch import Tensor

from .config import Published
from .loaders import Batch, build_loader
from .model import Model


def newton_schulz(gradient: Tensor) -> Tensor:
    """Five quintic steps towards the nearest semi-orthogonal matrix."""
    tall = gradient.shape[0] > gradient.shape[1]
    x = gradient.T if tall else gradient
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * (gram @ gram)) @ x
    return x.T if tall else x


def is_matrix(name: str) -> bool:
    """The weights that Muon trains: the six matrices of every block."""
    return name.startswith("blocks.") and name.endswith(".weight")


class Muon:
    def __init__(self, params: list[Tensor], lr: float, momentum: float, weight_decay: float):
        self.params, self.weight_decay = params, weight_decay
        self.lr, self.momentum = lr, momentum
        self.buffers = [torch.zeros_like(param) for param in params]

    @torch.no_grad()
    def step(self) -> None:
        for param, buffer in zip(self.params, self.buffers, strict=True):
            buffer.mul_(self.momentum).add_(param.grad)
            update = newton_schulz(param.grad + self.momentum * buffer)
            rows, cols = param.shape
            param.mul_(1 - self.lr * self.weight_decay)
            param.sub_(self.lr * math.sqrt(max(1, rows / cols)) * update)


class Optimizers:
    """AdamW for embeddings, small tensors and ASQU's coefficients; Muon for the matrices."""

    def __init__(self, config: Published, model: Model):
        self.config = config
        groups: dict[str, list[Tensor]] = {"matrix": [], "embed": [], "scalar": [], "asqu": []}
        for name, param in model.named_parameters():
            groups[self.group_of(name)].append(param)
        self.base_lr = {
            "embed": config.embed_lr,
            "scalar": config.scalar_lr,
            "asqu": config.asqu_lr,
        }
        self.adam = {
            group: torch.optim.AdamW(
                groups[group],
                lr=lr,
                betas=(config.beta1, config.beta2),
                eps=config.adam_eps,
                weight_decay=0.0 if group == "asqu" else config.adam_wd,
            )
            for group, lr in self.base_lr.items()
            if groups[group]
        }
        matrices = groups["matrix"]
        self.muon = Muon(matrices, config.matrix_lr, config.muon_momentum, config.muon_wd)

    @staticmethod
    def group_of(name: str) -> str:
        if is_matrix(name):
            return "matrix"
        if name in ("tok_emb.weight", "bigram.embed.weight", "ve_shared.embed.weight"):
            return "embed"
        return "asqu" if "asqu" in name else "scalar"

    def schedule(self, step: int) -> None:
        multiplier = lr_multiplier(self.config, step)
        for group, optimizer in self.adam.items():
            optimizer.param_groups[0]["lr"] = self.base_lr[group] * multiplier
        self.muon.lr = self.config.matrix_lr * multiplier
        self.muon.momentum = muon_momentum(self.config, step)

    def step(self) -> None:
        for optimizer in self.adam.values():
            optimizer.step()
        self.muon.step()


def lr_multiplier(config: Published, step: int) -> float:
    if config.warmdown_iters and step >= max(config.iterations - config.warmdown_iters, 0):
        return max((config.iterations - step) / config.warmdown_iters, 0.0)
    return 1.0


def muon_momentum(config: Published, step: int) -> float:
    warmup = config.muon_momentum_warmup_steps
    fraction = min(step / warmup, 1.0) if warmup else 1.0
    return (1 - fraction) * config.muon_momentum_warmup_start + fraction * config.muon_momentum


def accumulate(model: Model, batches: list[Batch], clip: float, per_shard: bool) -> float:
    """Leaves the averaged (and clipped) gradient in `.grad`; returns the mean loss."""
    params = list(model.parameters())
    sums = [torch.zeros_like(param) for param in params]
    losses = []
    for inputs_BT, targets_BT in batches:
        model.zero_grad()
        loss = model(inputs_BT, targets_BT)
        loss.backward()
        if clip and per_shard:
            torch.nn.utils.clip_grad_norm_(params, clip)
        for total, param in zip(sums, params, strict=True):
            if param.grad is not None:
                total.add_(param.grad / len(batches))
        losses.append(loss.item())
    for total, param in zip(sums, params, strict=True):
        param.grad = total
    if clip and not per_shard:
        torch.nn.utils.clip_grad_norm_(params, clip)
    return sum(losses) / len(losses)


def snapshot(model: Model) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def warm_up(config: Published, model: Model, shards: list[np.ndarray]) -> None:
    """Real, unscheduled and unclipped steps of which nothing remains."""
    initial = snapshot(model)
    loader, optimizers = build_loader(config, shards), Optimizers(config, model)
    for _ in range(config.warmup_steps):
        accumulate(model, loader.step_batches(), clip=0.0, per_shard=False)
        optimizers.step()
    model.load_state_dict(initial)


def train(config: Published, model: Model, shards: list[np.ndarray]) -> list[float]:
    """Trains for the fixed number of steps and loads the averaged weights, if there are any."""
    loader, optimizers = build_loader(config, shards), Optimizers(config, model)
    average = snapshot(model)
    losses = []
    for step in range(config.iterations):
        batches = loader.step_batches()
        clip, per_shard = config.grad_clip_norm, config.clip_per_shard
        losses.append(accumulate(model, batches, clip, per_shard))
        optimizers.schedule(step)
        optimizers.step()
        if config.ema_decay is not None:
            update_average(average, model, config.ema_decay)
    model.zero_grad()
    if config.ema_decay is not None:
        model.load_state_dict(average)
    return losses


def update_average(average: dict[str, Tensor], model: Model, decay: float) -> None:
    for name, tensor in model.state_dict().items():
        average[name].mul_(decay).add_(tensor, alpha=1 - decay)
