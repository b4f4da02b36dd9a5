"""The published networks (parameter-golf PR #1035, #549, #1176), one module per matrix."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import Published


def rms_norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],))


def fake_int6(weight: Tensor) -> Tensor:
    """Straight-through int6 with the published floor and the asymmetric clamp."""
    scale = (weight.detach().abs().amax(dim=1, keepdim=True) / 31).clamp_min(1 / 31)
    rounded = (weight.detach() / scale).round().clamp(-32, 31) * scale
    return weight + (rounded - weight).detach()


class Linear(nn.Module):
    """A matrix without bias; `initialise` fills it."""

    def __init__(self, rows: int, cols: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(rows, cols))
        self.late_qat = False

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, fake_int6(self.weight) if self.late_qat else self.weight)


class Embedding(nn.Module):
    def __init__(self, rows: int, cols: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(rows, cols))

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.weight)


def hash_bigrams(ids_BT: Tensor, vocab_size: int) -> Tensor:
    """(36313 t xor 27191 t_prev) mod (V-1); the first position has the sentinel V-1."""
    hashed = (36313 * ids_BT[:, 1:] ^ 27191 * ids_BT[:, :-1]) % (vocab_size - 1)
    return F.pad(hashed, (1, 0), value=vocab_size - 1)


class ScaledEmbedding(nn.Module):
    """Embedding, projection (only where the widths differ) and a scalar gain."""

    def __init__(self, rows: int, dim: int, out_dim: int, scale: float):
        super().__init__()
        self.embed = Embedding(rows, dim)
        self.proj = Linear(out_dim, dim) if dim != out_dim else None
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        return (x if self.proj is None else self.proj(x)) * self.scale


class Smear(nn.Module):
    """Mixes every position with the one before it."""

    def __init__(self, dim: int):
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(dim))

    def forward(self, x_BTD: Tensor) -> Tensor:
        gate_D = torch.sigmoid(self.gate)
        previous_BTD = F.pad(x_BTD[:, :-1], (0, 0, 1, 0))
        return (1 - gate_D) * x_BTD + gate_D * previous_BTD


def rotary_table(config: Published, length: int) -> tuple[Tensor, Tensor]:
    dims = config.rope_dims or config.model_dim // config.num_heads
    base = config.rope_base
    if config.rope_ntk_len is not None and length > config.rope_ntk_len:
        base = base * (length / config.rope_ntk_len) ** (dims / (dims - 2))
    inverse = 1.0 / base ** (torch.arange(0, dims, 2, dtype=torch.float32) / dims)
    angle = torch.outer(torch.arange(length, dtype=torch.float32), inverse)
    return angle.cos(), angle.sin()


def rotate(x_BHTK: Tensor, cos_TR: Tensor, sin_TR: Tensor) -> Tensor:
    half = cos_TR.shape[-1]
    first, second = x_BHTK[..., :half], x_BHTK[..., half : 2 * half]
    turned = (first * cos_TR + second * sin_TR, second * cos_TR - first * sin_TR)
    return torch.cat((*turned, x_BHTK[..., 2 * half :]), dim=-1)


class Attention(nn.Module):
    def __init__(self, config: Published, layer: int):
        super().__init__()
        dim, self.heads, self.kv_heads = config.model_dim, config.num_heads, config.num_kv_heads
        kv_dim = dim // self.heads * self.kv_heads
        self.c_q = Linear(dim, dim)
        self.c_k = Linear(kv_dim, dim)
        self.c_v = Linear(kv_dim, dim)
        self.proj = Linear(dim, dim)
        self.q_gain = nn.Parameter(torch.full((self.heads,), float(config.qk_gain_init)))
        self.xsa = layer >= config.num_layers - config.xsa_last_n

    def split(self, x_BTD: Tensor, heads: int) -> Tensor:
        return x_BTD.unflatten(-1, (heads, -1)).transpose(1, 2)

    def forward(self, x_BTD: Tensor, table: tuple[Tensor, Tensor], ve_BTV: Tensor | None) -> Tensor:
        q_BHTK = rotate(rms_norm(self.split(self.c_q(x_BTD), self.heads)), *table)
        q_BHTK = q_BHTK * self.q_gain[:, None, None]
        k_BGTK = rotate(rms_norm(self.split(self.c_k(x_BTD), self.kv_heads)), *table)
        v_BTV = self.c_v(x_BTD)
        v_BGTK = self.split(v_BTV if ve_BTV is None else v_BTV + ve_BTV, self.kv_heads)
        group = self.heads // self.kv_heads
        k_BHTK = k_BGTK.repeat_interleave(group, dim=1)
        v_BHTK = v_BGTK.repeat_interleave(group, dim=1)
        y_BHTK = F.scaled_dot_product_attention(q_BHTK, k_BHTK, v_BHTK, is_causal=True)
        if self.xsa:
            unit_BHTK = F.normalize(v_BHTK, dim=-1, eps=1e-12)
            y_BHTK = y_BHTK - (y_BHTK * unit_BHTK).sum(-1, keepdim=True) * unit_BHTK
        return self.proj(y_BHTK.transpose(1, 2).flatten(-2))


class MLP(nn.Module):
    def __init__(self, config: Published, activation: tuple):
        super().__init__()
        self.activation = activation
        self.fc = Linear(config.mlp_hidden, config.model_dim)
        self.proj = Linear(config.model_dim, config.mlp_hidden)
        if activation[0] == "asqu":
            self.asqu = nn.Parameter(torch.full((config.mlp_hidden,), float(config.asqu_init)))

    def activate(self, x: Tensor) -> Tensor:
        match self.activation:
            case ("relu2",):
                return x.relu().square()
            case ("leaky_relu2", slope):
                return F.leaky_relu(x, slope).square()
            case ("asqu",):
                return torch.where(x > 0, x.square(), self.asqu * x.square())
        raise ValueError(f"unknown activation {self.activation}")

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.proj(self.activate(self.fc(x_BTD)))


class Block(nn.Module):
    def __init__(self, config: Published, activation: tuple, layer: int):
        super().__init__()
        dim = config.model_dim
        self.attn = Attention(config, layer)
        self.mlp = MLP(config, activation)
        self.attn_scale = nn.Parameter(torch.ones(dim))
        self.mlp_scale = nn.Parameter(torch.ones(dim))
        self.resid_mix = nn.Parameter(torch.stack((torch.ones(dim), torch.zeros(dim))))
        self.norm_scale = 1 / math.sqrt(layer + 1) if config.ln_scale else 1.0

    def forward(
        self, x_BTD: Tensor, x0_BTD: Tensor, table: tuple[Tensor, Tensor], ve_BTV: Tensor | None
    ) -> Tensor:
        x_BTD = self.resid_mix[0] * x_BTD + self.resid_mix[1] * x0_BTD
        attended_BTD = self.attn(rms_norm(x_BTD) * self.norm_scale, table, ve_BTV)
        x_BTD = x_BTD + self.attn_scale * attended_BTD
        return x_BTD + self.mlp_scale * self.mlp(rms_norm(x_BTD) * self.norm_scale)


class Model(nn.Module):
    def __init__(self, config: Published, activation: tuple):
        super().__init__()
        self.config = config
        dim = config.model_dim
        kv_dim = dim // config.num_heads * config.num_kv_heads
        self.tok_emb = Embedding(config.vocab_size, dim)
        self.bigram = self.ve_shared = self.smear = None
        if config.bigram_vocab_size:
            rows, width = config.bigram_vocab_size, config.bigram_dim
            self.bigram = ScaledEmbedding(rows, width, dim, 0.05)
        if config.smear:
            self.smear = Smear(dim)
        if config.ve_layers:
            self.ve_shared = ScaledEmbedding(config.vocab_size, config.ve_dim, kv_dim, 0.1)
        self.ve_layer_scales = nn.ParameterList(torch.ones(1) for _ in config.ve_layers)
        self.encoders = config.num_layers // 2
        skips = min(self.encoders, config.num_layers - self.encoders)
        self.skip_weights = nn.Parameter(torch.ones(skips, dim))
        self.blocks = nn.ModuleList(
            Block(config, activation, layer) for layer in range(config.num_layers)
        )

    def embed(self, ids_BT: Tensor) -> Tensor:
        x_BTD = self.tok_emb(ids_BT)
        if self.bigram is not None:
            x_BTD = x_BTD + self.bigram(hash_bigrams(ids_BT, self.config.bigram_vocab_size))
        x_BTD = rms_norm(x_BTD)
        return x_BTD if self.smear is None else self.smear(x_BTD)

    def layer_values(self, ids_BT: Tensor) -> dict[int, Tensor]:
        if self.ve_shared is None:
            return {}
        shared_BTV = self.ve_shared(ids_BT)
        pairs = zip(self.config.ve_layers, self.ve_layer_scales, strict=True)
        return {layer: shared_BTV * scale for layer, scale in pairs}

    def hidden(self, ids_BT: Tensor) -> Tensor:
        """The normalised state before the tied output matrix."""
        table = rotary_table(self.config, ids_BT.shape[1])
        values = self.layer_values(ids_BT)
        x_BTD = x0_BTD = self.embed(ids_BT)
        stack = []
        for layer, block in enumerate(self.blocks):
            if layer >= self.encoders and stack:
                x_BTD = x_BTD + self.skip_weights[layer - self.encoders] * stack.pop()
            x_BTD = block(x_BTD, x0_BTD, table, values.get(layer))
            if layer < self.encoders:
                stack.append(x_BTD)
        return rms_norm(x_BTD)

    def head(self, h_BTD: Tensor) -> Tensor:
        cap = self.config.logit_softcap
        return cap * torch.tanh(F.linear(h_BTD, self.tok_emb.weight) / cap)

    def logits(self, ids_BT: Tensor) -> Tensor:
        return self.head(self.hidden(ids_BT))

    def forward(self, ids_BT: Tensor, targets_BT: Tensor) -> Tensor:
        return F.cross_entropy(self.logits(ids_BT).flatten(0, 1), targets_BT.flatten())


def draw_linear(weight: Tensor) -> None:
    nn.init.kaiming_uniform_(weight, a=math.sqrt(5))


def initialise_kaiming(model: Model) -> None:
    """PR #1035: output projections are drawn and then set to zero."""
    nn.init.normal_(model.tok_emb.weight)
    for block in model.blocks:
        attn, mlp = block.attn, block.mlp
        for linear in (attn.c_q, attn.c_k, attn.c_v, attn.proj, mlp.fc, mlp.proj):
            draw_linear(linear.weight)
        nn.init.zeros_(attn.proj.weight)
        nn.init.zeros_(mlp.proj.weight)
    nn.init.normal_(model.tok_emb.weight, std=0.005)


def draw_side_path(path: ScaledEmbedding | None, std: float) -> None:
    """Embedding N(0, 1), then N(0, std) (zero without a draw); projection drawn, then zero."""
    if path is None:
        return
    nn.init.normal_(path.embed.weight)
    if std:
        nn.init.normal_(path.embed.weight, std=std)
    else:
        nn.init.zeros_(path.embed.weight)
    if path.proj is not None:
        draw_linear(path.proj.weight)
        nn.init.zeros_(path.proj.weight)


def initialise_orthogonal(model: Model) -> None:
    """PR #549: the projections of the two side paths end orthogonal if no side is below 64."""
    nn.init.normal_(model.tok_emb.weight)
    draw_side_path(model.bigram, std=0.0)
    draw_side_path(model.ve_shared, std=0.01)
    nn.init.normal_(model.tok_emb.weight, std=0.005)
    for block in model.blocks:
        for linear in (block.attn.c_q, block.attn.c_k, block.attn.c_v, block.mlp.fc):
            nn.init.orthogonal_(linear.weight)
    for path in (model.bigram, model.ve_shared):
        if path is not None and path.proj is not None and min(path.proj.weight.shape) >= 64:
            nn.init.orthogonal_(path.proj.weight)


def build_model(config: Published, activation: tuple) -> Model:
    model = Model(config, activation)
    initialise = {"kaiming": initialise_kaiming, "orthogonal": initialise_orthogonal}[config.init]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(config.seed)
        initialise(model)
    return model
