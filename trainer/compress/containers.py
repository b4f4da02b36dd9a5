"""Named tensors to bytes and back, as data alone: reading a container executes nothing.

``safetensors`` holds every tensor under its name, a bank as one. The other two are files of
torch.save as published, with the names and the order of ``layout``: ``int8_clean_per_row_v1`` is
PR #1035's, after the tag that it carries; ``w_m`` is that of PR #549 and its descendants, after the
keys of its two tables. They are read by the loader of torch that refuses whatever is not a tensor,
a number or a text.
"""

import io
import json
import lzma
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from trainer.compress.layout import join, split
from trainer.config import Quantization
from trainer.optim.parameter_kinds import kind_of

CODES, SCALE = ".codes", ".scale"
RECIPE = "recipe_hash"
SIX_BIT = ("int6_row", "gptq")
STACKED = ("_bank", "_LH", "_LD", "_L2D", ".layer_scales")


def is_stacked(name: str) -> bool:
    """Whether the parameter ``name`` is a stack over layers, of tensors published one by one."""
    return name.endswith(STACKED)


def write(tensors: Mapping[str, Tensor], recipe_hash: str | None, config: Quantization) -> bytes:
    """``tensors`` in the container of ``config``, compressed; the same bytes every time.

    A quantized parameter has its codes under its name and ``CODES``, its scales under its name and
    ``SCALE``; another lies under its name. The published containers have no place for the hash.
    """
    return compress(contain(tensors, recipe_hash, config), config)


def read(data: bytes, config: Quantization) -> tuple[dict[str, Tensor], str | None]:
    """The tensors in ``data``, which :func:`write` made, and the recipe hash if it is there."""
    return content(decompress(data, config), config)


def contain(tensors: Mapping[str, Tensor], recipe_hash: str | None, config: Quantization) -> bytes:
    """What :func:`write` compresses."""
    return _WRITE[config.container](tensors, recipe_hash, config)


def content(plain: bytes, config: Quantization) -> tuple[dict[str, Tensor], str | None]:
    """What :func:`read` gives, of a container that is not compressed."""
    return _READ[config.container](plain)


def compress(plain: bytes, config: Quantization) -> bytes:
    return _COMPRESS[config.compressor](plain, config.preset)


def decompress(data: bytes, config: Quantization) -> bytes:
    return _DECOMPRESS[config.compressor](data)


def _write_safetensors(
    tensors: Mapping[str, Tensor], recipe_hash: str | None, config: Quantization
) -> bytes:
    metadata = {} if recipe_hash is None else {RECIPE: recipe_hash}
    return safetensors.torch.save(dict(tensors), metadata=metadata)


def _read_safetensors(plain: bytes) -> tuple[dict[str, Tensor], str | None]:
    tensors = safetensors.torch.load(plain)
    header_bytes = int.from_bytes(plain[:8], "little")
    return tensors, json.loads(plain[8 : 8 + header_bytes]).get("__metadata__", {}).get(RECIPE)


def _write_w_m(
    tensors: Mapping[str, Tensor], recipe_hash: str | None, config: Quantization
) -> bytes:
    w: dict[str, Tensor] = {}
    m: dict[str, object] = {}
    for part in split(_by_parameter(tensors), banked=True):
        name, parameter = part.name, part.parameter
        if parameter + CODES in tensors:
            w[f"{name}.q"] = part.of(tensors[parameter + CODES])
            w[f"{name}.scale"] = part.of(tensors[parameter + SCALE])
            m[name] = {"type": "int6" if _has_six_bits(parameter, config) else "int8"}
        else:
            w[name] = part.of(tensors[parameter])
            m[name] = "passthrough"
    return _torch_file({"w": w, "m": m})


def _read_w_m(plain: bytes) -> tuple[dict[str, Tensor], None]:
    content = _load_torch_file(plain)
    w, m = content["w"], content["m"]
    quantized = [name for name, how in m.items() if how != "passthrough"]
    codes = {name: w[f"{name}.q"] for name in quantized}
    scales = {name: w[f"{name}.scale"] for name in quantized}
    kept = {name: w[name] for name in m if name not in codes}
    return _parameters(codes, scales, kept, banked=True), None


def _write_int8_clean(
    tensors: Mapping[str, Tensor], recipe_hash: str | None, config: Quantization
) -> bytes:
    codes, scales, dtypes, qmeta = {}, {}, {}, {}
    kept, dtypes_of_kept = {}, {}
    for part in split(_by_parameter(tensors), banked=False):
        name, parameter = part.name, part.parameter
        was = torch.bfloat16 if kind_of(parameter) == "embeddings" else torch.float32
        # A text of its own each time, as published: pickle writes again what is another object.
        dtype = str(was).removeprefix("torch.")
        if parameter + CODES in tensors:
            codes[name] = part.of(tensors[parameter + CODES])
            scales[name] = part.of(tensors[parameter + SCALE])
            dtypes[name] = dtype
            if codes[name].ndim == 2:
                qmeta[name] = {"scheme": "per_row", "axis": 0}
        else:
            kept[name] = part.of(tensors[parameter])
            if kept[name].dtype == torch.float16:
                dtypes_of_kept[name] = dtype
    content = {
        "__quant_format__": "int8_clean_per_row_v1",
        "quantized": codes,
        "scales": scales,
        "dtypes": dtypes,
        "passthrough": kept,
    }
    optional = {"qmeta": qmeta, "passthrough_orig_dtypes": dtypes_of_kept}
    return _torch_file(content | {key: table for key, table in optional.items() if table})


def _read_int8_clean(plain: bytes) -> tuple[dict[str, Tensor], None]:
    content = _load_torch_file(plain)
    tables = (content[key] for key in ("quantized", "scales", "passthrough"))
    return _parameters(*tables, banked=False), None


def _by_parameter(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the container holds of each parameter: its codes, or itself."""
    scales = {name.removesuffix(CODES) + SCALE for name in tensors if name.endswith(CODES)}
    kept = {name: tensor for name, tensor in tensors.items() if name not in scales}
    return {name.removesuffix(CODES): tensor for name, tensor in kept.items()}


def _parameters(
    codes: Mapping[str, Tensor],
    scales: Mapping[str, Tensor],
    kept: Mapping[str, Tensor],
    *,
    banked: bool,
) -> dict[str, Tensor]:
    """The tensors as :func:`write` was given them."""
    return {
        **{name + CODES: tensor for name, tensor in join(codes, banked=banked).items()},
        **{name + SCALE: tensor for name, tensor in join(scales, banked=banked).items()},
        **join(kept, banked=banked),
    }


def _has_six_bits(parameter: str, config: Quantization) -> bool:
    kind = kind_of(parameter)
    method = config.embeddings if kind == "embeddings" else config.matrices
    return kind in ("matrices", "projections", "embeddings") and method in SIX_BIT


def _torch_file(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _load_torch_file(plain: bytes) -> Any:
    return torch.load(io.BytesIO(plain), map_location="cpu", weights_only=True)


Write = Callable[[Mapping[str, Tensor], str | None, Quantization], bytes]
_WRITE: dict[str, Write] = {
    "safetensors": _write_safetensors,
    "int8_clean_per_row_v1": _write_int8_clean,
    "w_m": _write_w_m,
}
_READ: dict[str, Callable[[bytes], tuple[dict[str, Tensor], str | None]]] = {
    "safetensors": _read_safetensors,
    "int8_clean_per_row_v1": _read_int8_clean,
    "w_m": _read_w_m,
}
_COMPRESS: dict[str, Callable[[bytes, int], bytes]] = {
    "lzma": lambda data, preset: lzma.compress(data, preset=preset),
    "zlib": lambda data, preset: zlib.compress(data, preset),
}
_DECOMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "lzma": lzma.decompress,
    "zlib": zlib.decompress,
}
