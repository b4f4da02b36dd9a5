"""Load the token batches of an optimizer step, rank by rank: the sequential and the coprime loader.

Every order is the same for every seed and every number of ranks. B sequences, T tokens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor, from_numpy

from trainer.config.config_errors import ConfigError
from trainer.config.data import Coprime, Data
from trainer.config.training import Train
from trainer.data.coprime import CoprimeOrder, Window, seed_names, seed_of
from trainer.data.manifest import Dataset
from trainer.data.shards import WatchedShard


class Loader(Protocol):
    """One rank's part of an endless order of tokens."""

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
    layout = BatchLayout(
        batch_tokens=train.batch_tokens,
        seq_len=train.seq_len,
        micro_steps=train.micro_steps,
        virtual_world=data.virtual_world,
        rank=rank,
        world_size=world_size,
    )
    if data.loader == "coprime":
        names = seed_names(data, [path.name for path in dataset.train_paths])
        return CoprimeLoader(dataset.train_paths, names, layout, data.coprime)
    return SequentialLoader(dataset.train_paths, layout)


@dataclass(frozen=True, kw_only=True)
class BatchLayout:
    """How an optimizer step is divided: ``rank`` of ``world_size`` computes every W-th micro-step.

    A step takes ``batch_tokens`` in ``micro_steps`` equal parts of whole sequences of ``seq_len``;
    rank r of W computes the parts r, W + r, 2W + r, … ``virtual_world`` is the number of ranks that
    the order of the data is made for. It has no say in who computes what.
    """

    batch_tokens: int
    seq_len: int
    micro_steps: int
    virtual_world: int
    rank: int
    world_size: int

    def __post_init__(self) -> None:
        if self.micro_steps % self.world_size:
            fitting = -(-self.micro_steps // self.world_size) * self.world_size
            raise ConfigError(
                f"{self.world_size} ranks cannot share micro_steps = {self.micro_steps} evenly. "
                f"Start a number of ranks that divides it, or choose a multiple of the ranks: "
                f"--set train.micro_steps={fitting}."
            )

    @property
    def micro_tokens(self) -> int:
        """Predictions of one micro-step."""
        return self.batch_tokens // self.micro_steps

    @property
    def rank_micro_steps(self) -> range:
        """The numbers of this rank's micro-steps within a step."""
        return range(self.rank, self.micro_steps, self.world_size)


class SequentialLoader:
    """The published sequential order: one cursor over all shards in their order, round and round.

    An optimizer step takes ``micro_steps`` spans of L + 1 tokens, L = batch_tokens / micro_steps;
    the inputs are a span without its last token, the targets without its first. The next span
    starts behind that extra token, so a span's last target is never an input. With W ranks, rank r
    computes spans r, W + r, 2W + r, …: every world size trains on the same spans.
    """

    def __init__(self, paths: Sequence[Path], layout: BatchLayout) -> None:
        self._shards = [shard for shard in map(WatchedShard, paths) if shard.size]
        self._ends = np.cumsum([shard.size for shard in self._shards], dtype=np.int64)
        self._layout = layout
        self._span_len = layout.micro_tokens + 1
        self._position = 0

    @property
    def num_tokens(self) -> int:
        """Tokens in one round over the shards."""
        return int(self._ends[-1])

    @property
    def position(self) -> int:
        """Tokens that all ranks together have taken so far; grows past ``num_tokens``."""
        return self._position

    def seek(self, position: int) -> None:
        """Continue as the loader did that had this ``position``."""
        self._position = position

    def next_batch(self) -> list[tuple[Tensor, Tensor]]:
        """This rank's spans of the next optimizer step, as int64 (x_BT, y_BT) with B·T = L."""
        start = self._position
        self._position += self._layout.micro_steps * self._span_len
        return [self._pair(start + span * self._span_len) for span in self._layout.rank_micro_steps]

    def calibration(self, num_calls: int) -> Iterator[Tensor]:
        """Inputs x_BT of the spans 0, V, 2V, … from the start, V the virtual world."""
        for call in range(num_calls):
            x_BT, _ = self._pair(call * self._layout.virtual_world * self._span_len)
            yield x_BT

    def _pair(self, start: int) -> tuple[Tensor, Tensor]:
        span = from_numpy(self._read(start, self._span_len))
        seq_len = self._layout.seq_len
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


class CoprimeLoader:
    """One rank's part of the coprime order, which is drawn for V = ``layout.virtual_world`` ranks.

    A call draws the windows of one micro-step of every virtual rank; virtual rank v has the windows
    v, V + v, 2V + v, … of it. An optimizer step is micro_steps / V calls, its micro-steps are
    numbered call · V + v, and rank r of W computes those r, W + r, 2W + r, …: every world size
    trains on the same windows, and another V on others.

    Every rank draws the whole order and reads its own windows of it. :meth:`seek` makes the draws
    of the calls before it: those of 7,000 steps of 384 windows over 80 shards of 10⁸ tokens take
    8 s for V = 8 and 30 s for V = 1, which has eight times the calls.
    """

    def __init__(
        self, paths: Sequence[Path], names: Sequence[str], layout: BatchLayout, mixing: Coprime
    ) -> None:
        self._shards = [WatchedShard(path) for path in paths]
        sizes = [shard.size for shard in self._shards]
        _check_eligible(sizes, layout.seq_len)
        self._layout = layout
        self._order = CoprimeOrder(
            num_tokens=tuple(sizes),
            seed=seed_of(names),
            seq_len=layout.seq_len,
            call_windows=layout.micro_tokens // layout.seq_len * layout.virtual_world,
            virtual_world=layout.virtual_world,
            mixing=mixing,
        )
        self.seek(0)

    @property
    def position(self) -> int:
        """Calls drawn so far."""
        return self._position

    def seek(self, position: int) -> None:
        """Continue as the loader did that had this ``position``."""
        self._position = position
        self._calls = self._order.calls()
        next(islice(self._calls, position, position), None)  # draws those before

    def next_batch(self) -> list[tuple[Tensor, Tensor]]:
        """This rank's micro-steps of the next optimizer step, as int64 (x_BT, y_BT), T = L."""
        num_virtual = self._layout.virtual_world
        calls = list(islice(self._calls, self._layout.micro_steps // num_virtual))
        self._position += len(calls)
        return [
            self._pair(calls[number // num_virtual][number % num_virtual :: num_virtual])
            for number in self._layout.rank_micro_steps
        ]

    def calibration(self, num_calls: int) -> Iterator[Tensor]:
        """Inputs x_BT of virtual rank 0 in the first calls of a fresh order."""
        for windows in islice(self._order.calls(), num_calls):
            x_BT, _ = self._pair(windows[:: self._layout.virtual_world])
            yield x_BT

    def _pair(self, windows: Sequence[Window]) -> tuple[Tensor, Tensor]:
        length = self._layout.seq_len + 1
        tokens = np.empty((len(windows), length), np.int64)
        for row, (shard, start) in zip(tokens, windows, strict=True):
            row[:] = self._shards[shard][start : start + length]
        pairs = from_numpy(tokens)
        return pairs[:, :-1].contiguous(), pairs[:, 1:].contiguous()


def _check_eligible(sizes: Sequence[int], seq_len: int) -> None:
    longest = max(sizes, default=0)
    if longest <= seq_len:
        raise ConfigError(
            f"none of the {len(sizes)} training shards holds a sequence of train.seq_len {seq_len} "
            f"and the token after it: the longest has {longest} tokens. Choose another "
            f"data.dataset or a train.seq_len below {longest}."
        )
