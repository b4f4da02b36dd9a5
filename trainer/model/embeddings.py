"""What the model knows of a position before its first layer.

Shapes: B sequences, T tokens, D width, E embedding dimension.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.config import Bigram, ValueEmbedding

Observe = Callable[[Tensor], None]


def bigram_hash(tokens_BT: Tensor, vocab_size: int, factors: tuple[int, int]) -> Tensor:
    """A bucket of the last two tokens in [0, vocab_size − 2]; vocab_size − 1 where there is one.

    h_t = (a·t_t xor b·t_{t−1}) mod (vocab_size − 1), in 32-bit integers, (a, b) = ``factors``.
    """
    now, before = factors
    tokens = tokens_BT.to(torch.int32)
    mixed = torch.bitwise_xor(now * tokens[:, 1:], before * tokens[:, :-1]) % (vocab_size - 1)
    first = torch.full_like(tokens[:, :1], vocab_size - 1)
    return torch.cat([first, mixed], dim=1)


def smear(x_BTD: Tensor, gate_D: Tensor) -> Tensor:
    """Mix every position with the one before it: (1 − g)·x_t + g·x_{t−1}, g = sigmoid(gate)."""
    g = torch.sigmoid(gate_D).to(x_BTD.dtype)
    before = F.pad(x_BTD[:, :-1], (0, 0, 1, 0))
    return (1 - g) * x_BTD + g * before


def as_if_six_bits(w_RC: Tensor) -> Tensor:
    """``w_RC`` rounded to six bits a row in value, itself in gradient (straight-through).

    Scale max|w_r| / 31, at least 1 / 31; codes −32 … 31, as published for late training.
    """
    with torch.no_grad():
        w = w_RC.float()
        scale_R1 = (w.abs().amax(dim=1, keepdim=True) / 31).clamp(min=1 / 31)
        rounded = ((w / scale_R1).round().clamp(-32, 31) * scale_R1).to(w_RC.dtype)
    return w_RC + (rounded - w_RC).detach()


class ScaledEmbedding(nn.Module):
    """An embedding of E dimensions, projected to ``out_dim`` where the two differ, and scaled.

    With ``six_bits`` the projection computes as if it were quantized already.
    """

    def __init__(self, num_ids: int, dim: int, out_dim: int, scale: float) -> None:
        super().__init__()
        self.embed = nn.Parameter(torch.zeros(num_ids, dim))
        self.proj = nn.Parameter(torch.zeros(out_dim, dim)) if dim != out_dim else None
        self.scale = nn.Parameter(torch.tensor(scale))
        self.six_bits = False

    def look_up(self, ids_BT: Tensor, observe: Observe | None) -> Tensor:
        """(B, T, out_dim); ``observe`` is shown what goes into the projection."""
        x = F.embedding(ids_BT, self.embed)
        if self.proj is not None:
            if observe is not None:
                observe(x)
            x = F.linear(x, as_if_six_bits(self.proj) if self.six_bits else self.proj)
        return self.scale.to(x.dtype) * x


class HashedBigram(ScaledEmbedding):
    """An embedding of the last two tokens."""

    def __init__(self, config: Bigram, width: int) -> None:
        super().__init__(config.vocab_size, config.dim, width, config.scale)
        self.config = config

    def forward(self, tokens_BT: Tensor, observe: Observe | None = None) -> Tensor:
        buckets_BT = bigram_hash(tokens_BT, self.config.vocab_size, self.config.factors)
        return self.look_up(buckets_BT, observe)


class SharedValueEmbedding(ScaledEmbedding):
    """A token embedding for attention values, one table for all of its layers."""

    def __init__(self, config: ValueEmbedding, vocab_size: int, kv_dim: int) -> None:
        super().__init__(vocab_size, config.dim, kv_dim, config.scale)
        self.layers = config.layers
        self.layer_scales = nn.Parameter(torch.ones(len(config.layers)))

    def forward(self, tokens_BT: Tensor, observe: Observe | None = None) -> dict[int, Tensor]:
        """What is added to the values of each layer, (B, T, kv_dim) by layer number."""
        x = self.look_up(tokens_BT, observe)
        return {layer: self.layer_scales[i].to(x.dtype) * x for i, layer in enumerate(self.layers)}
