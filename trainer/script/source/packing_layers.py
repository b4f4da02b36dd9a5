"""Undo and redo one layer of a packed script: a compressor, a base of base64, or a text's codec."""

import base64
import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

MAX_BYTES = 16 << 20  # of a text that is unpacked: a few KB can hold gigabytes
MAX_MEMORY = 256 << 20

Data = str | bytes


@dataclass(frozen=True, slots=True)
class Layer:
    """``undo`` is what the script does, ``redo`` what its author did, as strongly as can be."""

    undo: Callable[[Any], Data]
    redo: Callable[[Data], Data]


def text_layer(method: str, codec: str) -> Layer:
    """``.decode(codec)`` or ``.encode(codec)``."""
    if method == "decode":
        return Layer(lambda data: str(data, codec), lambda data: as_text(data).encode(codec))
    return Layer(lambda data: bytes(data, codec), lambda data: as_bytes(data).decode(codec))


def _base(name: str) -> Callable[[], Layer]:
    decode, encode = getattr(base64, f"{name}decode"), getattr(base64, f"{name}encode")
    return lambda: Layer(decode, lambda data: encode(as_bytes(data)))


def _lzma(
    format: int = lzma.FORMAT_AUTO,
    memlimit: int | None = None,
    filters: list[dict[str, Any]] | None = None,
) -> Layer:
    limit = None if format == lzma.FORMAT_RAW else MAX_MEMORY
    kind = lzma.FORMAT_XZ if format == lzma.FORMAT_AUTO else format
    of_kind = lzma.FILTER_LZMA1 if kind == lzma.FORMAT_ALONE else lzma.FILTER_LZMA2

    def redo(data: Data) -> bytes:
        chain = [_strong(each, len(data)) for each in filters or [{"id": of_kind}]]
        return lzma.compress(as_bytes(data), kind, filters=chain)

    return Layer(_bounded(lambda: lzma.LZMADecompressor(format, limit, filters)), redo)


def _strong(given: Mapping[str, Any], size: int) -> Mapping[str, Any]:
    """What a filter leaves open, as strong as can be; the script need not be told. A dictionary
    larger than the text would take 700 MB for nothing.
    """
    if given["id"] not in (lzma.FILTER_LZMA1, lzma.FILTER_LZMA2):
        return given
    return {"preset": 9 | lzma.PRESET_EXTREME, "dict_size": max(4096, 4 * size), **given}


def _zlib(wbits: int = zlib.MAX_WBITS, bufsize: int = 0) -> Layer:
    packed_with = wbits or zlib.MAX_WBITS
    packed_with -= 32 if packed_with >= 40 else 0  # 32 + n takes zlib's header and gzip's

    def redo(data: Data) -> bytes:
        packer = zlib.compressobj(9, zlib.DEFLATED, packed_with)
        return packer.compress(as_bytes(data)) + packer.flush()

    return Layer(_bounded(lambda: zlib.decompressobj(wbits)), redo)


def _bz2() -> Layer:
    return Layer(_bounded(bz2.BZ2Decompressor), lambda data: bz2.compress(as_bytes(data)))


def _gzip() -> Layer:
    return Layer(
        _bounded(lambda: zlib.decompressobj(16 + zlib.MAX_WBITS)),
        lambda data: gzip.compress(as_bytes(data), mtime=0),
    )


def _bounded(decompressor: Callable[[], Any]) -> Callable[[bytes], bytes]:
    def undo(data: bytes) -> bytes:
        unpacker = decompressor()
        try:
            result: bytes = unpacker.decompress(data, MAX_BYTES + 1)
        except (lzma.LZMAError, zlib.error) as error:
            raise ValueError(error) from None
        if len(result) > MAX_BYTES:
            raise ValueError(f"it holds more than {MAX_BYTES:,} bytes")
        if not unpacker.eof or unpacker.unused_data.strip():
            raise ValueError("it ends too early or too late")
        return result

    return undo


def as_bytes(data: Data) -> bytes:
    return data.encode() if isinstance(data, str) else data


def as_text(data: Data) -> str:
    return data if isinstance(data, str) else data.decode()


LAYERS: Mapping[str, Callable[..., Layer]] = {
    "lzma.decompress": _lzma,
    "zlib.decompress": _zlib,
    "bz2.decompress": _bz2,
    "gzip.decompress": _gzip,
    "base64.b85decode": _base("b85"),
    "base64.a85decode": _base("a85"),
    "base64.b64decode": _base("b64"),
    "base64.b32decode": _base("b32"),
}
OPTIONS = {"lzma.decompress": ("format", "memlimit", "filters"), "zlib.decompress": ("wbits",)}
MODULES: Mapping[str, ModuleType] = {
    module.__name__: module for module in (base64, bz2, gzip, lzma, zlib)
}
