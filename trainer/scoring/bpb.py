"""Bits per byte of a model over windows of a token stream.

bpb = Σ nll / ln 2 / Σ bytes: the code length of the text over its size, which no choice of
tokenizer changes the meaning of. Shapes: B windows, T inputs of a window, S scored targets.
"""

import math
from collections.abc import Callable, Sequence
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
    device = stream.tokens.device
    sums = torch.zeros(3, dtype=torch.float64, device=device)
    for batch in batches(plan, batch_seqs):
        offsets = torch.arange(batch[0].length, device=device)
        index_BT = torch.tensor([w.start for w in batch], device=device)[:, None] + offsets
        targets_BS = index_BT[:, -batch[0].num_scored :]
        nll_BS = model.nll(
            stream.tokens[index_BT], stream.tokens[index_BT + 1], tail=batch[0].num_scored
        )
        sums[0] += nll_BS.sum(dtype=torch.float64)
        sums[1] += nll_BS.numel()
        sums[2] += stream.target_bytes[targets_BS].sum()
        if sink is not None:
            sink(targets_BS, nll_BS)
    return sums


def to_score(sums: Tensor) -> Score:
    nll, tokens, num_bytes = sums.tolist()
    return Score(nll=nll, num_tokens=int(tokens), num_bytes=int(num_bytes))
