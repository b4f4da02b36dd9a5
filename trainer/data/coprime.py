"""Draw the published coprime order of training windows over many shards.

Within a shard, windows follow each other by a stride that is coprime to their number, so that every
window comes once a pass; a call draws from few shards at first and from more, more evenly, later.
The order is drawn from the shards' names, and depends on neither the run's seed nor the number of
ranks. L is the sequence length.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trainer.config.config_errors import ConfigError
from trainer.config.data import Coprime, Data

_HASH_FACTOR = 1_099_511_628_211


class Window(NamedTuple):
    """The L + 1 tokens of a shard from ``start`` on: L inputs, and their targets one further."""

    shard: int
    start: int


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


@dataclass(frozen=True, kw_only=True)
class CoprimeOrder:
    """An endless order of windows over shards of ``num_tokens``; every reading draws the same.

    A call draws ``call_windows`` of them, those of one micro-step of ``virtual_world`` ranks.
    """

    num_tokens: tuple[int, ...]
    seed: int
    seq_len: int
    call_windows: int
    virtual_world: int
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
        self._rng = np.random.Generator(np.random.PCG64(order.seed))
        self._mixing = order.mixing
        self._seq_len = order.seq_len
        self._num_virtual = order.virtual_world
        self._num_windows = order.call_windows
        self._num_tokens = order.num_tokens
        self._eligible = [
            index for index, size in enumerate(order.num_tokens) if size > order.seq_len
        ]
        self._passes: dict[int, _Pass] = {}
        self._left = np.array(
            [(self._num_tokens[index] - 1) // order.seq_len for index in self._eligible],
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
