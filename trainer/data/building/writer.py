"""How does a stream of tokens become shards without ever being in memory as a whole? N tokens."""

import os
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from trainer.data.manifest import Shard
from trainer.data.shards import HEADER_BYTES, shard_header
from trainer.files import file_sha256


class ShardWriter:
    """Writes ``folder/prefix_000000.bin`` and so on, each of ``shard_tokens`` but the last.

    For a folder that nobody reads yet: a shard has no header until it is complete. Documents go on
    from one shard to the next, as in the published export.
    """

    def __init__(self, folder: Path, prefix: str, shard_tokens: int) -> None:
        self._folder = folder
        self._prefix = prefix
        self._shard_tokens = shard_tokens
        self._file: BinaryIO | None = None
        self._path = folder
        self._num_tokens = 0  # in the open file
        self.shards: list[Shard] = []

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._complete()
        elif self._file is not None:
            self._file.close()

    def append(self, tokens_N: npt.NDArray[np.uint16]) -> None:
        """The next tokens of the stream."""
        while tokens_N.size:
            if self._file is None:
                self._begin()
            assert self._file is not None
            part = tokens_N[: self._shard_tokens - self._num_tokens]
            self._file.write(part.astype("<u2", copy=False).data)
            self._num_tokens += part.size
            tokens_N = tokens_N[part.size :]
            if self._num_tokens == self._shard_tokens:
                self._complete()

    def _begin(self) -> None:
        self._path = self._folder / f"{self._prefix}_{len(self.shards):06d}.bin"
        self._file = self._path.open("xb")
        self._file.write(bytes(HEADER_BYTES))

    def _complete(self) -> None:
        """Give the open file its header and make it durable."""
        if self._file is None:
            return
        with self._file:
            self._file.seek(0)
            self._file.write(shard_header(self._num_tokens))
            self._file.flush()
            os.fsync(self._file.fileno())
        self.shards.append(
            Shard(
                name=self._path.name,
                num_tokens=self._num_tokens,
                sha256=file_sha256(self._path),
            )
        )
        self._file, self._num_tokens = None, 0
