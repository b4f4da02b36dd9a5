"""Which tokens does each micro-step train on?

Every order is the same for every seed and every number of ranks. B sequences, T tokens.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor, from_numpy

from trainer.config.config_errors import ConfigError
from trainer.config.data import Data
from trainer.config.training import Train
from trainer.data.coprime import CoprimeLoader, seed_names
from trainer.data.manifest import Dataset
from trainer.data.rank_share import Share
from trainer.data.shards import WatchedShard


class Loader(Protocol):
    """One rank's share of an endless order of tokens."""

    @property
    def position(self) -> int:
        """How far all ranks together have read; what it counts is the loader's own affair."""

    def seek(self, position: int) -> None:
        """Continue as the loader did that had this ``position``."""

    def next_batch(self) -> list[tuple[Tensor, Tensor]]:
        """This rank's micro-steps of the next optimizer step, each as int64 (x_BT, y_BT)."""

    def calibration(self, num_calls: int) -> Iterator[Tensor]:
        """The first ``num_calls`` inputs x_BT of virtual rank 0, from the start of the order.

        The same on every rank; this loader's own position stays.
        """


def open_loader(
    dataset: Dataset, data: Data, train: Train, *, rank: int, world_size: int
) -> Loader:
    """The loader that a recipe's ``[data]`` names, over the training shards of ``dataset``."""
    share = Share(
        batch_tokens=train.batch_tokens,
        seq_len=train.seq_len,
        micro_steps=train.micro_steps,
        virtual_world=data.virtual_world,
        rank=rank,
        world_size=world_size,
    )
    if data.loader == "coprime":
        names = seed_names(data, [path.name for path in dataset.train_paths])
        return CoprimeLoader(dataset.train_paths, names, share, data.coprime)
    return SequentialLoader(dataset.train_paths, share)


class SequentialLoader:
    """The published sequential order: one cursor over all shards in their order, round and round.

    An optimizer step takes ``micro_steps`` spans of L + 1 tokens, L = batch_tokens / micro_steps;
    the inputs are a span without its last token, the targets without its first. The next span
    starts behind that extra token, so a span's last target is never an input. With W ranks, rank r
    computes spans r, W + r, 2W + r, …: every world size trains on the same spans.
    """

    def __init__(self, paths: Sequence[Path], share: Share) -> None:
        self._shards = [shard for shard in map(WatchedShard, paths) if shard.size]
        self._ends = np.cumsum([shard.size for shard in self._shards], dtype=np.int64)
        if self.num_tokens < 2:
            raise ConfigError(
                f"the {len(paths)} training shards hold {self.num_tokens} tokens, and a prediction "
                f"needs at least 2. `make data` builds a dataset."
            )
        self._share = share
        self._span_len = share.micro_tokens + 1
        self._position = 0

    @property
    def num_tokens(self) -> int:
        """Tokens in one round over the shards."""
        return int(self._ends[-1]) if self._shards else 0

    @property
    def position(self) -> int:
        """Tokens that all ranks together have taken so far; grows past ``num_tokens``."""
        return self._position

    def seek(self, position: int) -> None:
        """Continue as the loader did that had this ``position``."""
        if position < 0:
            raise ValueError(f"position {position}: a loader starts at 0")
        self._position = position

    def next_batch(self) -> list[tuple[Tensor, Tensor]]:
        """This rank's spans of the next optimizer step, as int64 (x_BT, y_BT) with B·T = L."""
        start = self._position
        self._position += self._share.micro_steps * self._span_len
        return [self._pair(start + span * self._span_len) for span in self._share.mine]

    def calibration(self, num_calls: int) -> Iterator[Tensor]:
        """Inputs x_BT of the spans 0, V, 2V, … from the start, V the virtual world."""
        for call in range(num_calls):
            x_BT, _ = self._pair(call * self._share.virtual_world * self._span_len)
            yield x_BT

    def _pair(self, start: int) -> tuple[Tensor, Tensor]:
        span = from_numpy(self._read(start, self._span_len))
        seq_len = self._share.seq_len
        return span[:-1].view(-1, seq_len), span[1:].view(-1, seq_len)

    def _read(self, start: int, count: int) -> npt.NDArray[np.int64]:
        tokens = np.empty(count, np.int64)
        filled = 0
        while filled < count:
            where = (start + filled) % self.num_tokens
            index = int(np.searchsorted(self._ends, where, side="right"))
            shard = self._shards[index]
            begin = where - (int(self._ends[index]) - shard.size)
            piece = shard[begin : begin + count - filled]
            tokens[filled : filled + piece.size] = piece
            filled += piece.size
        return tokens
