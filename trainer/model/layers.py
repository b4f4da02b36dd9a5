"""The weights of each layer, cut out of the banks, and the tap that is shown a layer's inputs.

L layers, D width, H query heads, G key-value heads, K dimensions of a head, F hidden channels.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from trainer.config.model import Model

Tap = Callable[[str, int, Tensor], None]
"""Shown (site, layer, tensor): what goes into a matrix.

``site`` is attention_in, attention_out, mlp_in or mlp_hidden, or bigram_in or value_in (layer 0).
Positions that are not computed are not shown: with a tail, of the last layer all but attention_in.
"""


class LayerWeights(NamedTuple):
    """The weights of layer ``number``; X = D + 2·G·K rows give queries, keys and values at once.

    ``tail``: of how many last positions more than keys and values is computed; None: of all.
    """

    number: int
    tail: int | None
    qkv_XD: Tensor
    qk_gain_H: Tensor
    out_DD: Tensor
    up_FD: Tensor
    down_DF: Tensor
    attn_scale_D: Tensor
    mlp_scale_D: Tensor
    resid_mix_2D: Tensor

    def tail_of(self, x_BTD: Tensor) -> Tensor:
        return last_positions(x_BTD, self.tail)


class Banks(Protocol):
    """The model whose banks are divided; L comes first in every one."""

    config: Model
    qo_bank: nn.Parameter
    kv_bank: nn.Parameter
    up_bank: nn.Parameter
    down_bank: nn.Parameter
    q_gain_LH: nn.Parameter
    attn_scale_LD: nn.Parameter
    mlp_scale_LD: nn.Parameter
    resid_mix_L2D: nn.Parameter


def observer(tap: Tap | None, site: str, layer: int) -> Callable[[Tensor], None] | None:
    """``tap`` for one kind of input of one layer."""
    return None if tap is None else lambda x: tap(site, layer, x)


def layer_weights(model: Banks, tail: int | None) -> Iterator[LayerWeights]:
    """Each layer's part of the banks: divided once, and so is their gradient put together.

    Of the last layer the last ``tail`` positions are computed, of every layer before it all.
    """
    num = model.config.num_layers
    query_LDD, out_LDD = model.qo_bank.split(num)
    qkv_LXD = torch.cat([query_LDD, *model.kv_bank.split(num)], dim=1)
    of_keys_LG = model.q_gain_LH.new_ones(num, model.config.num_kv_heads)
    parts = (
        qkv_LXD,
        torch.cat([model.q_gain_LH, of_keys_LG], dim=1),
        out_LDD,
        model.up_bank,
        model.down_bank,
        model.attn_scale_LD,
        model.mlp_scale_LD,
        model.resid_mix_L2D,
    )
    unbound = zip(*(part.unbind() for part in parts), strict=True)
    tails = [None] * (num - 1) + [tail]
    for number, (num_computed, weights) in enumerate(zip(tails, unbound, strict=True)):
        yield LayerWeights._make((number, num_computed, *weights))


def last_positions(x_BTD: Tensor, tail: int | None) -> Tensor:
    """The last ``tail`` positions, or all."""
    return x_BTD if tail is None else x_BTD[:, -tail:]
