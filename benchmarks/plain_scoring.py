"""What does scoring cost as one would write it first? What every claim about scoring is told by.

Sliding windows and score-first test-time training in the shape of the published script: every
window goes through the whole model, logits of all positions are made, 32 windows at a time, and the
scored ones are picked and added up window by window. Nothing here is of ``trainer.evaluate``; of
the published procedure it knows the sound tail and SGD. Shapes: B windows, T tokens, V vocabulary.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BATCH_SEQS = 32  # of the published script


@dataclass(frozen=True, slots=True)
class Text:
    """``tokens`` (N + 1,) int64 and the bytes of each of the N targets."""

    tokens: Tensor
    target_bytes: Tensor

    def __len__(self) -> int:
        return len(self.target_bytes)


@dataclass(frozen=True, slots=True)
class Plan:
    """Windows of ``seq_len`` every ``stride`` targets."""

    seq_len: int
    stride: int


@dataclass(frozen=True, slots=True)
class Lessons:
    """SGD on every chunk that has been scored."""

    lr: float
    momentum: float
    epochs: int
    chunk_tokens: int
    batch_seqs: int
    grad_clip: float


@dataclass(slots=True)
class Sums:
    """Over scored targets."""

    nll: float = 0.0
    num_tokens: int = 0
    num_bytes: int = 0

    @property
    def bpb(self) -> float:
        return self.nll / math.log(2) / self.num_bytes


def plain_sliding(model: nn.Module, text: Text, plan: Plan) -> Sums:
    """``model`` makes logits (B, T, V) of tokens (B, T)."""
    sums = Sums()
    _score(model, text, list(_windows(len(text), plan)), sums)
    return sums


def plain_ttt(model: nn.Module, text: Text, plan: Plan, lessons: Lessons) -> Sums:
    """Every chunk is scored, then trained on, all but the last; ``model`` is changed."""
    sums, chunk_tokens = Sums(), lessons.chunk_tokens
    num_chunks = math.ceil(len(text) / chunk_tokens)
    chunks: list[list[tuple[int, int, int]]] = [[] for _ in range(num_chunks)]
    for window in _windows(len(text), plan):
        chunks[window[1] // chunk_tokens].append(window)
    optimizer = torch.optim.SGD(model.parameters(), lr=lessons.lr, momentum=lessons.momentum)
    for index, windows in enumerate(chunks):
        _score(model, text, windows, sums)
        if index + 1 < num_chunks:
            lr = lessons.lr * 0.5 * (1 + math.cos(math.pi * index / (num_chunks - 1)))
            optimizer.param_groups[0]["lr"] = lr
            _learn(model, text, index * chunk_tokens, plan.seq_len, lessons, optimizer)
    return sums


def _windows(num_targets: int, plan: Plan) -> Iterator[tuple[int, int, int]]:
    """(first input, first scored target, end)"""
    covered = 0
    for start in range(0, num_targets, plan.stride):
        if covered == num_targets:
            return
        end = min(start + plan.seq_len, num_targets)
        yield start, covered, end
        covered = end


@torch.no_grad()
def _score(model: nn.Module, text: Text, windows: list[tuple[int, int, int]], sums: Sums) -> None:
    longest = max(end - start for start, _, end in windows)
    for i in range(0, len(windows), BATCH_SEQS):
        batch = windows[i : i + BATCH_SEQS]
        inputs_BT = torch.zeros(len(batch), longest, dtype=torch.int64, device=text.tokens.device)
        targets_BT = torch.zeros_like(inputs_BT)
        for row, (start, _, end) in enumerate(batch):
            inputs_BT[row, : end - start] = text.tokens[start:end]
            targets_BT[row, : end - start] = text.tokens[start + 1 : end + 1]
        logits_BTV = model(inputs_BT).float()
        nll_N = F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten(), reduction="none")
        nll_BT = nll_N.view(targets_BT.shape)
        for row, (start, first, end) in enumerate(batch):
            sums.nll += nll_BT[row, first - start : end - start].double().sum().item()
            sums.num_tokens += end - first
            sums.num_bytes += int(text.target_bytes[first:end].sum())


def _learn(
    model: nn.Module,
    text: Text,
    chunk_start: int,
    seq_len: int,
    lessons: Lessons,
    optimizer: torch.optim.Optimizer,
) -> None:
    num_sequences = lessons.chunk_tokens // seq_len
    for _ in range(lessons.epochs):
        for i in range(0, num_sequences, lessons.batch_seqs):
            start = chunk_start + i * seq_len
            stop = chunk_start + min(i + lessons.batch_seqs, num_sequences) * seq_len
            inputs_BT = text.tokens[start:stop].view(-1, seq_len)
            targets_BT = text.tokens[start + 1 : stop + 1].view(-1, seq_len)
            logits_BTV = model(inputs_BT).float()
            optimizer.zero_grad()
            F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten()).backward()
            nn.utils.clip_grad_norm_(model.parameters(), lessons.grad_clip)
            optimizer.step()
