"""Named tensors to bytes and back, as data alone: reading a container executes nothing.

``safetensors`` holds every tensor under its name. ``torch`` is a file of torch.save, as published,
in which every layer has tensors of its own: ``up_bank.codes[3]`` is layer 3 of ``up_bank.codes``.
It is read by the loader of torch that refuses whatever is not a tensor, a number or a text.
"""

import io
import json
import lzma
import re
import zlib
from collections.abc import Callable, Mapping

import safetensors.torch
import torch
from torch import Tensor

from trainer.config import Quantization

CODES, SCALE = ".codes", ".scale"
RECIPE, TENSORS = "recipe_hash", "tensors"
STACKED = ("_bank", "_LH", "_LD", "_L2D", ".layer_scales")


def is_stacked(name: str) -> bool:
    """Whether the parameter ``name`` is a stack over layers, of tensors published one by one."""
    return name.endswith(STACKED)


def write(tensors: Mapping[str, Tensor], recipe_hash: str, config: Quantization) -> bytes:
    """``tensors`` and the hash in the container of ``config``, compressed; the same bytes again."""
    plain = _WRITE[config.container](tensors, recipe_hash)
    return _COMPRESS[config.compressor](plain, config.preset)


def read(data: bytes, config: Quantization) -> tuple[dict[str, Tensor], str]:
    """The tensors in ``data`` and the recipe hash beside them."""
    return _READ[config.container](_DECOMPRESS[config.compressor](data))


def _write_safetensors(tensors: Mapping[str, Tensor], recipe_hash: str) -> bytes:
    return safetensors.torch.save(dict(tensors), metadata={RECIPE: recipe_hash})


def _read_safetensors(plain: bytes) -> tuple[dict[str, Tensor], str]:
    tensors = safetensors.torch.load(plain)
    header_bytes = int.from_bytes(plain[:8], "little")
    return tensors, json.loads(plain[8 : 8 + header_bytes])["__metadata__"][RECIPE]


def _write_torch(tensors: Mapping[str, Tensor], recipe_hash: str) -> bytes:
    parts: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if is_stacked(name.removesuffix(CODES).removesuffix(SCALE)):
            parts |= {f"{name}[{i}]": part for i, part in enumerate(tensor)}
        else:
            parts[name] = tensor
    buffer = io.BytesIO()
    # A clone: torch.save writes the whole storage that a tensor is a view of.
    torch.save({RECIPE: recipe_hash, TENSORS: {k: v.clone() for k, v in parts.items()}}, buffer)
    return buffer.getvalue()


def _read_torch(plain: bytes) -> tuple[dict[str, Tensor], str]:
    content = torch.load(io.BytesIO(plain), map_location="cpu", weights_only=True)
    whole: dict[str, Tensor] = {}
    stacks: dict[str, dict[int, Tensor]] = {}
    for name, tensor in content[TENSORS].items():
        if (part := _PART.fullmatch(name)) is None:
            whole[name] = tensor
        else:
            stacks.setdefault(part[1], {})[int(part[2])] = tensor
    for name, parts in stacks.items():
        whole[name] = torch.stack([parts[i] for i in range(len(parts))])
    return whole, content[RECIPE]


_PART = re.compile(r"(.+)\[(\d+)\]")
_WRITE: dict[str, Callable[[Mapping[str, Tensor], str], bytes]] = {
    "safetensors": _write_safetensors,
    "torch": _write_torch,
}
_READ: dict[str, Callable[[bytes], tuple[dict[str, Tensor], str]]] = {
    "safetensors": _read_safetensors,
    "torch": _read_torch,
}
_COMPRESS: dict[str, Callable[[bytes, int], bytes]] = {
    "lzma": lambda data, preset: lzma.compress(data, preset=preset),
    "zlib": lambda data, preset: zlib.compress(data, preset),
}
_DECOMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "lzma": lzma.decompress,
    "zlib": zlib.decompress,
}
