"""SLOT: scoring with final hidden states that are shifted at test time.

SLOT adds one vector δ to the hidden states before the head and fits it by a few steps of AdamW
while the weights stay as they are. ``mode`` says on what it is fitted, and so what the score is:

- ``causal``: every window has a δ of its own, fitted on the window's targets that are already
  scored (its overlap with the window before). No score depends on a later token, provided that the
  model has not been trained on the stream. The first window has no overlap and δ = 0.
- ``published`` (parameter-golf PR #1176): a batch of windows shares one δ, fitted on all of their
  positions, which contain the targets that it then scores and, for all but the batch's last
  window, later ones. There it comes after test-time training, on weights trained on all but the
  last chunk of what is scored. So it is no legal score, and is here to reproduce that number.

Shapes: B windows, T inputs of a window, D width, N scored targets of a batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from trainer.config import Scoring, Slot
from trainer.distributed.world import World
from trainer.evaluate.bpb import Score, Sink, Stream, batch_sums, to_score, zero_sums
from trainer.evaluate.windows import Window, windows
from trainer.model import GPT


def slot_is_legal(slot: Slot) -> bool:
    """Whether no target has a part in its own score, if the model has not seen the stream."""
    return slot.mode == "causal"


def slot_score(
    model: GPT,
    stream: Stream,
    *,
    scoring: Scoring,
    slot: Slot,
    virtual_world: int,
    world: World,
    sink: Sink | None = None,
) -> Score:
    """The sliding score of ``stream`` under shifted hidden states; ``model`` is not changed.

    Batches are made for ``virtual_world`` ranks and shared out whole, so that what is fitted
    together does not depend on how many ranks there are.
    """
    model.eval()
    plan = windows(stream.num_targets, scoring.seq_len, scoring.stride, scoring.tail)
    every = slot_batches(plan, slot.batch_seqs, virtual_world)
    mine = world.own_range(len(every))
    sums = zero_sums(stream)
    for members in every[mine.start : mine.stop]:
        batch = _read(model, stream, members, scoring.seq_len)
        targets_1N = batch.index_BT[batch.scored_BT][None]
        nll_1N = _score(model, batch, _fit(model, batch, slot))
        sums += batch_sums(stream, targets_1N, nll_1N)
        if sink is not None:
            sink(targets_1N, nll_1N)
    return to_score(world.sum_(sums))


def slot_batches(plan: Sequence[Window], batch_seqs: int, virtual_world: int) -> list[list[Window]]:
    """Consecutive windows of any shape, at most ``batch_seqs``, all of one virtual rank.

    >>> [len(batch) for batch in slot_batches([Window(0, 0, 1)] * 10, 3, virtual_world=2)]
    [3, 2, 3, 2]
    """
    bounds = [len(plan) * rank // virtual_world for rank in range(virtual_world + 1)]
    return [
        list(plan[i : min(i + batch_seqs, stop)])
        for start, stop in pairwise(bounds)
        for i in range(start, stop, batch_seqs)
    ]


@dataclass(frozen=True, slots=True)
class _Batch:
    """Hidden states of windows, float32, and which of their positions are what.

    ``context_BT``: text whose target is scored before the window is. ``scored_BT``: what the
    window scores. The others are padding, whose target is token 0. ``index_BT``: the targets'
    places in the stream.
    """

    hidden_BTD: Tensor
    targets_BT: Tensor
    index_BT: Tensor
    context_BT: Tensor
    scored_BT: Tensor


@torch.no_grad()
def _read(model: GPT, stream: Stream, members: Sequence[Window], num_inputs: int) -> _Batch:
    bounds_B3 = stream.bounds(members)
    tokens_BT, targets_BT = stream.read(bounds_B3, num_inputs)
    start_B1, first_B1, end_B1 = bounds_B3.T[:, :, None]
    index_BT = start_B1 + torch.arange(num_inputs, device=tokens_BT.device)
    return _Batch(
        hidden_BTD=model.body(tokens_BT).float(),
        targets_BT=targets_BT,
        index_BT=index_BT,
        context_BT=index_BT < first_B1,
        scored_BT=(first_B1 <= index_BT) & (index_BT < end_B1),
    )


def _fit(model: GPT, batch: _Batch, slot: Slot) -> Tensor:
    """δ, (1, 1, D) or (B, 1, D): what ``slot.steps`` of AdamW make of zero.

    Windows with a δ of their own do not influence one another, however many are fitted together:
    the loss is the sum of theirs, and AdamW treats every element by itself.
    """
    hidden_BTD, targets_BT = batch.hidden_BTD, batch.targets_BT
    num_windows, _, width = hidden_BTD.shape
    if slot.mode == "published":
        num_deltas = 1
        weight_BT = torch.full_like(targets_BT, 1 / targets_BT.numel(), dtype=torch.float32)
    else:
        num_deltas = num_windows
        weight_BT = batch.context_BT / batch.context_BT.sum(dim=1, keepdim=True).clamp(min=1)
    delta = torch.zeros(num_deltas, 1, width, device=hidden_BTD.device, requires_grad=True)
    optimizer = torch.optim.AdamW(
        [delta],
        lr=slot.lr,
        betas=(slot.beta1, slot.beta2),
        eps=slot.eps,
        weight_decay=slot.weight_decay,
    )
    for _ in range(slot.steps):
        nll_BT = _nll(model, hidden_BTD + delta, targets_BT)
        (delta.grad,) = torch.autograd.grad((nll_BT * weight_BT).sum(), [delta])
        optimizer.step()
    return delta.detach()


@torch.no_grad()
def _score(model: GPT, batch: _Batch, delta: Tensor) -> Tensor:
    """Nats (1, N) of the scored targets, in the order of the windows."""
    shifted_1ND = (batch.hidden_BTD + delta)[batch.scored_BT][None]
    return _nll(model, shifted_1ND, batch.targets_BT[batch.scored_BT][None])


def _nll(model: GPT, hidden_BTD: Tensor, targets_BT: Tensor) -> Tensor:
    return model.nll_of(hidden_BTD.to(model.compute_dtype), targets_BT)
