"""Read and write token shards: a 1024-byte header, then little-endian uint16 tokens.

A shard is 256 little-endian int32 (magic, version, number of tokens, zeros) and then the tokens as
little-endian uint16, nothing else: 1024 + 2 · count bytes. This is the published format. N tokens.
"""

import struct
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer.config.config_errors import ConfigError
from trainer.files import write_atomically

MAGIC = 20240520
VERSION = 1
HEADER_BYTES = 1024
TOKEN_BYTES = 2
MAX_TOKENS = 2**31 - 1  # the count is an int32
RESTORE = "`make data` rebuilds what was built here; fetch again what was made elsewhere."

CHECK_EVERY_S = 1.0

_FIELDS = struct.Struct("<3i")
_TOKEN = np.dtype("<u2")


def write_shard(path: Path, tokens_N: npt.ArrayLike) -> None:
    """Put the tokens, each of 16 bits, into ``path``, whole or not at all."""
    tokens_N = np.asarray(tokens_N).astype(_TOKEN)
    write_atomically(path, shard_header(tokens_N.size), tokens_N.data)


def shard_header(num_tokens: int) -> bytes:
    """What stands before so many tokens."""
    return _FIELDS.pack(MAGIC, VERSION, num_tokens).ljust(HEADER_BYTES, b"\0")


def open_shard(path: Path) -> npt.NDArray[np.uint16]:
    """The tokens (N,) of ``path``, mapped read-only; ConfigError unless the file is whole."""
    count = _read_count(path)
    if count == 0:
        return np.empty(0, _TOKEN)  # an empty range cannot be mapped
    return np.memmap(path, dtype=_TOKEN, mode="r", offset=HEADER_BYTES, shape=(count,))


class WatchedShard:
    """A shard that a run reads from for hours; ConfigError if its file does not stay what it was.

    A map goes on showing a file that was removed, and shows whatever is written into it. So the
    file's place, size and time are looked at before a reading, at most every ``CHECK_EVERY_S``
    seconds: a look takes 5 µs on a local disk, finding that none is due 0.4 µs, and a window of
    2,048 tokens 5 µs. Between two looks a file that is cut short ends the process with a bus error.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = _identity(path)
        self._tokens_N = open_shard(path)
        self._check()

    @property
    def size(self) -> int:
        return self._tokens_N.size

    def __getitem__(self, span: slice) -> npt.NDArray[np.uint16]:
        """The tokens of ``span``."""
        if time.monotonic() - self._checked_at_s >= CHECK_EVERY_S:
            self._check()
        return self._tokens_N[span]

    def _check(self) -> None:
        if (found := _identity(self._path)) != self._seen:
            what = f"its size, time or place changed from {self._seen} to {found}"
            raise _unusable(self._path, f"{what} while it was read", "the file as it was opened")
        self._checked_at_s = time.monotonic()


def load_stream(paths: Sequence[Path]) -> npt.NDArray[np.uint16]:
    """The tokens (N,) of all ``paths`` in their order, in memory."""
    return np.concatenate([np.empty(0, _TOKEN), *(open_shard(path) for path in paths)])


def _identity(path: Path) -> tuple[int, int, int, int]:
    """What changes if anything is written to a file or put in its place: size, time and place."""
    try:
        found = path.stat()
    except OSError as error:
        raise _unusable(path, f"it cannot be read ({error.strerror})", "a token shard") from None
    return found.st_size, found.st_mtime_ns, found.st_dev, found.st_ino


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
