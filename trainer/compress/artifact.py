"""Weights to bytes and back: what is submitted, and what the post-quantization scores are of.

What becomes of a tensor is decided by its published size, in which every layer has tensors of its
own. Up to ``passthrough_numel`` numbers it is kept: gains, scales, mixes, gates and β as
``control`` says, the rest in float16. Beyond, matrices, projections and embeddings become integer
codes with a float16 scale per row, and gains, scales, mixes, gates and β are as
``large_control`` says.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainer.compress import QUANTIZERS, Quantized, containers, dequantize, gptq
from trainer.compress.containers import CODES, SCALE, SIX_BIT, is_stacked
from trainer.compress.int8_row import int8_vectors
from trainer.compress.pruning import prune
from trainer.config import Quantization
from trainer.optim.parameter_kinds import kind_of

Method = str | torch.dtype
"""The quantizer of a parameter, or the type in which it is kept."""

VECTORS = "int8_vectors"
_DTYPES = {"float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True, slots=True)
class Packed:
    """The container that the artifact is compressed from, and what was done for it.

    ``pruned_data`` is the artifact where it was pruned to a size, which only compressing tells.
    ``floored_rows`` is the fraction of quantized rows at the scale floor, ``floored_parts`` that of
    each matrix of a quantized parameter; ``pruned_codes`` how many codes were set to zero to meet a
    size; ``gptq_fallbacks`` how many matrices GPTQ left to int6_row, for want of a Hessian or of
    its inverse. None where there was nothing to count.
    """

    plain: bytes
    floored_rows: float | None
    pruned_data: bytes | None = None
    pruned_codes: int | None = None
    gptq_fallbacks: int | None = None
    floored_parts: Mapping[str, Sequence[float]] = field(default_factory=dict)


def pack(
    weights: Mapping[str, Tensor],
    config: Quantization,
    recipe_hash: str,
    *,
    code_bytes: int = 0,
    hessians: Mapping[str, Tensor] | None = None,
    beat: Callable[[], None] = lambda: None,
) -> Packed:
    """``weights`` quantized, in their container; :func:`contained_weights` gives what they became.

    ``hessians[name][i]`` is that of matrix i of the parameter ``name``. ``code_bytes`` count
    against ``prune_to_bytes``. ``beat`` is called before each matrix and each compression: pruning
    may need some twenty, and nothing else compresses here.
    """
    methods = {name: _method(name, weight.shape, config) for name, weight in weights.items()}
    tensors: dict[str, Tensor] = {}
    quantized: dict[str, list[Quantized]] = {}
    for name, method in methods.items():
        w = weights[name].detach().float().cpu()
        if isinstance(method, torch.dtype):
            tensors[name] = w.to(method)
            continue
        parts = _quantize(w, method, config, (hessians or {}).get(name), beat)
        tensors[name + CODES] = torch.stack([part.codes_RC for part in parts]).view(w.shape)
        tensors[name + SCALE] = torch.stack([part.scale_R for part in parts]).view(w.shape[:-1])
        quantized[name] = parts

    def write(candidate: Mapping[str, Tensor]) -> bytes:
        beat()
        return containers.write(candidate, recipe_hash=recipe_hash, config=config)

    pruned_data, pruned_codes = None, None
    if config.prune_to_bytes is None:
        plain = containers.contain(tensors, recipe_hash, config)
    else:
        six_bit = [name for name in quantized if methods[name] in SIX_BIT]
        max_bytes = config.prune_to_bytes - code_bytes
        pruned_data, pruned_codes = prune(tensors, six_bit, write, max_bytes)
        plain = containers.decompress(pruned_data, config)
    return Packed(
        plain=plain,
        pruned_data=pruned_data,
        floored_rows=_floored_rows([part for parts in quantized.values() for part in parts]),
        pruned_codes=pruned_codes,
        gptq_fallbacks=_fallbacks(quantized, methods),
        floored_parts={
            name: [part.floored_rows / len(part.scale_R) for part in parts]
            for name, parts in quantized.items()
        },
    )


def artifact_of(packed: Packed, config: Quantization) -> bytes:
    """The artifact: ``packed`` compressed."""
    if packed.pruned_data is not None:
        return packed.pruned_data
    return containers.compress(packed.plain, config)


def unpack(data: bytes, config: Quantization) -> dict[str, Tensor]:
    """The weights in an artifact, float32 by name."""
    return contained_weights(containers.decompress(data, config), config)


def contained_weights(plain: bytes, config: Quantization) -> dict[str, Tensor]:
    """The weights in a container that is not compressed, float32 by name."""
    return decoded(containers.content(plain, config)[0])


def decoded(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights that the tensors of a container stand for, float32 by name.

    Codes times their scales, and the rest as it is.
    """
    rest, weights = dict(tensors), {}
    for name in [name.removesuffix(CODES) for name in tensors if name.endswith(CODES)]:
        weights[name] = dequantize(rest.pop(name + CODES), rest.pop(name + SCALE))
    return weights | {name: tensor.float() for name, tensor in rest.items()}


def payload_bytes(weights: Mapping[str, Tensor], config: Quantization) -> int:
    """What the tensors of the artifact weigh before container and compression; shapes suffice."""
    total = 0
    for name, weight in weights.items():
        method = _method(name, weight.shape, config)
        if isinstance(method, torch.dtype):
            total += weight.numel() * method.itemsize
        else:
            num_rows = weight.numel() // weight.shape[-1]
            scale = torch.float32 if method == VECTORS else torch.float16
            total += weight.numel() * torch.int8.itemsize + num_rows * scale.itemsize
    return total


def _method(name: str, shape: torch.Size, config: Quantization) -> Method:
    published = shape[1:] if is_stacked(name) else shape
    quantizer = {
        "matrices": config.matrices,
        "projections": config.matrices,
        "embeddings": config.embeddings,
    }.get(kind_of(name))
    if math.prod(published) <= config.passthrough_numel:
        return _DTYPES[config.control] if quantizer is None else torch.float16
    if quantizer is not None:
        return quantizer
    if config.large_control == "float32" or len(published) == 0:
        return torch.float32
    return VECTORS if len(published) == 1 else "int8_row"


def _quantize(
    w: Tensor,
    method: str,
    config: Quantization,
    hessians: Tensor | None,
    beat: Callable[[], None],
) -> list[Quantized]:
    """Every matrix of ``w`` (..., R, C); GPTQ where it has Hessians."""
    if method == VECTORS:
        return [int8_vectors(w.reshape(-1, w.shape[-1]), config)]
    matrices = w.reshape(-1, *w.shape[-2:])
    seen = hessians if method == "gptq" and hessians is not None else [None] * len(matrices)
    parts = []
    for matrix, hessian in zip(matrices, seen, strict=True):
        beat()
        if hessian is not None:
            parts.append(gptq(matrix, config, hessian.float().cpu()))
        else:
            parts.append(QUANTIZERS["int6_row" if method == "gptq" else method](matrix, config))
    return parts


def _floored_rows(parts: Sequence[Quantized]) -> float | None:
    num_rows = sum(len(part.scale_R) for part in parts)
    return sum(part.floored_rows for part in parts) / num_rows if num_rows else None


def _fallbacks(
    quantized: Mapping[str, Sequence[Quantized]], methods: Mapping[str, Method]
) -> int | None:
    parts = [part for name in quantized if methods[name] == "gptq" for part in quantized[name]]
    return sum(not part.compensated for part in parts) if parts else None
