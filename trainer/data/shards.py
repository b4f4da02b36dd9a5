"""How do tokens lie on the disk?

A shard is 256 little-endian int32 (magic, version, number of tokens, zeros) and then the tokens as
little-endian uint16, nothing else: 1024 + 2 · count bytes. This is the published format. N tokens.
"""

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer.files import write_atomically
from trainer.strict import ConfigError

MAGIC = 20240520
VERSION = 1
HEADER_BYTES = 1024
TOKEN_BYTES = 2
MAX_TOKENS = 2**31 - 1  # the count is an int32
RESTORE = "`make data` rebuilds what was built here; fetch again what was made elsewhere."

_FIELDS = struct.Struct("<3i")
_TOKEN = np.dtype("<u2")


def write_shard(path: Path, tokens_N: npt.ArrayLike) -> None:
    """Put the tokens into ``path``, whole or not at all; ValueError if one does not fit 16 bits."""
    given_N = np.asarray(tokens_N)
    if given_N.ndim != 1 or given_N.size > MAX_TOKENS:
        raise ValueError(
            f"a shard holds one row of at most {MAX_TOKENS} tokens, got {given_N.shape}"
        )
    tokens_N = given_N.astype(_TOKEN)
    if not np.array_equal(tokens_N, given_N):
        raise ValueError(
            f"a token is an integer from 0 to 65535, got {given_N.min()} to {given_N.max()}"
        )
    header = _FIELDS.pack(MAGIC, VERSION, tokens_N.size).ljust(HEADER_BYTES, b"\0")
    write_atomically(path, header, tokens_N.data)


def open_shard(path: Path) -> npt.NDArray[np.uint16]:
    """The tokens (N,) of ``path``, mapped read-only; ConfigError unless the file is whole."""
    count = _read_count(path)
    if count == 0:
        return np.empty(0, _TOKEN)  # an empty range cannot be mapped
    return np.memmap(path, dtype=_TOKEN, mode="r", offset=HEADER_BYTES, shape=(count,))


def load_stream(paths: Sequence[Path]) -> npt.NDArray[np.uint16]:
    """The tokens (N,) of all ``paths`` in their order, in memory."""
    return np.concatenate([np.empty(0, _TOKEN), *(open_shard(path) for path in paths)])


def _read_count(path: Path) -> int:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            header = file.read(HEADER_BYTES)
    except OSError as error:
        raise _unusable(path, f"it cannot be read ({error.strerror})", "a token shard") from None
    if len(header) < HEADER_BYTES:
        raise _unusable(path, f"found {size} bytes", f"a header of {HEADER_BYTES} bytes")
    magic, version, count = _FIELDS.unpack_from(header)
    if magic != MAGIC:
        raise _unusable(path, f"found magic number {magic}", f"{MAGIC} (this is no token shard)")
    if version != VERSION:
        raise _unusable(path, f"found version {version}", f"version {VERSION}")
    if count < 0:
        raise _unusable(path, f"found a count of {count} tokens", "a count of 0 or more")
    expected = HEADER_BYTES + TOKEN_BYTES * count
    if size != expected:
        kind = "it is truncated" if size < expected else "it is too long"
        raise _unusable(path, f"{kind}: found {size} bytes", f"{expected} for {count} tokens")
    return int(count)


def _unusable(path: Path, found: str, expected: str) -> ConfigError:
    return ConfigError(f"shard {path}: {found}, expected {expected}. {RESTORE}")
