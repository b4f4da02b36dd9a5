"""The coprime order is drawn as the published script draws it: the same draws, in their order.

The restatement keeps to the description of that script and shares no code with the trainer.
"""

import math
from itertools import islice

import numpy as np
import pytest

from trainer.config import Coprime
from trainer.data.coprime import CoprimeOrder, seed_of

SEQ_LEN = 4
SIZES = (90, 4, 61, 0, 33, 5, 120, 47, 9, 75, 6, 200)
NAMES = [f"data/möbel/web_train_{index:06d}.bin" for index in range(len(SIZES))]


class Restated:
    """The published draws in their order, as plainly as they can be written."""

    def __init__(self, names, num_windows, num_virtual):
        digest = 0
        for name in names:
            for byte in name.encode("utf-8"):
                digest = ((digest ^ byte) * 1099511628211) % 2**64
        self.rng = np.random.Generator(np.random.PCG64(digest))
        self.num_windows, self.num_virtual = num_windows, num_virtual
        self.shards = [index for index, size in enumerate(SIZES) if (size - 1) // SEQ_LEN >= 1]
        self.state = {}
        self.calls = 0

    def choose(self):
        progress = min(self.calls / 6, 1)
        p = np.array([self.remaining(shard) for shard in self.shards]) ** (0.9 - 0.4 * progress)
        p = p / p.sum()
        most = min(len(self.shards), self.num_windows)
        low = min(max(2, self.num_virtual), most)
        high = min(max(5, 8 * self.num_virtual), most)
        mix = min(max(round(low + progress * (high - low)), 1), most)
        chosen = self.rng.choice(len(self.shards), size=mix, replace=False, p=p)
        counts = [1] * mix
        if self.num_windows > mix:
            q = p[chosen] / p[chosen].sum()
            counts = 1 + self.rng.multinomial(self.num_windows - mix, q)
        order = self.rng.permutation(mix)
        return [(self.shards[chosen[index]], counts[index]) for index in order]

    def remaining(self, shard):
        if shard not in self.state:
            return float((SIZES[shard] - 1) // SEQ_LEN)
        return float(max(self.state[shard]["blocks"] - self.state[shard]["next"], 1))

    def take(self, shard):
        if shard not in self.state or self.state[shard]["next"] >= self.state[shard]["blocks"]:
            self.state[shard] = self.reset(SIZES[shard])
        now = self.state[shard]
        block = (now["start"] + now["next"] * now["stride"]) % now["blocks"]
        now["next"] += 1
        return shard, now["phase"] + block * SEQ_LEN

    def reset(self, size):
        max_phase = min(SEQ_LEN - 1, max(0, size - SEQ_LEN - 1))
        phase = self.rng.integers(max_phase + 1) if max_phase > 0 else 0
        blocks = (size - 1 - phase) // SEQ_LEN
        start = self.rng.integers(blocks) if blocks > 1 else 0
        stride = 1
        if blocks > 1:
            stride = self.rng.integers(1, blocks)
            while math.gcd(stride, blocks) != 1:
                stride = self.rng.integers(1, blocks)
        return {"phase": phase, "blocks": blocks, "start": start, "stride": stride, "next": 0}

    def next_call(self):
        buckets = []
        for shard, count in self.choose():
            bucket = [self.take(shard) for _ in range(count)]
            if count > 1:
                bucket = [bucket[index] for index in self.rng.permutation(count)]
            buckets.append(bucket)
        dealt = []
        while any(buckets):
            active = [bucket for bucket in buckets if bucket]
            buckets = [active[index] for index in self.rng.permutation(len(active))]
            for bucket in buckets:
                dealt.append(bucket.pop())
        self.calls += 1
        return dealt


@pytest.mark.parametrize("rows", [1, 3, 13])
@pytest.mark.parametrize("virtual_world", [1, 2, 8])
def test_the_draws_are_the_published_ones_in_their_order(virtual_world, rows):
    """From the first call until long after the mix has widened and every pass has ended."""
    order = CoprimeOrder(
        num_tokens=SIZES,
        seed=seed_of(NAMES),
        seq_len=SEQ_LEN,
        call_windows=rows * virtual_world,
        virtual_world=virtual_world,
        mixing=Coprime(anneal_calls=6, mix_start=2, mix_end=5),
    )
    restated = Restated(NAMES, rows * virtual_world, virtual_world)
    for drawn in islice(order.calls(), 100):
        assert drawn == restated.next_call()
    assert list(islice(order.calls(), 5)) == list(islice(order.calls(), 5))


def test_the_published_mixing_is_the_default():
    """In float64 too: the published exponent is 0.90 − 0.40 · progress."""
    mixing = Coprime()
    assert (mixing.anneal_calls, mixing.mix_start, mixing.mix_end) == (1800, 8, 32)
    assert mixing.exponent_start == 0.90
    assert mixing.exponent_start - mixing.exponent_end == 0.40
