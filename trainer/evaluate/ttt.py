"""Test-time training: scoring by a model that learns from the text it has already scored.

Score-first test-time training: the stream is cut into chunks; every chunk is scored, and only then
trained on, so that no score depends on a token that comes later. Sources: parameter-golf PR #549
(SGD) and PR #1176 (Muon, frozen layers); what ours do differently by default: docs/recipes.md.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer.config import TTT, Scoring
from trainer.distributed.world import World
from trainer.evaluate.bpb import Compiling, Score, Scorer, Sink, Stream, to_score, zero_sums
from trainer.evaluate.ttt_optimizer import AdaptedParameter, adapted_parameters, optimizer_for
from trainer.evaluate.windows import by_chunk, windows
from trainer.model import GPT
from trainer.model.gpt import NLL
from trainer.optim.muon import NewtonSchulz


def adapt_and_score(
    model: GPT,
    stream: Stream,
    *,
    scoring: Scoring,
    ttt: TTT,
    world: World,
    sink: Sink | None = None,
    beat: Callable[[], None] = lambda: None,
    compiling: Compiling = nullcontext,
    newton_schulz: NewtonSchulz | None = None,
) -> Score:
    """The sliding score of ``stream`` with ``model`` adapted on every chunk already scored.

    Adapts ``model`` in place, on every chunk but the last: hand in a private copy. All of it is
    trained that ``ttt`` does not freeze; the rate follows half a cosine over the chunks.
    ``sink`` is shown what is scored, ``beat`` is called for every step of training.
    """
    plan = windows(stream.num_targets, scoring.seq_len, scoring.stride, scoring.tail)
    chunks = by_chunk(plan, ttt.chunk_tokens)
    moved = adapted_parameters(model, ttt)
    rule = newton_schulz or NewtonSchulz()
    optimizer = optimizer_for(moved, ttt, newton_schulz=rule, update_dtype=model.compute_dtype)
    nll = model.compiled_nll(scoring.seq_len)
    trainer = _ChunkTrainer(model, nll, stream, scoring.seq_len, ttt, world, moved, optimizer, beat)
    scorer = Scorer(model, stream, scoring.batch_seqs, sink)
    sums = zero_sums(stream)
    scorer.compile(chunks[0], world, compiling)
    if len(chunks) > 1:
        trainer.compile(range(ttt.chunk_tokens), compiling)
    for index, members in enumerate(chunks):
        mine = world.own_range(len(members))
        sums += scorer.sums(members[mine.start : mine.stop])
        if index + 1 < len(chunks):
            first = index * ttt.chunk_tokens
            progress = index / (len(chunks) - 1)
            trainer.train_on(range(first, first + ttt.chunk_tokens), progress)
    return to_score(world.sum_(sums))


@dataclass(frozen=True, slots=True)
class _ChunkTrainer:
    """Trains a model on chunks of the stream."""

    model: GPT
    nll: NLL
    stream: Stream
    seq_len: int
    ttt: TTT
    world: World
    moved: list[AdaptedParameter]
    optimizer: torch.optim.Optimizer
    beat: Callable[[], None]

    def compile(self, chunk: range, compiling: Compiling) -> None:
        """Compile the graphs that training on ``chunk`` needs: rank 0 first, as in training."""
        if self.world.size == 1 or self.nll == self.model.nll:
            return
        self.model.train()
        of_each_size = {len(b): b for b in torch.split(self._rows(chunk), self.ttt.batch_seqs)}
        parameters = [m.parameter for m in self.moved]

        def take_gradients() -> None:
            for batch_BT in of_each_size.values():
                self._add_gradients(batch_BT, parameters)

        with compiling():
            self.world.rank_0_first(take_gradients)
        self.optimizer.zero_grad(set_to_none=True)

    def train_on(self, chunk: range, progress: float) -> None:
        """``ttt.epochs`` passes over ``chunk``; ``progress`` is 0 at the first, 1 at the last."""
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.ttt.lr * 0.5 * (1 + math.cos(math.pi * progress))
        rows_NT, parameters = self._rows(chunk), [m.parameter for m in self.moved]
        for _ in range(self.ttt.epochs):
            for batch_BT in torch.split(rows_NT, self.ttt.batch_seqs):
                self._take_step(batch_BT, parameters)

    def _rows(self, chunk: range) -> Tensor:
        """Sequences of inputs, each with the target of its last: (N, seq_len + 1)."""
        tokens = self.stream.tokens
        starts_N = torch.arange(chunk.start, chunk.stop, self.seq_len, device=tokens.device)
        offsets_T = torch.arange(self.seq_len + 1, device=tokens.device)
        return tokens[starts_N[:, None] + offsets_T]

    def _add_gradients(self, batch_BT: Tensor, parameters: list[nn.Parameter]) -> None:
        """Those of this rank's part of the mean loss of ``batch_BT``."""
        mine = self.world.own_range(len(batch_BT))
        if mine:
            local_BT = batch_BT[mine.start : mine.stop]
            with self.model.late_qat(self.ttt.late_qat):
                nll_BT = self.nll(local_BT[:, :-1].contiguous(), local_BT[:, 1:].contiguous())
            loss = nll_BT.mean() * (len(mine) / len(batch_BT))
            torch.autograd.backward(loss, inputs=parameters)

    def _take_step(self, batch_BT: Tensor, parameters: list[nn.Parameter]) -> None:
        self._add_gradients(batch_BT, parameters)
        self.world.sum_gradients(parameters)
        for m in self.moved:
            m.drop_frozen_gradient()
        if self.ttt.grad_clip is not None:
            torch.nn.utils.clip_grad_norm_(parameters, self.ttt.grad_clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.beat()
