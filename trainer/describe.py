"""Describe a run without its data: the resolved recipe, every tensor, and what they cost."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from trainer.compress.artifact import payload_bytes
from trainer.config import Recipe
from trainer.contract import ActivationSpec, recipe_hash
from trainer.model import GPT


def describe(recipe: Recipe, activation: ActivationSpec, dtype: str) -> dict[str, Any]:
    """As plain values for JSON; nothing is computed, the tensors have shapes alone.

    ``flops_per_token`` counts the multiplications and additions of matrix products in one forward
    pass over a training sequence (attention over the whole square of positions), 2 for each pair;
    training costs three times as many. ``artifact_payload_bytes`` is the artifact before container
    and compression, without code.
    """
    model = _without_weights(recipe, activation, getattr(torch, dtype))
    model.set_precision()
    weights = dict(model.named_parameters())
    forward = _forward_flops(recipe, activation)
    return {
        "recipe_hash": recipe_hash(recipe),
        "recipe": recipe.model_dump(mode="json"),
        "activation": activation.model_dump(mode="json"),
        "dtype": dtype,
        "num_params": sum(w.numel() for w in weights.values()),
        "flops_per_token": {"forward": forward, "training": 3 * forward},
        "artifact_payload_bytes": payload_bytes(weights, recipe.quantization),
        "tensors": list(_tensors(model)),
    }


def _tensors(model: GPT) -> Iterator[dict[str, Any]]:
    for kind, tensors in (
        ("parameter", model.named_parameters()),
        ("buffer", model.named_buffers()),
    ):
        for name, tensor in tensors:
            yield {
                "name": name,
                "kind": kind,
                "shape": list(tensor.shape),
                "dtype": str(tensor.dtype).removeprefix("torch."),
                "numel": tensor.numel(),
            }


def _without_weights(recipe: Recipe, activation: ActivationSpec, dtype: torch.dtype) -> GPT:
    with torch.device("meta"):
        return GPT(
            recipe.model,
            activation=activation.name,
            activation_params=activation.params,
            num_positions=max(recipe.train.seq_len, recipe.scoring.seq_len),
            dtype=dtype,
        )


def _forward_flops(recipe: Recipe, activation: ActivationSpec) -> int:
    seq_len = recipe.train.seq_len
    model = _without_weights(recipe, activation, torch.float32)
    tokens_BT = torch.zeros(1, seq_len, dtype=torch.int64, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.head(model.body(tokens_BT))
    return int(counter.get_total_flops()) // seq_len
