"""Weights to bytes and back: what is submitted, and what the post-quantization scores are of.

A compressed safetensors file, which is read without executing anything. Matrices and large
embeddings become integer codes with a float16 scale per row, everything else float16.
"""

import json
import lzma
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from trainer.optim import kind_of
from trainer.quantizers import QUANTIZERS, dequantize
from trainer.recipe import Quantization
from trainer.strict import ConfigError

CODES, SCALE, RECIPE = ".codes", ".scale", "recipe_hash"


@dataclass(frozen=True, slots=True)
class Packed:
    """The artifact's bytes; ``floored_rows`` is the fraction of quantized rows at the floor."""

    data: bytes
    floored_rows: float | None


def pack(weights: Mapping[str, Tensor], config: Quantization, recipe_hash: str) -> Packed:
    """``weights`` quantized by kind and compressed; :func:`unpack` gives what they became."""
    tensors: dict[str, Tensor] = {}
    num_rows = num_floored = 0
    for name, weight in weights.items():
        w = weight.detach().float().cpu()
        method = {"matrices": config.matrices, "embeddings": config.embeddings}.get(kind_of(name))
        matrices = w.reshape(-1, *w.shape[-2:]) if w.ndim >= 2 else w
        if method is None or matrices[0].numel() <= config.passthrough_numel:
            tensors[name] = w.half()
            continue
        parts = [QUANTIZERS[method](matrix, config.scale_floor) for matrix in matrices]
        tensors[name + CODES] = torch.stack([part.codes_RC for part in parts]).view(w.shape)
        tensors[name + SCALE] = torch.stack([part.scale_R for part in parts]).view(w.shape[:-1])
        num_rows += tensors[name + SCALE].numel()
        num_floored += sum(part.floored_rows for part in parts)
    plain = save(tensors, metadata={RECIPE: recipe_hash})
    return Packed(
        data=_COMPRESS[config.compressor](plain, config.preset),
        floored_rows=num_floored / num_rows if num_rows else None,
    )


def unpack(data: bytes, config: Quantization, recipe_hash: str) -> dict[str, Tensor]:
    """The weights in ``data``, float32 by name; ConfigError if damaged or of another recipe."""
    try:
        plain = _DECOMPRESS[config.compressor](data)
        tensors = load(plain)
    except (lzma.LZMAError, zlib.error, SafetensorError) as error:
        raise ConfigError(
            f"artifact of {len(data)} bytes: this is not a {config.compressor}-compressed "
            f"safetensors file ({error}). Pack it again."
        ) from None
    found = _metadata(plain).get(RECIPE)
    if found != recipe_hash:
        raise ConfigError(
            f"artifact of recipe {found}: this run's recipe is {recipe_hash}. "
            f"Give the artifact of the same recipe, or the recipe of the artifact."
        )
    quantized = [name.removesuffix(CODES) for name in tensors if name.endswith(CODES)]
    weights = {
        name: dequantize(tensors.pop(name + CODES), tensors.pop(name + SCALE)) for name in quantized
    }
    return weights | {name: tensor.float() for name, tensor in tensors.items()}


def _metadata(plain: bytes) -> dict[str, str]:
    header_bytes = int.from_bytes(plain[:8], "little")
    metadata: dict[str, str] = json.loads(plain[8 : 8 + header_bytes]).get("__metadata__", {})
    return metadata


_COMPRESS: dict[str, Callable[[bytes, int], bytes]] = {
    "lzma": lambda data, preset: lzma.compress(data, preset=preset),
    "zlib": lambda data, preset: zlib.compress(data, preset),
}
_DECOMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "lzma": lzma.decompress,
    "zlib": zlib.decompress,
}
