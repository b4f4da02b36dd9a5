"""The published artifacts of parameter-golf: int8 (PR #1035), int6 (#549), GPTQ (#1135, #1019)."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from .config import Published
from .loaders import build_loader
from .model import Linear, Model

CONTROL_NAMES = (
    "attn_scale",
    "mlp_scale",
    "resid_mix",
    "q_gain",
    "skip_weight",
    "smear",
    "ve_layer_scales",
    "ve_shared.scale",
    "asqu",
)
PERCENTILES = (0.999, 0.9995, 0.9999, 0.99999, 1.0)
INT8_QUANTILE = 0.9999984

Restored = tuple[Tensor, int]  # the tensor after the round trip, and its bytes in the artifact


def is_control(name: str) -> bool:
    return any(part in name for part in CONTROL_NAMES)


def is_int6(name: str) -> bool:
    """Category by substring: everything called `.proj.` counts as attention."""
    return any(part in name for part in (".mlp.", ".attn.", ".proj."))


def stored_as(tensor: Tensor, dtype: torch.dtype) -> Restored:
    stored = tensor.to(dtype)
    return stored.float(), stored.numel() * stored.element_size()


def floored(scale: Tensor, floor: float | None) -> Tensor:
    """At least the floor; without one, only zero (which cannot divide) is replaced."""
    if floor is None:
        return torch.where(scale > 0, scale, 1.0)
    return scale.clamp_min(floor)


def int8_rows(weight: Tensor, floor: float | None) -> Restored:
    """Codes by the float32 scale, restored by its float16 copy."""
    clip = torch.quantile(weight.abs(), INT8_QUANTILE, dim=1, keepdim=True)
    scale = floored(clip / 127, floor)
    codes = (torch.clamp(weight, -clip, clip) / scale).round().clamp(-127, 127)
    return codes * scale.half().float(), weight.numel() + 2 * weight.shape[0]


def int8_whole(tensor: Tensor) -> Restored:
    clip = torch.quantile(tensor.abs().flatten(), INT8_QUANTILE)
    scale = floored(clip / 127, None)
    codes = (torch.clamp(tensor, -clip, clip) / scale).round().clamp(-127, 127)
    return codes * scale, tensor.numel() + 4


def int8(tensor: Tensor, floor: float | None) -> Restored:
    return int8_rows(tensor, floor) if tensor.ndim == 2 else int8_whole(tensor)


def int6_scales(weight: Tensor, percentile: float, floor: float | None) -> Tensor:
    magnitude = weight.abs()
    if percentile < 1:
        clip = torch.quantile(magnitude, percentile, dim=1, keepdim=True)
    else:
        clip = magnitude.amax(dim=1, keepdim=True)
    return floored(floored(clip / 31, floor).half().float(), None)


def int6_codes(weight: Tensor, scale: Tensor) -> Tensor:
    return (weight / scale).round().clamp(-31, 31)


def int6_rows(weight: Tensor, floor: float | None) -> Restored:
    """The percentile with the least mean squared error over the matrix; ties keep the smaller."""
    best, least = weight, float("inf")
    for percentile in PERCENTILES:
        scale = int6_scales(weight, percentile, floor)
        restored = int6_codes(weight, scale) * scale
        error = (weight - restored).square().mean().item()
        if error < least:
            best, least = restored, error
    return best, weight.numel() + 2 * weight.shape[0]


def upper_inverse_root(hessian: Tensor) -> Tensor:
    """The upper Cholesky factor of the inverse."""
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    return torch.linalg.cholesky(inverse, upper=True)


def compensated(weight: Tensor, scale: Tensor, root: Tensor, block: int) -> Tensor:
    """Rounds column by column, moving every error on to the columns still to come."""
    work, restored = weight.clone(), torch.empty_like(weight)
    for first in range(0, weight.shape[1], block):
        last = min(first + block, weight.shape[1])
        errors = torch.empty(weight.shape[0], last - first)
        for j in range(first, last):
            column = work[:, j : j + 1]
            restored[:, j : j + 1] = int6_codes(column, scale) * scale
            error = (column - restored[:, j : j + 1]) / root[j, j]
            work[:, j:last] -= error * root[j, j:last]
            errors[:, j - first : j - first + 1] = error
        work[:, last:] -= errors @ root[first:last, last:]
    return restored


def gptq_rows(config: Published, weight: Tensor, hessian: Tensor) -> Restored:
    """As `int6_rows`, with compensated codes; the selection stays the plain weight error."""
    size = len(hessian)
    hessian = hessian + config.gptq_damp * hessian.diagonal().mean() * torch.eye(size)
    order = hessian.diagonal().argsort(descending=True)
    try:
        root = upper_inverse_root(hessian[order][:, order])
    except torch.linalg.LinAlgError:
        return int6_rows(weight, config.int6_floor)
    permuted = weight[:, order]
    best, least = permuted, float("inf")
    for percentile in PERCENTILES:
        scale = int6_scales(weight, percentile, config.int6_floor)
        restored = compensated(permuted, scale, root, config.gptq_block)
        error = (permuted - restored).square().mean().item()
        if error < least:
            best, least = restored, error
    return best[:, order.argsort()], weight.numel() + 2 * weight.shape[0]


def collect_hessians(model: Model, names: set[str], inputs: Iterable[Tensor]) -> dict[str, Tensor]:
    """The mean over the batches of X^T X at the input of every named matrix."""
    sums = {}

    def hook_for(name: str):
        def hook(_module: Linear, args: tuple[Tensor]) -> None:
            x_ND = args[0].flatten(0, -2)
            sums[name] = sums.get(name, 0) + x_ND.T @ x_ND

        return hook

    handles = [
        module.register_forward_pre_hook(hook_for(f"{name}.weight"))
        for name, module in model.named_modules()
        if f"{name}.weight" in names
    ]
    count = 0
    for ids_BT in inputs:
        model.hidden(ids_BT)
        count += 1
    for handle in handles:
        handle.remove()
    return {name: total / count for name, total in sums.items()}


def generate(config: Published, model: Model) -> list[Tensor]:
    """Sequences sampled from the model itself, the first token uniformly."""
    seed = config.seed if config.gptq_seed is None else config.gptq_seed
    generator = torch.Generator().manual_seed(seed)
    sequences = []
    while len(sequences) < config.gptq_sequences:
        count = min(config.gptq_generate_batch, config.gptq_sequences - len(sequences))
        ids_BT = torch.randint(0, config.vocab_size, (count, 1), generator=generator)
        while ids_BT.shape[1] < config.train_seq_len:
            logits_BV = model.logits(ids_BT)[:, -1] / config.gptq_temperature
            drawn = torch.multinomial(logits_BV.softmax(-1), 1, generator=generator)
            ids_BT = torch.cat((ids_BT, drawn), dim=1)
        sequences += ids_BT.split(1)
    return sequences


@torch.no_grad()
def calibrate(config: Published, model: Model, shards: list[np.ndarray]) -> dict[str, Tensor]:
    linears = {f"{n}.weight" for n, module in model.named_modules() if isinstance(module, Linear)}
    if config.gptq_calib == "generated":
        inputs = (ids_BT[:, :-1] for ids_BT in generate(config, model))
        hessians = collect_hessians(model, linears, inputs)
    else:
        names = {name for name in linears if name.startswith("blocks.")}
        batches = build_loader(config, shards).calibration(config.gptq_batches)
        hessians = collect_hessians(model, names, (inputs for inputs, _ in batches))
    for hessian in hessians.values():
        damping = config.gptq_damp * max(hessian.diagonal().mean().item(), 1e-6)
        hessian.diagonal().add_(damping)
    return hessians


def restore_int8(config: Published, name: str, tensor: Tensor) -> Restored:
    """PR #1035: small tensors pass, everything else is int8."""
    if tensor.numel() <= config.passthrough_numel:
        keep = config.control_fp32 and is_control(name)
        return stored_as(tensor, torch.float32 if keep else torch.float16)
    return int8(tensor, config.int8_floor)


def restore_mixed(
    config: Published, name: str, tensor: Tensor, hessians: dict[str, Tensor]
) -> Restored:
    """PR #549: small tensors pass, then control tensors, then int6 by name, then int8."""
    if tensor.numel() <= config.passthrough_numel:
        keep = config.control_fp32 and is_control(name)
        return stored_as(tensor, torch.float32 if keep else torch.float16)
    if is_control(name):
        return stored_as(tensor, torch.float32)
    if is_int6(name) and name in hessians:
        return gptq_rows(config, tensor, hessians[name])
    if is_int6(name):
        return int6_rows(tensor, config.int6_floor)
    return int8(tensor, config.int8_floor)


def round_trip(config: Published, model: Model, shards: list[np.ndarray]) -> int:
    """Replaces the weights by what the artifact restores; returns the payload's bytes."""
    hessians = calibrate(config, model, shards) if config.quantizer == "gptq" else {}
    state, payload = {}, 0
    for name, tensor in model.state_dict().items():
        if config.quantizer == "int8":
            state[name], size = restore_int8(config, name, tensor)
        else:
            state[name], size = restore_mixed(config, name, tensor, hessians)
        payload += size
    model.load_state_dict(state)
    return payload
