"""Bits per byte of a model over windows of a token stream.

bpb = Σ nll / ln 2 / Σ bytes: the code length of the text over its size, which no choice of
tokenizer changes the meaning of. Shapes: B windows, T inputs of a window, S scored targets.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainer.distributed.world import World
from trainer.evaluate.windows import Window, batches
from trainer.model import GPT
from trainer.model.gpt import NLL

Sink = Callable[[Tensor, Tensor], None]
"""Shown (target indices, their nll in nats), each of shape (B, S)."""

Compiling = Callable[[], AbstractContextManager[object]]
"""Entered while ranks compile, or wait for others that do: minutes without a word."""


@dataclass(frozen=True, slots=True)
class Stream:
    """Validation tokens and, for every target, the bytes of text that it stands for.

    ``tokens`` (num_targets + 1,) int64; ``target_bytes`` (num_targets,) int64; on one device.
    """

    tokens: Tensor
    target_bytes: Tensor

    @property
    def num_targets(self) -> int:
        return self.target_bytes.numel()

    def bounds(self, plan: Sequence[Window]) -> Tensor:
        """(start, first scored target, end) of each of N windows, int64 (N, 3), on its way."""
        bounds_N3 = torch.tensor([(w.start, w.first_scored, w.end) for w in plan])
        if self.tokens.device.type == "cuda":  # goes while the device computes
            bounds_N3 = bounds_N3.pin_memory()
        return bounds_N3.to(self.tokens.device, non_blocking=True)

    def read(self, bounds_B3: Tensor, num_inputs: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets (B, num_inputs) of the windows; token 0 behind a window's end."""
        index_BT = bounds_B3[:, :1] + torch.arange(num_inputs, device=self.tokens.device)
        is_text_BT = index_BT < bounds_B3[:, 2:]
        index_BT = index_BT.where(is_text_BT, 0)
        return self.tokens[index_BT] * is_text_BT, self.tokens[index_BT + 1] * is_text_BT

    def scored(self, bounds_B3: Tensor, num_scored: int) -> Tensor:
        """The targets (B, num_scored) that windows of one shape score."""
        return bounds_B3[:, 1:2] + torch.arange(num_scored, device=self.tokens.device)


@dataclass(frozen=True, slots=True)
class Score:
    """Sums over scored targets; nats summed in float64."""

    nll: float
    num_tokens: int
    num_bytes: int

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.nll / self.num_tokens

    @property
    def bpb(self) -> float:
        """Bits per byte."""
        return self.nll / math.log(2) / self.num_bytes

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.nll)


def score(
    model: GPT,
    stream: Stream,
    plan: Sequence[Window],
    *,
    batch_seqs: int,
    world: World,
    sink: Sink | None = None,
    compiling: Compiling = nullcontext,
) -> Score:
    """The score of ``plan`` over all ranks, each of which scores a contiguous share of it."""
    mine = world.own_range(len(plan))
    scorer = Scorer(model, stream, batch_seqs, sink)
    scorer.compile(plan, world, compiling)
    return to_score(world.sum_(scorer.sums(plan[mine.start : mine.stop])))


@dataclass(frozen=True, slots=True)
class Scorer:
    """How this rank scores windows, plan after plan, whatever becomes of the weights meanwhile."""

    model: GPT
    stream: Stream
    batch_seqs: int
    sink: Sink | None
    _compiled: dict[int, NLL] = field(default_factory=dict)

    @torch.inference_mode()
    def compile(self, plan: Sequence[Window], world: World, compiling: Compiling) -> None:
        """Compile the graphs of ``plan``: rank 0 first, and the others find them on disk.

        The first windows have every shape but that of a last one, which is left to whose it is.
        """
        nll = self._nll_of(plan[0].length + plan[0].padding)
        if world.size == 1 or nll == self.model.nll:
            return
        self.model.eval()
        every = batches(plan[: 1 + self.batch_seqs], self.batch_seqs)
        with compiling():
            world.rank_0_first(lambda: [self._nll(b, self.stream.bounds(b)) for b in every])

    @torch.inference_mode()
    def sums(self, plan: Sequence[Window]) -> Tensor:
        """(Σ nll, number of targets, Σ bytes) of ``plan``, float64."""
        self.model.eval()
        sums = zero_sums(self.stream)
        every = batches(plan, self.batch_seqs)
        sizes = [len(batch) for batch in every]
        bounds = torch.split(self.stream.bounds(plan), sizes)
        for batch, bounds_B3 in zip(every, bounds, strict=True):
            targets_BS = self.stream.scored(bounds_B3, batch[0].num_scored)
            nll_BS = self._nll(batch, bounds_B3)
            sums += batch_sums(self.stream, targets_BS, nll_BS)
            if self.sink is not None:
                self.sink(targets_BS, nll_BS)
        return sums

    def _nll(self, batch: Sequence[Window], bounds_B3: Tensor) -> Tensor:
        """Nats (B, S) of what a batch of one shape scores."""
        first = batch[0]
        length = first.length + first.padding
        if first.padding:  # what is scored ends before it, at another place in every window
            nll_BT = self.model.nll(*self.stream.read(bounds_B3, length))
            scored = [slice(w.first_scored - w.start, w.length) for w in batch]
            return torch.stack([nll_T[s] for s, nll_T in zip(scored, nll_BT, strict=True)])
        nll, tail = self._nll_of(length), first.num_scored
        if nll == self.model.nll:
            return nll(*self.stream.read(bounds_B3, length), tail)
        if tail == length and len(batch) < self.batch_seqs:  # a first window: no graph for it alone
            return self.model.nll(*self.stream.read(bounds_B3, length), tail)
        # One graph, of full batches: the last one is filled up with windows that it has.
        again_B = torch.arange(self.batch_seqs, device=bounds_B3.device) % len(batch)
        return nll(*self.stream.read(bounds_B3[again_B], length), tail)[: len(batch)]

    def _nll_of(self, length: int) -> NLL:
        if length not in self._compiled:
            self._compiled[length] = self.model.compiled_nll(length)
        return self._compiled[length]


def zero_sums(stream: Stream) -> Tensor:
    return torch.zeros(3, dtype=torch.float64, device=stream.tokens.device)


def batch_sums(stream: Stream, targets_BS: Tensor, nll_BS: Tensor) -> Tensor:
    """(Σ nll, number of targets, Σ bytes), float64."""
    sums = zero_sums(stream)
    sums[0] = nll_BS.sum(dtype=torch.float64)
    sums[1] = nll_BS.numel()
    sums[2] = stream.target_bytes[targets_BS].sum()
    return sums


def to_score(sums: Tensor) -> Score:
    nll, tokens, num_bytes = sums.tolist()
    return Score(nll=nll, num_tokens=int(tokens), num_bytes=int(num_bytes))
