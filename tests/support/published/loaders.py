"""The two published training loaders (parameter-golf PR #1035/#549 and PR #1176)."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from .config import Published

Batch = tuple[Tensor, Tensor]


def as_batch(windows: np.ndarray) -> Batch:
    """Rows of L+1 tokens as inputs and targets."""
    ids = torch.from_numpy(windows.astype(np.int64))
    return ids[:, :-1], ids[:, 1:]


class SequentialLoader:
    """One cursor through all shards, for ever; every span consumes its extra target token."""

    def __init__(self, config: Published, shards: list[np.ndarray]):
        self.stream = np.concatenate(shards)
        self.position = 0
        self.length = config.train_seq_len
        self.local = config.train_batch_tokens // config.grad_accum_steps
        self.micros = config.grad_accum_steps

    def micro_batch(self) -> Batch:
        index = np.arange(self.position, self.position + self.local + 1) % len(self.stream)
        self.position += self.local + 1
        span = torch.from_numpy(self.stream[index].astype(np.int64))
        return span[:-1].reshape(-1, self.length), span[1:].reshape(-1, self.length)

    def step_batches(self) -> list[Batch]:
        return [self.micro_batch() for _ in range(self.micros)]

    def calibration(self, count: int) -> Iterator[Batch]:
        return (self.micro_batch() for _ in range(count))


def path_seed(paths: tuple[str, ...]) -> int:
    value = 0
    for byte in "".join(paths).encode():
        value = ((value ^ byte) * 1099511628211) % 2**64
    return value


class Cursor:
    """One pass through the blocks of a shard, at a random phase and in coprime steps."""

    def __init__(self, tokens: np.ndarray, length: int):
        self.tokens, self.length = tokens, length
        self.blocks = self.next = 0

    def remaining(self) -> int:
        if not self.blocks:
            return (len(self.tokens) - 1) // self.length
        return max(self.blocks - self.next, 1)

    def reset(self, rng: np.random.Generator) -> None:
        max_phase = min(self.length - 1, max(0, len(self.tokens) - self.length - 1))
        self.phase = int(rng.integers(max_phase + 1)) if max_phase else 0
        self.blocks = (len(self.tokens) - 1 - self.phase) // self.length
        self.start = int(rng.integers(self.blocks)) if self.blocks > 1 else 0
        self.stride = self.draw_stride(rng)
        self.next = 0

    def draw_stride(self, rng: np.random.Generator) -> int:
        if self.blocks <= 1:
            return 1
        while True:
            stride = int(rng.integers(1, self.blocks))
            if math.gcd(stride, self.blocks) == 1:
                return stride

    def take(self, rng: np.random.Generator) -> np.ndarray:
        if self.next >= self.blocks:
            self.reset(rng)
        block = (self.start + self.next * self.stride) % self.blocks
        self.next += 1
        offset = self.phase + block * self.length
        return self.tokens[offset : offset + self.length + 1]


class CoprimeLoader:
    """Every call mixes windows of several shards and deals them to the virtual ranks."""

    def __init__(self, config: Published, shards: list[np.ndarray]):
        length = config.train_seq_len
        self.world = config.loader_world
        self.calls_per_step = config.grad_accum_steps // self.world
        local = config.train_batch_tokens // config.grad_accum_steps
        self.windows = local // length * self.world
        self.cursors = [Cursor(shard, length) for shard in shards if len(shard) > length]
        self.rng = np.random.Generator(np.random.PCG64(path_seed(config.loader_seed_strings)))
        self.calls = 0

    def probabilities(self, progress: float) -> np.ndarray:
        remaining = np.array([cursor.remaining() for cursor in self.cursors], dtype=np.float64)
        weights = remaining ** (0.90 - 0.40 * progress)
        if not np.isfinite(weights.sum()) or weights.sum() <= 0:
            weights = np.ones_like(weights)
        return weights / weights.sum()

    def mix_size(self, progress: float) -> int:
        most = min(len(self.cursors), self.windows)
        low = min(max(8, self.world), most)
        high = min(max(32, 8 * self.world), most)
        return min(max(round(low + progress * (high - low)), 1), most)

    def choose(self) -> Iterator[tuple[Cursor, int]]:
        """The shards of this call and how many windows each gives, in random order."""
        progress = min(self.calls / 1800, 1.0)
        probs = self.probabilities(progress)
        mix = self.mix_size(progress)
        chosen = self.rng.choice(len(self.cursors), size=mix, replace=False, p=probs)
        renormalised = probs[chosen] / probs[chosen].sum()
        counts = 1 + self.rng.multinomial(self.windows - mix, renormalised)
        for index in self.rng.permutation(mix):
            yield self.cursors[chosen[index]], int(counts[index])

    def fill(self, cursor: Cursor, count: int) -> list[np.ndarray]:
        bucket = [cursor.take(self.rng) for _ in range(count)]
        if count > 1:
            bucket = [bucket[index] for index in self.rng.permutation(count)]
        return bucket

    def plan(self) -> list[np.ndarray]:
        active = [self.fill(cursor, count) for cursor, count in self.choose()]
        windows = []
        while active:
            active = [active[index] for index in self.rng.permutation(len(active))]
            windows += [bucket.pop() for bucket in active]
            active = [bucket for bucket in active if bucket]
        self.calls += 1
        return windows

    def call(self) -> list[Batch]:
        """One micro-batch for every virtual rank."""
        windows = np.stack(self.plan())
        return [as_batch(windows[rank :: self.world]) for rank in range(self.world)]

    def step_batches(self) -> list[Batch]:
        return [batch for _ in range(self.calls_per_step) for batch in self.call()]

    def calibration(self, count: int) -> Iterator[Batch]:
        """What rank 0 sees in so many calls."""
        return (self.call()[0] for _ in range(count))


def build_loader(config: Published, shards: list[np.ndarray]) -> SequentialLoader | CoprimeLoader:
    return {"sequential": SequentialLoader, "coprime": CoprimeLoader}[config.loader](config, shards)
