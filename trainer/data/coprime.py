"""In which order are the windows of many shards mixed?

The published coprime order: within a shard, windows follow each other by a stride that is coprime
to their number, so that every window comes once a pass; a call draws from few shards at first and
from more, more evenly, later. It is drawn from the shards' names, and depends on neither the run's
seed nor the number of ranks. B sequences, T tokens, L the sequence length, V virtual ranks.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor, from_numpy

from trainer.config.config_errors import ConfigError
from trainer.config.data import Coprime, Data
from trainer.data.rank_share import Share
from trainer.data.shards import WatchedShard

_HASH_FACTOR = 1_099_511_628_211


class Window(NamedTuple):
    """The L + 1 tokens of a shard from ``start`` on: L inputs, and their targets one further."""

    shard: int
    start: int


class CoprimeLoader:
    """One rank's share of the coprime order, which is drawn for V = ``share.virtual_world`` ranks.

    A call draws the windows of one micro-step of every virtual rank; virtual rank v has the windows
    v, V + v, 2V + v, … of it. An optimizer step is micro_steps / V calls, its micro-steps are
    numbered call · V + v, and rank r of W computes those r, W + r, 2W + r, …: every world size
    trains on the same windows, and another V on others.

    Every rank draws the whole order and reads its own windows of it. :meth:`seek` makes the draws
    of the calls before it: those of 7,000 steps of 384 windows over 80 shards of 10⁸ tokens take
    8 s for V = 8 and 30 s for V = 1, which has eight times the calls.
    """

    def __init__(
        self, paths: Sequence[Path], names: Sequence[str], share: Share, mixing: Coprime
    ) -> None:
        _check_calls(share)
        self._shards = [WatchedShard(path) for path in paths]
        sizes = [shard.size for shard in self._shards]
        _check_eligible(sizes, share.seq_len)
        self._share = share
        self._order = CoprimeOrder(tuple(sizes), seed_of(names), share, mixing)
        self.seek(0)

    @property
    def position(self) -> int:
        """Calls drawn so far."""
        return self._position

    def seek(self, position: int) -> None:
        """Continue as the loader did that had this ``position``."""
        if position < 0:
            raise ValueError(f"position {position}: a loader starts at 0")
        self._position = position
        self._calls = self._order.calls()
        next(islice(self._calls, position, position), None)  # draws those before

    def next_batch(self) -> list[tuple[Tensor, Tensor]]:
        """This rank's micro-steps of the next optimizer step, as int64 (x_BT, y_BT), T = L."""
        num_virtual = self._share.virtual_world
        calls = list(islice(self._calls, self._share.micro_steps // num_virtual))
        self._position += len(calls)
        return [
            self._pair(calls[number // num_virtual][number % num_virtual :: num_virtual])
            for number in self._share.mine
        ]

    def calibration(self, num_calls: int) -> Iterator[Tensor]:
        """Inputs x_BT of virtual rank 0 in the first calls of a fresh order."""
        for windows in islice(self._order.calls(), num_calls):
            x_BT, _ = self._pair(windows[:: self._share.virtual_world])
            yield x_BT

    def _pair(self, windows: Sequence[Window]) -> tuple[Tensor, Tensor]:
        length = self._share.seq_len + 1
        tokens = np.empty((len(windows), length), np.int64)
        for row, (shard, start) in zip(tokens, windows, strict=True):
            row[:] = self._shards[shard][start : start + length]
        pairs = from_numpy(tokens)
        return pairs[:, :-1].contiguous(), pairs[:, 1:].contiguous()


def seed_names(data: Data, files: Sequence[str]) -> list[str]:
    """The names that seed the order, one for each of the training shards ``files``.

    Where the recipe says nothing they are the dataset's name and the file's, so that the order does
    not depend on where the data lies. The published order was drawn from paths as they were typed.
    """
    if data.seed_names is None:
        return [f"{data.dataset}/{file}" for file in files]
    if isinstance(data.seed_names, str):
        return [f"{data.seed_names.rstrip('/')}/{file}" for file in files]
    if len(data.seed_names) != len(files):
        raise ConfigError(
            f"data.seed_names lists {len(data.seed_names)} names and the dataset has {len(files)} "
            f"training shards: give one for each, or a folder, or leave the key out."
        )
    return list(data.seed_names)


def seed_of(names: Sequence[str]) -> int:
    """The hash of the names' UTF-8 bytes, one after the other.

    >>> seed_of(["a"]), seed_of(["a", "b"]) == seed_of(["ab"])
    (106652627936467, True)
    """
    value = 0
    for byte in "".join(names).encode():
        value = (value ^ byte) * _HASH_FACTOR % 2**64
    return value


@dataclass(frozen=True)
class CoprimeOrder:
    """An endless order of windows over shards of ``num_tokens``; every reading draws the same."""

    num_tokens: tuple[int, ...]
    seed: int
    share: Share
    mixing: Coprime

    def calls(self) -> Iterator[list[Window]]:
        """The windows of each call, from the first on."""
        draws = _Draws(self)
        while True:
            yield draws.next_call()


class _Draws:
    """The state of one reading: the generator, and how far each shard's pass has come.

    Every draw is one of the published script's, in its place; a draw more or less, or another way
    to make it, is another order from there on.
    """

    def __init__(self, order: CoprimeOrder) -> None:
        share = order.share
        self._rng = np.random.Generator(np.random.PCG64(order.seed))
        self._mixing = order.mixing
        self._seq_len = share.seq_len
        self._num_virtual = share.virtual_world
        self._num_windows = share.micro_tokens // share.seq_len * share.virtual_world
        self._num_tokens = order.num_tokens
        self._eligible = [
            index for index, size in enumerate(order.num_tokens) if size > share.seq_len
        ]
        self._passes: dict[int, _Pass] = {}
        self._left = np.array(
            [(self._num_tokens[index] - 1) // share.seq_len for index in self._eligible],
            np.float64,
        )
        self._num_calls = 0

    def next_call(self) -> list[Window]:
        progress = min(self._num_calls / self._mixing.anneal_calls, 1.0)
        self._num_calls += 1
        chosen, counts = self._choose(progress)
        return self._deal(
            [self._take(place, count) for place, count in zip(chosen, counts, strict=True)]
        )

    def _choose(self, progress: float) -> tuple[list[int], list[int]]:
        """Which eligible shards the call draws from, and how many windows of each."""
        mixing, most = self._mixing, min(len(self._eligible), self._num_windows)
        low = min(max(mixing.mix_start, self._num_virtual), most)
        high = min(max(mixing.mix_end, 8 * self._num_virtual), most)
        mix = round(low + progress * (high - low))
        weights = self._probabilities(progress)
        chosen = self._rng.choice(len(self._eligible), size=mix, replace=False, p=weights)
        counts = np.ones(mix, np.int64)
        rest = self._num_windows - mix
        if rest:
            counts += self._rng.multinomial(rest, weights[chosen] / weights[chosen].sum())
        order = self._rng.permutation(mix)
        return chosen[order].tolist(), counts[order].tolist()

    def _probabilities(self, progress: float) -> npt.NDArray[np.float64]:
        """Blocks left (at least 1), to a power that falls as the mix widens; even on overflow."""
        start, end = self._mixing.exponent_start, self._mixing.exponent_end
        with np.errstate(over="ignore"):
            weights = np.maximum(self._left, 1.0) ** (start - (start - end) * progress)
            total = weights.sum()
        if not math.isfinite(total):
            return np.full(weights.size, 1.0 / weights.size)
        probabilities: npt.NDArray[np.float64] = weights / total
        return probabilities

    def _take(self, place: int, count: int) -> list[Window]:
        """The next ``count`` windows of an eligible shard, shuffled; new passes as they run out."""
        shard = self._eligible[place]
        starts: list[int] = []
        while len(starts) < count:
            current = self._passes.get(shard)
            if current is None or not current.left:
                current = self._passes[shard] = self._new_pass(self._num_tokens[shard])
            starts += current.take(count - len(starts))
            self._left[place] = current.left
        if count > 1:
            starts = [starts[index] for index in self._rng.permutation(count)]
        return [Window(shard, start) for start in starts]

    def _new_pass(self, num_tokens: int) -> "_Pass":
        max_phase = min(self._seq_len - 1, num_tokens - self._seq_len - 1)
        phase = int(self._rng.integers(max_phase + 1)) if max_phase else 0
        num_blocks = (num_tokens - 1 - phase) // self._seq_len
        if num_blocks == 1:
            return _Pass(phase, self._seq_len, num_blocks, first=0, stride=1)
        first = int(self._rng.integers(num_blocks))
        stride = int(self._rng.integers(1, num_blocks))
        while math.gcd(stride, num_blocks) != 1:
            stride = int(self._rng.integers(1, num_blocks))
        return _Pass(phase, self._seq_len, num_blocks, first, stride)

    def _deal(self, piles: list[list[Window]]) -> list[Window]:
        """One window from the end of every pile in turn, each round in a new order of the piles."""
        windows: list[Window] = []
        while piles:
            visited = [piles[index] for index in self._rng.permutation(len(piles))]
            windows += [pile.pop() for pile in visited]
            piles = [pile for pile in visited if pile]
        return windows


@dataclass(slots=True)
class _Pass:
    """Every block of a shard once: block k is number (first + k · stride) mod ``num_blocks``."""

    phase: int
    seq_len: int
    num_blocks: int
    first: int
    stride: int
    taken: int = 0

    @property
    def left(self) -> int:
        return self.num_blocks - self.taken

    def take(self, most: int) -> list[int]:
        """Where the next blocks begin; fewer than ``most`` where the pass ends."""
        blocks = range(self.taken, self.taken + min(most, self.left))
        self.taken = blocks.stop
        return [
            self.phase + (self.first + block * self.stride) % self.num_blocks * self.seq_len
            for block in blocks
        ]


def _check_calls(share: Share) -> None:
    if share.micro_steps % share.virtual_world:
        fitting = -(-share.micro_steps // share.virtual_world) * share.virtual_world
        raise ConfigError(
            f"train.micro_steps {share.micro_steps} is not divisible by data.virtual_world "
            f"{share.virtual_world}: a call of the coprime loader gives every virtual rank one "
            f"micro-step. Choose a multiple: --set train.micro_steps={fitting}."
        )


def _check_eligible(sizes: Sequence[int], seq_len: int) -> None:
    longest = max(sizes, default=0)
    if longest <= seq_len:
        raise ConfigError(
            f"none of the {len(sizes)} training shards holds a sequence of train.seq_len {seq_len} "
            f"and the token after it: the longest has {longest} tokens. Choose another "
            f"data.dataset or a train.seq_len below {longest}."
        )
