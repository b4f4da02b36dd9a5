"""A whole published run (parameter-golf PR #1035, #549, #1176), from initialisation to SLOT."""

import numpy as np

from .config import Published
from .evaluate import TargetBytes, Validation, contiguous, score_first_ttt, sliding, slot
from .model import build_model
from .quantize import round_trip
from .train import train, warm_up


def run_published(
    config: Published,
    activation: tuple,
    train_tokens: list[np.ndarray],
    val_tokens: np.ndarray,
    target_bytes: TargetBytes,
) -> dict:
    """`activation` is ("relu2",), ("leaky_relu2", slope) or ("asqu",)."""
    data = Validation(config, val_tokens, target_bytes)
    model = build_model(config, activation)
    initial = contiguous(config, model, data)
    warm_up(config, model, train_tokens)
    step_losses = train(config, model, train_tokens)
    before = contiguous(config, model, data)
    payload = round_trip(config, model, train_tokens)
    after = contiguous(config, model, data)
    slid = sliding(config, model, data)
    adapted = score_first_ttt(config, model, data) if config.ttt else None
    fitted = slot(config, model, data) if config.slot else None
    return {
        "num_params": sum(param.numel() for param in model.parameters()),
        "step_losses": step_losses,
        "val0": initial.loss,
        "pre_quant_loss": before.loss,
        "pre_quant_bpb": before.bpb,
        "post_quant_bpb": after.bpb,
        "sliding_bpb": slid.bpb,
        "sliding_tokens": slid.tokens,
        "sliding_bytes": slid.bytes,
        "ttt_bpb": adapted.bpb if adapted else None,
        "slot_bpb": fitted.bpb if fitted else None,
        "payload_bytes": payload,
        "val_tokens": before.tokens,
        "val_bytes": before.bytes,
    }
