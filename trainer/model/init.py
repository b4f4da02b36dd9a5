"""Initial weights of a seed: the published order of draws, from one CPU generator.

Every draw of the published scripts is made, also those whose result is replaced, so that the stream
of random numbers is the published one. The activation draws nothing: for one seed every activation
starts from identical weights. Sources: parameter-golf PR #549 (``init = "orthogonal"``) and
PR #1035 (``"kaiming"``), docs/recipes.md.
"""

import math

import torch
from torch import Tensor, nn

from trainer.model.gpt import GPT


@torch.no_grad()
def initialize(model: GPT, seed: int) -> None:
    """Fill ``model`` (on the CPU, float32) with the weights of ``seed``."""
    draw = torch.Generator().manual_seed(seed)
    config = model.config
    nn.init.normal_(model.embed, generator=draw)
    if model.bigram is not None:
        nn.init.normal_(model.bigram.embed, generator=draw)
        nn.init.zeros_(model.bigram.embed)
        _draw_linear(model.bigram.proj, draw)
    if model.value_embedding is not None and config.value_embedding is not None:
        nn.init.normal_(model.value_embedding.embed, generator=draw)
        std = config.value_embedding.init_std
        nn.init.normal_(model.value_embedding.embed, std=std, generator=draw)
        _draw_linear(model.value_embedding.proj, draw)
    if config.init == "kaiming":
        _kaiming_layers(model, draw)
        nn.init.normal_(model.embed, std=config.embed_init_std, generator=draw)
    else:
        nn.init.normal_(model.embed, std=config.embed_init_std, generator=draw)
        _orthogonal_layers(model, draw)
    _projections(model, draw)


def _kaiming_layers(model: GPT, draw: torch.Generator) -> None:
    """Uniform within ±1/√fan_in; the output and down projections are drawn too, and then zero."""
    num_layers = model.config.num_layers
    for layer in range(num_layers):
        for matrix in (
            model.qo_bank[layer],
            model.kv_bank[layer],
            model.kv_bank[num_layers + layer],
            model.qo_bank[num_layers + layer],
            model.up_bank[layer],
            model.down_bank[layer],
        ):
            _draw_linear(matrix, draw)
        nn.init.zeros_(model.qo_bank[num_layers + layer])
        nn.init.zeros_(model.down_bank[layer])


def _orthogonal_layers(model: GPT, draw: torch.Generator) -> None:
    """Q, K, V and up of each layer; output and down projections stay zero."""
    num_layers = model.config.num_layers
    for layer in range(num_layers):
        nn.init.orthogonal_(model.qo_bank[layer], generator=draw)
        nn.init.orthogonal_(model.kv_bank[layer], generator=draw)
        nn.init.orthogonal_(model.kv_bank[num_layers + layer], generator=draw)
        nn.init.orthogonal_(model.up_bank[layer], generator=draw)


def _projections(model: GPT, draw: torch.Generator) -> None:
    """Those of the bigram and value embeddings: orthogonal where large enough, else zero."""
    for module in (model.bigram, model.value_embedding):
        if module is not None and module.proj is not None:
            if min(module.proj.shape) >= model.config.orthogonal_min_dim:
                nn.init.orthogonal_(module.proj, generator=draw)
            else:
                nn.init.zeros_(module.proj)


def _draw_linear(weight: Tensor | None, draw: torch.Generator) -> None:
    if weight is not None:
        nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=draw)
