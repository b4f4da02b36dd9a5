"""Bits per byte of a model over windows of a token stream.

bpb = Σ nll / ln 2 / Σ bytes: the code length of the text over its size, which no choice of
tokenizer changes the meaning of. Shapes: B windows, T inputs of a window, S scored targets.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.model import GPT
from trainer.scoring.windows import Window, batches
from trainer.world import World

Sink = Callable[[Tensor, Tensor], None]
"""Shown (target indices, their nll in nats), each of shape (B, S)."""


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

    def read(self, batch: Sequence[Window], num_inputs: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets (B, num_inputs) of the windows; token 0 behind a window's end."""
        starts_B1 = self._column(w.start for w in batch)
        ends_B1 = self._column(w.end for w in batch)
        index_BT = starts_B1 + torch.arange(num_inputs, device=self.tokens.device)
        is_text_BT = index_BT < ends_B1
        index_BT = index_BT.where(is_text_BT, 0)
        return self.tokens[index_BT] * is_text_BT, self.tokens[index_BT + 1] * is_text_BT

    def scored(self, batch: Sequence[Window]) -> Tensor:
        """The targets (B, S) that the windows of a batch of one shape score."""
        firsts_B1 = self._column(w.first_scored for w in batch)
        return firsts_B1 + torch.arange(batch[0].num_scored, device=self.tokens.device)

    def _column(self, values: Iterable[int]) -> Tensor:
        return torch.tensor(list(values), device=self.tokens.device)[:, None]


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
) -> Score:
    """The score of ``plan`` over all ranks, each of which scores a contiguous share of it."""
    mine = world.share(len(plan))
    sums = local_sums(model, stream, plan[mine.start : mine.stop], batch_seqs, sink)
    return to_score(world.sum_(sums))


@torch.inference_mode()
def local_sums(
    model: GPT, stream: Stream, plan: Sequence[Window], batch_seqs: int, sink: Sink | None
) -> Tensor:
    """(Σ nll, number of targets, Σ bytes) of ``plan`` on this rank, float64."""
    model.eval()
    sums = no_sums(stream)
    for batch in batches(plan, batch_seqs):
        targets_BS = stream.scored(batch)
        nll_BS = _nll(model, stream, batch)
        sums += sums_of(stream, targets_BS, nll_BS)
        if sink is not None:
            sink(targets_BS, nll_BS)
    return sums


def no_sums(stream: Stream) -> Tensor:
    return torch.zeros(3, dtype=torch.float64, device=stream.tokens.device)


def sums_of(stream: Stream, targets_BS: Tensor, nll_BS: Tensor) -> Tensor:
    """(Σ nll, number of targets, Σ bytes), float64."""
    sums = no_sums(stream)
    sums[0] = nll_BS.sum(dtype=torch.float64)
    sums[1] = nll_BS.numel()
    sums[2] = stream.target_bytes[targets_BS].sum()
    return sums


def to_score(sums: Tensor) -> Score:
    nll, tokens, num_bytes = sums.tolist()
    return Score(nll=nll, num_tokens=int(tokens), num_bytes=int(num_bytes))


def _nll(model: GPT, stream: Stream, batch: Sequence[Window]) -> Tensor:
    """Nats (B, S) of what a batch of one shape scores."""
    first = batch[0]
    tokens_BT, targets_BT = stream.read(batch, first.length + first.padding)
    if not first.padding:
        return model.nll(tokens_BT, targets_BT, tail=first.num_scored)
    # What is scored ends before the padding, at another place in every window.
    nll_BT = model.nll(tokens_BT, targets_BT)
    return torch.stack(
        [nll_T[w.first_scored - w.start : w.length] for w, nll_T in zip(batch, nll_BT, strict=True)]
    )
