"""Choose what computes the attention of a model: FlashAttention-3 or torch.

The choice is made once for a model; its name is the column ``attention_backend`` of every row.
"""

import importlib
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from trainer.model.attention import Attention, attend
from trainer.model.attention_check import is_correct, say

AttentionBackend = Literal["flash_attn_3", "torch_sdpa"]


def attention_backend(
    device: torch.device, dtype: torch.dtype, shape: tuple[int, int, int]
) -> AttentionBackend:
    """What computes attention there; ``shape`` is query heads, key-value heads, dimensions of one.

    FlashAttention-3 in bfloat16 on the GPUs that it is written for, where it is installed and has
    been found right.
    """
    can = device.type == "cuda" and dtype is torch.bfloat16 and _is_hopper(device)
    return "flash_attn_3" if can and _is_proven(device, shape) else "torch_sdpa"


def attention_of(backend: AttentionBackend) -> Attention:
    """The function that computes attention so."""
    flash = _flash_attention_3() if backend == "flash_attn_3" else None
    return flash or attend


@cache
def _is_proven(device: torch.device, shape: tuple[int, int, int]) -> bool:
    flash = _flash_attention_3()
    if flash is None:
        say("there is no package flash_attn_interface that can be imported")
        return False
    return is_correct(flash, device, shape)


@cache
def _is_hopper(device: torch.device) -> bool:
    """Whether the GPU is of the kind that FlashAttention-3 is written for."""
    return torch.cuda.is_available() and torch.cuda.get_device_capability(device)[0] == 9


@cache
def _flash_attention_3() -> Attention | None:
    """The function of the optional package, which takes (B, T, H, K) as it is here.

    Its causal mask is aligned to the last query and the last key, as ours is.
    """
    try:
        flash = importlib.import_module("flash_attn_interface").flash_attn_func
    except (ImportError, AttributeError, OSError):
        return None

    def causal(q_BTHK: Tensor, k_BTGK: Tensor, v_BTGK: Tensor) -> Tensor:
        result = flash(q_BTHK, k_BTGK, v_BTGK, causal=True)
        return result[0] if isinstance(result, tuple) else result  # some versions add the lse

    return causal
