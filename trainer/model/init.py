"""Which weights does a seed give? The published order of draws, from one CPU generator.

Every draw of the published script is made, also those whose result is replaced, so that the stream
of random numbers is the published one. The activation draws nothing: for one seed every activation
starts from identical weights. Source: parameter-golf PR #549 (docs/recipes.md).
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
    nn.init.normal_(model.embed, std=config.embed_init_std, generator=draw)
    for layer in range(config.num_layers):
        nn.init.orthogonal_(model.qo_bank[layer], generator=draw)
        nn.init.orthogonal_(model.kv_bank[layer], generator=draw)
        nn.init.orthogonal_(model.kv_bank[config.num_layers + layer], generator=draw)
        nn.init.orthogonal_(model.up_bank[layer], generator=draw)
    for module in (model.bigram, model.value_embedding):
        if module is not None and module.proj is not None:
            if min(module.proj.shape) >= config.orthogonal_min_dim:
                nn.init.orthogonal_(module.proj, generator=draw)
            else:
                nn.init.zeros_(module.proj)


def _draw_linear(weight: Tensor | None, draw: torch.Generator) -> None:
    if weight is not None:
        nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=draw)
