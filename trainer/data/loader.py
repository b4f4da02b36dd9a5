"""Which tokens does each micro-step train on?

The published sequential scheme: one cursor over all shards in their order, round and round. The
order depends on neither seed nor world size. B sequences, T tokens, S spans of one optimizer step.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from trainer.data.shards import open_shard
from trainer.strict import ConfigError


class SequentialLoader:
    """One rank's share of an endless token stream.

    An optimizer step takes ``micro_steps`` spans of L + 1 tokens, L = batch_tokens / micro_steps;
    the inputs are a span without its last token, the targets without its first. The next span
    starts behind that extra token, so a span's last target is never an input. With W ranks, rank r
    computes spans r, W + r, 2W + r, …: every world size trains on the same spans.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        batch_tokens: int,
        seq_len: int,
        micro_steps: int,
        rank: int,
        world_size: int,
    ) -> None:
        _check_division(batch_tokens, seq_len, micro_steps, world_size)
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} of {world_size}: ranks are numbered from 0")
        self._shards = [shard for shard in map(open_shard, paths) if shard.size]
        self._ends = np.cumsum([shard.size for shard in self._shards], dtype=np.int64)
        if self.num_tokens < 2:
            raise ConfigError(
                f"the {len(paths)} training shards hold {self.num_tokens} tokens, and a prediction "
                f"needs at least 2. `make data` builds a dataset."
            )
        self._seq_len = seq_len
        self._span_len = batch_tokens // micro_steps + 1
        self._micro_steps = micro_steps
        self._mine = range(rank, micro_steps, world_size)
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

    def next_batch(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """This rank's spans of the next optimizer step, as int64 (x_BT, y_BT) with B·T = L."""
        start = self._position
        self._position += self._micro_steps * self._span_len
        return [self._pair(start + span * self._span_len) for span in self._mine]

    def _pair(self, start: int) -> tuple[torch.Tensor, torch.Tensor]:
        span = torch.from_numpy(self._read(start, self._span_len))
        return span[:-1].view(-1, self._seq_len), span[1:].view(-1, self._seq_len)

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


def _check_division(batch_tokens: int, seq_len: int, micro_steps: int, world_size: int) -> None:
    if batch_tokens % (micro_steps * seq_len):
        raise ConfigError(
            f"batch_tokens {batch_tokens} is not divisible by micro_steps {micro_steps} x seq_len "
            f"{seq_len}: every micro-step holds a whole number of sequences."
        )
    if micro_steps % world_size:
        raise ConfigError(
            f"{world_size} ranks cannot share micro_steps = {micro_steps} evenly. Start a number "
            f"of ranks that divides it, or choose a multiple of the ranks: "
            f"--set train.micro_steps={-(-micro_steps // world_size) * world_size}."
        )
