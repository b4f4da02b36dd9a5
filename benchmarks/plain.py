"""What does a training step cost as one would write it first? What every claim of speed is told by.

The mathematics of the trainer on one rank in float32, with the usual parts of torch: a module for
each layer with linear layers of its own, autograd for everything, Newton–Schulz matrix by matrix,
AdamW, clipping and averaging as torch and a loop give them. Nothing is fused, batched or put off,
and nothing is slow on purpose. A test holds its losses against the trainer's. Shapes: B sequences,
T tokens, D width, H query heads, G key-value heads, K dimensions of a head, F hidden channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.config import Model, Optim, Recipe
from trainer.model import GPT
from trainer.model.attention import rope_table
from trainer.model.embeddings import bigram_hash
from trainer.optim.schedule import muon_momentum
from trainer.training.step import MicroBatches

EPS = torch.finfo(torch.float32).eps


class PlainStep:
    """A model with the weights of ``source`` and its optimizers, for the recipes it is able to."""

    def __init__(self, source: GPT, recipe: Recipe) -> None:
        optim = self._optim = recipe.optim
        beyond = {
            "clip per shard": optim.clip != "global",
            "late QAT": recipe.train.late_qat_below is not None,
            "a decay of its own": optim.adam_weight_decay is not None,
            "a longer base": recipe.model.rope_ntk_len is not None,
        }
        if any(beyond.values()):
            unknown = ", ".join(what for what, asked in beyond.items() if asked)
            raise ValueError(f"the plain step does not know {unknown}")
        self._decay = recipe.averaging.decay
        self.model = PlainGPT(source, recipe.model)
        matrices = [p for layer in self.model.layers for p in layer.matrices()]
        decay = optim.weight_decay
        self._adam = torch.optim.AdamW(
            [
                {"params": params, "lr": lr, "base_lr": lr, "weight_decay": factor * decay}
                for params, lr, factor in self.model.rates(optim)
                if params
            ],
            betas=(optim.adam_beta1, optim.adam_beta2),
            eps=optim.adam_eps,
        )
        self._momentum = [(p, torch.zeros_like(p)) for p in matrices]
        self.average = {name: p.detach().clone() for name, p in self.model.named_parameters()}

    def take(self, batch: MicroBatches, step: int, lr_mult: float) -> float:
        """One update (from 0); the mean loss before it."""
        optim, total = self._optim, 0.0
        for x_BT, y_BT in batch:
            logits = self.model(x_BT)
            loss = F.cross_entropy(logits.flatten(0, 1), y_BT.flatten()) / len(batch)
            loss.backward()
            total += loss.item()
        if optim.grad_clip is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), optim.grad_clip)
        for group in self._adam.param_groups:
            group["lr"] = group["base_lr"] * lr_mult
        self._adam.step()
        self._muon(step, lr_mult)
        self.model.zero_grad()
        if self._decay is not None:
            self._take_in(self._decay)
        return total

    @torch.no_grad()
    def _muon(self, step: int, lr_mult: float) -> None:
        optim = self._optim
        start, final = optim.muon_momentum_start, optim.muon_momentum
        mu = muon_momentum(step, start, final, optim.muon_momentum_warmup_steps)
        lr = optim.matrix_lr * lr_mult
        for weight, momentum in self._momentum:
            assert weight.grad is not None
            momentum.mul_(mu).add_(weight.grad)
            update = self._orthogonal(weight.grad + mu * momentum)
            rows, columns = weight.shape
            weight.mul_(1 - lr * optim.weight_decay)
            weight.sub_(lr * max(1.0, rows / columns) ** 0.5 * update)

    def _orthogonal(self, x: Tensor) -> Tensor:
        """Newton–Schulz of one matrix, Jordan (2024)."""
        a, b, c = self._optim.newton_schulz
        is_tall = x.size(0) > x.size(1)
        x = x.T if is_tall else x
        x = x / (x.norm() + 1e-7)
        for _ in range(self._optim.newton_schulz_steps):
            gram = x @ x.T
            x = a * x + (b * gram + c * gram @ gram) @ x
        return x.T if is_tall else x

    @torch.no_grad()
    def _take_in(self, decay: float) -> None:
        for name, p in self.model.named_parameters():
            self.average[name].mul_(decay).add_(p, alpha=1 - decay)


class PlainGPT(nn.Module):
    """The forward path, from the weights of ``source``."""

    cos_TR: Tensor
    sin_TR: Tensor

    def __init__(self, source: GPT, config: Model) -> None:
        super().__init__()
        self.config = config
        self.embed = _copied_embedding(source.embed)
        self.layers = nn.ModuleList(
            PlainLayer(source, config, layer) for layer in range(config.num_layers)
        )
        self.skip_weights = nn.ParameterList(_copied(w) for w in source.skip_weights)
        self.smear_gate = None if source.smear_gate is None else _copied(source.smear_gate)
        self.bigram = None if source.bigram is None else PlainEmbedding(source.bigram)
        values = source.value_embedding
        self.values = None if values is None else PlainEmbedding(values)
        self.value_scales = None if values is None else _copied(values.layer_scales)
        cos, sin = rope_table(source.cos_TR.size(0), config.rope_dims, config.rope_base)
        self.register_buffer("cos_TR", cos)
        self.register_buffer("sin_TR", sin)

    def rates(self, optim: Optim) -> list[tuple[list[nn.Parameter], float, float]]:
        """(parameters of AdamW, learning rate, factor of the weight decay)."""
        embeddings, gains, projections, betas = [], [], [], []
        for name, p in self.named_parameters():
            if name.endswith("embed.weight"):
                embeddings.append(p)
            elif name.endswith("proj.weight") and "layers" not in name:
                projections.append(p)
            elif name.endswith(".beta"):
                betas.append(p)
            elif p.ndim < 2 or name.endswith("mix_2D"):
                gains.append(p)
        return [
            (embeddings, optim.embed_lr, 1.0),
            (projections, optim.scalar_lr, 1.0),
            (gains, optim.scalar_lr, 1.0),
            (betas, optim.activation_lr, 0.0),
        ]

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Logits (B, T, V)."""
        config = self.config
        x = self.embed(tokens_BT)
        if self.bigram is not None and config.bigram is not None:
            buckets = bigram_hash(tokens_BT, config.bigram.vocab_size, config.bigram.factors)
            x = x + self.bigram(buckets)
        x = _rms_norm(x)
        if self.smear_gate is not None:
            gate = torch.sigmoid(self.smear_gate)
            x = (1 - gate) * x + gate * F.pad(x[:, :-1], (0, 0, 1, 0))
        extra: dict[int, Tensor] = {}
        if self.values is not None and self.value_scales is not None and config.value_embedding:
            value = self.values(tokens_BT)
            numbers = config.value_embedding.layers
            extra = {layer: self.value_scales[i] * value for i, layer in enumerate(numbers)}
        x0, skips, num_encoders = x, [], config.num_layers // 2
        table = self.cos_TR[: x.size(1)], self.sin_TR[: x.size(1)]
        for number, layer in enumerate(self.layers):
            if number >= num_encoders and skips:
                x = x + self.skip_weights[number - num_encoders] * skips.pop()
            x = layer(x, x0, extra.get(number), *table)
            if number < num_encoders:
                skips.append(x)
        cap = config.logit_softcap
        return cap * torch.tanh(F.linear(_rms_norm(x), self.embed.weight) / cap)


class PlainEmbedding(nn.Module):
    """An embedding, projected where its size differs, and scaled."""

    def __init__(self, source: nn.Module) -> None:
        super().__init__()
        self.embed = _copied_embedding(source.embed)
        self.proj = None if source.proj is None else _copied_linear(source.proj)
        self.scale = _copied(source.scale)

    def forward(self, ids_BT: Tensor) -> Tensor:
        x = self.embed(ids_BT)
        return self.scale * (x if self.proj is None else self.proj(x))


class PlainLayer(nn.Module):
    """Attention and MLP."""

    def __init__(self, source: GPT, config: Model, layer: int) -> None:
        super().__init__()
        num, self.config = config.num_layers, config
        self.query = _copied_linear(source.qo_bank[layer])
        self.key = _copied_linear(source.kv_bank[layer])
        self.value = _copied_linear(source.kv_bank[num + layer])
        self.out = _copied_linear(source.qo_bank[num + layer])
        self.up = _copied_linear(source.up_bank[layer])
        self.down = _copied_linear(source.down_bank[layer])
        self.gain_H = _copied(source.q_gain_LH[layer])
        self.attn_scale_D = _copied(source.attn_scale_LD[layer])
        self.mlp_scale_D = _copied(source.mlp_scale_LD[layer])
        self.mix_2D = _copied(source.resid_mix_L2D[layer])
        beta = source.activations[layer].beta
        is_learned = isinstance(beta, nn.Parameter)
        self.beta = nn.Parameter(beta.detach().clone(), requires_grad=is_learned)
        self.scale = 1.0 if config.layer_scale == "none" else (layer + 1) ** -0.5
        self.excludes_self = layer >= num - config.xsa_last_layers

    def matrices(self) -> list[nn.Parameter]:
        """What Muon moves."""
        linear = (self.query, self.key, self.value, self.out, self.up, self.down)
        return [module.weight for module in linear]

    def forward(
        self, x: Tensor, x0: Tensor, extra_value: Tensor | None, cos_TR: Tensor, sin_TR: Tensor
    ) -> Tensor:
        x = self.mix_2D[0] * x + self.mix_2D[1] * x0
        attended = self.attend(self.scale * _rms_norm(x), extra_value, cos_TR, sin_TR)
        x = x + self.attn_scale_D * attended
        hidden = self.up(self.scale * _rms_norm(x))
        hidden = torch.where(hidden > 0, hidden * hidden, self.beta * hidden * hidden)
        return x + self.mlp_scale_D * self.down(hidden)

    def attend(
        self, x: Tensor, extra_value: Tensor | None, cos_TR: Tensor, sin_TR: Tensor
    ) -> Tensor:
        batch, length, width = x.shape
        heads, groups = self.config.num_heads, self.config.num_kv_heads
        q = _rotate(_rms_norm(self.query(x).view(batch, length, heads, -1)), cos_TR, sin_TR)
        k = _rotate(_rms_norm(self.key(x).view(batch, length, groups, -1)), cos_TR, sin_TR)
        v = self.value(x)
        if extra_value is not None:
            v = v + extra_value
        v = v.view(batch, length, groups, -1)
        q = q * self.gain_H[:, None]
        y = F.scaled_dot_product_attention(
            q.transpose(1, 2),
            k.transpose(1, 2),
            v.transpose(1, 2),
            is_causal=True,
            enable_gqa=heads != groups,
        ).transpose(1, 2)
        if self.excludes_self:
            unit = F.normalize(v, dim=-1).repeat_interleave(heads // groups, dim=2)
            y = y - (y * unit).sum(dim=-1, keepdim=True) * unit
        return self.out(y.reshape(batch, length, width))


def _rms_norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.size(-1),), eps=EPS)


def _rotate(x_BTHK: Tensor, cos_TR: Tensor, sin_TR: Tensor) -> Tensor:
    half = cos_TR.size(-1)
    cos, sin = cos_TR[:, None], sin_TR[:, None]
    first, second = x_BTHK[..., :half], x_BTHK[..., half : 2 * half]
    turned = (first * cos + second * sin, second * cos - first * sin, x_BTHK[..., 2 * half :])
    return torch.cat(turned, dim=-1)


def _copied(weight: Tensor) -> nn.Parameter:
    return nn.Parameter(weight.detach().clone())


def _copied_linear(weight: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.size(1), weight.size(0), bias=False)
    linear.weight = _copied(weight)
    return linear


def _copied_embedding(weight: Tensor) -> nn.Embedding:
    return nn.Embedding.from_pretrained(weight.detach().clone(), freeze=False)
