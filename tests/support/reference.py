"""The forward pass once more, slowly and in float64, one position and one head at a time.

Written from the published description and not from ``trainer.model``: no bank, no batch, no fused
attention, and every activation number by number. T tokens, D width, F hidden channels, H query
heads, G key-value heads, K dimensions of a head.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from trainer.activations import Given
from trainer.model import GPT

RMS_EPS = 2.0**-23  # that of float32, as published

Params = Mapping[str, float]
NO_PARAMS: Given = {}

# β of the squared family, of the parameters that are given and those that are learned.
BETA: dict[str, Callable[[Params], float]] = {
    "relu2": lambda p: 0.0,
    "leaky_relu2": lambda p: p["slope"] ** 2,
    "leaky_relu2_layers": lambda p: p["slopes"] ** 2,
    "asqu": lambda p: p["beta"],
    "prelu2": lambda p: p["slope"] ** 2,
    "rrelu2": lambda p: ((p.get("low", 1 / 8) + p.get("high", 1 / 3)) / 2) ** 2,
}


def reference_activation(name: str, x: float, params: Params) -> tuple[float, float]:
    """f(x) and f'(x); where there is a kink at zero, f' is that of the negative side."""
    if name in BETA:
        beta = 1.0 if x > 0 else BETA[name](params)
        return beta * x * x, 2 * beta * x
    return _OTHERS[name](x, params)


def _gelu(x: float, params: Params) -> tuple[float, float]:
    cdf = math.erfc(-x / math.sqrt(2)) / 2
    return x * cdf, cdf + x * math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def _silu(x: float, params: Params) -> tuple[float, float]:
    small = math.exp(-abs(x))
    sigma, rest = (1 / (1 + small), small / (1 + small))[:: 1 if x > 0 else -1]
    return x * sigma, sigma * (1 + x * rest)


def _xielu(x: float, params: Params) -> tuple[float, float]:
    """``a_p`` and ``a_n`` are before the softplus."""
    p = math.log1p(math.exp(params["a_p"]))
    n = 0.5 + math.log1p(math.exp(params["a_n"]))
    if x > 0:
        return p * x * x + x / 2, 2 * p * x + 0.5
    return n * (math.expm1(x) - x) + x / 2, n * math.expm1(x) + 0.5


_OTHERS: dict[str, Callable[[float, Params], tuple[float, float]]] = {
    "relu": lambda x, p: (x, 1.0) if x > 0 else (0.0, 0.0),
    "leaky_relu": lambda x, p: (x, 1.0) if x > 0 else (p["slope"] * x, p["slope"]),
    "gelu": _gelu,
    "silu": _silu,
    "elu": lambda x, p: (x, 1.0) if x > 0 else (math.expm1(x), math.exp(x)),
    "xielu": _xielu,
}


def reference_activations(
    name: str, x_TF: Tensor, params: Given, learned: Mapping[str, Tensor], layer: int = 0
) -> tuple[Tensor, Tensor]:
    """f and f' of every number of ``x_TF``; what is learned is one number, or one per channel."""
    given = {key: v[layer] if isinstance(v, list) else v for key, v in params.items()}
    columns = {key: w.double().expand(x_TF.shape[1]).tolist() for key, w in learned.items()}
    of_channel = [
        {**given, **{key: column[f] for key, column in columns.items()}}
        for f in range(x_TF.shape[1])
    ]
    pairs = [
        [reference_activation(name, x, p) for x, p in zip(row, of_channel, strict=True)]
        for row in x_TF.tolist()
    ]
    values, derivatives = torch.tensor(pairs, dtype=torch.float64).unbind(-1)
    return values, derivatives


def reference_logits(
    model: GPT, tokens_T: list[int], activation: str = "asqu", params: Given = NO_PARAMS
) -> Tensor:
    """Logits (T, V) of one sequence; ``activation`` and its ``params`` are those of ``model``."""
    config = model.config
    w = {name: p.detach().double() for name, p in model.named_parameters()}
    x = torch.stack([_embedding(w, config, tokens_T, t) for t in range(len(tokens_T))])
    if config.smear_gate:
        g = torch.sigmoid(w["smear_gate"])
        shifted = torch.cat([torch.zeros_like(x[:1]), x[:-1]])
        x = (1 - g) * x + g * shifted
    x0, stack, num_encoders = x, [], config.num_layers // 2
    for layer in range(config.num_layers):
        if layer >= num_encoders and stack:
            x = x + w["skip_weights"][layer - num_encoders] * stack.pop()
        x = _block(config, w, layer, x, x0, tokens_T, (activation, params))
        if layer < num_encoders:
            stack.append(x)
    z = _norm(x) @ w["embed"].T
    return config.logit_softcap * torch.tanh(z / config.logit_softcap)


def _embedding(w, config, tokens, t):
    x = w["embed"][tokens[t]]
    if config.bigram is not None:
        size = config.bigram.vocab_size
        bucket = size - 1
        if t > 0:
            # In 32-bit integers: the products may wrap around, the modulus is never negative.
            mixed = _int32(36313 * tokens[t]) ^ _int32(27191 * tokens[t - 1])
            bucket = mixed % (size - 1)
        row = w["bigram.embed"][bucket]
        x = x + w["bigram.scale"] * (w["bigram.proj"] @ row if "bigram.proj" in w else row)
    return _norm(x)


def _int32(value):
    return (value + 2**31) % 2**32 - 2**31


def _norm(x):
    return x / (x.square().mean(dim=-1, keepdim=True) + RMS_EPS).sqrt()


def _block(config, w, layer, x, x0, tokens, activation):
    c = 1.0 if config.layer_scale == "none" else 1 / math.sqrt(layer + 1)
    x = w["resid_mix_L2D"][layer, 0] * x + w["resid_mix_L2D"][layer, 1] * x0
    x = x + w["attn_scale_LD"][layer] * _attention(config, w, layer, c * _norm(x), tokens)
    hidden = (c * _norm(x)) @ w["up_bank"][layer].T
    name, params = activation
    own = f"activations.{layer}."
    learned = {key.removeprefix(own): value for key, value in w.items() if key.startswith(own)}
    hidden, _ = reference_activations(name, hidden, params, learned, layer)
    return x + w["mlp_scale_LD"][layer] * (hidden @ w["down_bank"][layer].T)


def _attention(config, w, layer, x, tokens):
    num_layers, dim = config.num_layers, config.head_dim
    q = x @ w["qo_bank"][layer].T
    k = x @ w["kv_bank"][layer].T
    v = x @ w["kv_bank"][num_layers + layer].T
    extra = config.value_embedding
    if extra is not None and layer in extra.layers:
        rows = w["value_embedding.embed"][tokens]
        if "value_embedding.proj" in w:
            rows = rows @ w["value_embedding.proj"].T
        own = w["value_embedding.layer_scales"][extra.layers.index(layer)]
        v = v + own * w["value_embedding.scale"] * rows
    heads = []
    for h in range(config.num_heads):
        g = h // (config.num_heads // config.num_kv_heads)
        value = v[:, g * dim : (g + 1) * dim]
        query = w["q_gain_LH"][layer, h] * _rope(config, _norm(q[:, h * dim : (h + 1) * dim]))
        key = _rope(config, _norm(k[:, g * dim : (g + 1) * dim]))
        heads.append(_head(query, key, value, layer >= num_layers - config.xsa_last_layers))
    return torch.cat(heads, dim=1) @ w["qo_bank"][num_layers + layer].T


def _head(q, k, v, exclude):
    rows = []
    for t in range(len(q)):
        weights = torch.softmax(k[: t + 1] @ q[t] / math.sqrt(q.shape[1]), dim=0)
        y = weights @ v[: t + 1]
        if exclude:
            unit = v[t] / v[t].norm()
            y = y - (y @ unit) * unit
        rows.append(y)
    return torch.stack(rows)


def _rope(config, x):
    rotated, half = x.clone(), config.rope_dims // 2
    for t in range(len(x)):
        for i in range(half):
            angle = t * config.rope_base ** (-2 * i / config.rope_dims)
            a, b = x[t, i], x[t, half + i]
            rotated[t, i] = a * math.cos(angle) + b * math.sin(angle)
            rotated[t, half + i] = b * math.cos(angle) - a * math.sin(angle)
    return rotated
