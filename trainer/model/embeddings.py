"""What the model knows of a position before its first layer.

Shapes: B sequences, T tokens, D width, E embedding dimension.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.recipe import Bigram, ValueEmbedding

BIGRAM_FACTORS = (36313, 27191)  # published constants of the hash


def bigram_hash(tokens_BT: Tensor, vocab_size: int) -> Tensor:
    """A bucket of the last two tokens in [0, vocab_size − 2]; vocab_size − 1 where there is one.

    h_t = (36313·t_t xor 27191·t_{t−1}) mod (vocab_size − 1), in 32-bit integers.
    """
    now, before = BIGRAM_FACTORS
    tokens = tokens_BT.to(torch.int32)
    mixed = torch.bitwise_xor(now * tokens[:, 1:], before * tokens[:, :-1]) % (vocab_size - 1)
    first = torch.full_like(tokens[:, :1], vocab_size - 1)
    return torch.cat([first, mixed], dim=1)


def smear(x_BTD: Tensor, gate_D: Tensor) -> Tensor:
    """Mix every position with the one before it: (1 − g)·x_t + g·x_{t−1}, g = sigmoid(gate)."""
    g = torch.sigmoid(gate_D).to(x_BTD.dtype)
    before = F.pad(x_BTD[:, :-1], (0, 0, 1, 0))
    return (1 - g) * x_BTD + g * before


class HashedBigram(nn.Module):
    """The bigram's embedding, projected to the model's width where the two differ, and scaled."""

    def __init__(self, config: Bigram, width: int) -> None:
        super().__init__()
        self.vocab_size = config.vocab_size
        self.embed = nn.Parameter(torch.zeros(config.vocab_size, config.dim))
        self.proj = nn.Parameter(torch.zeros(width, config.dim)) if config.dim != width else None
        self.scale = nn.Parameter(torch.tensor(config.scale))

    def forward(self, tokens_BT: Tensor) -> Tensor:
        x_BTE = F.embedding(bigram_hash(tokens_BT, self.vocab_size), self.embed)
        x = x_BTE if self.proj is None else F.linear(x_BTE, self.proj)
        return self.scale.to(x.dtype) * x


class SharedValueEmbedding(nn.Module):
    """A token embedding for attention values, one table for all of its layers."""

    def __init__(self, config: ValueEmbedding, vocab_size: int, kv_dim: int) -> None:
        super().__init__()
        self.layers = config.layers
        self.embed = nn.Parameter(torch.zeros(vocab_size, config.dim))
        self.proj = nn.Parameter(torch.zeros(kv_dim, config.dim)) if config.dim != kv_dim else None
        self.scale = nn.Parameter(torch.tensor(config.scale))
        self.layer_scales = nn.Parameter(torch.ones(len(config.layers)))

    def forward(self, tokens_BT: Tensor) -> dict[int, Tensor]:
        """What is added to the values of each layer, (B, T, kv_dim) by layer number."""
        x_BTE = F.embedding(tokens_BT, self.embed)
        x = x_BTE if self.proj is None else F.linear(x_BTE, self.proj)
        x = self.scale.to(x.dtype) * x
        return {layer: self.layer_scales[i].to(x.dtype) * x for i, layer in enumerate(self.layers)}
