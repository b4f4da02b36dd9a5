"""The published evaluations: contiguous and sliding, TTT, SLOT (parameter-golf PR #549, #1176)."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .config import Published
from .model import Model
from .train import newton_schulz

TargetBytes = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass
class Score:
    """Sums over scored tokens."""

    nll: float = 0.0
    tokens: int = 0
    bytes: int = 0

    @property
    def loss(self) -> float:
        return self.nll / self.tokens

    @property
    def bpb(self) -> float:
        return self.loss / math.log(2) * self.tokens / self.bytes


class Validation:
    """The validation stream, cut to whole windows, and the bytes of each of its targets."""

    def __init__(self, config: Published, tokens: np.ndarray, target_bytes: TargetBytes):
        length = config.train_seq_len
        self.total = (len(tokens) - 1) // length * length
        stream = tokens[: self.total + 1].astype(np.int64)
        self.ids = torch.from_numpy(stream)
        self.bytes = np.asarray(target_bytes(stream[:-1], stream[1:])).astype(np.int64)


@dataclass(frozen=True)
class Window:
    """Inputs [start, start+length); those from `first` on are scored."""

    start: int
    length: int
    first: int


def sliding_windows(config: Published, total: int) -> list[Window]:
    """The published tail scores the last tokens again in every truncated window at the end."""
    windows, covered = [], 0
    for start in range(0, total, config.eval_stride):
        length = min(config.train_seq_len, total - start)
        first = max(length - config.eval_stride, 0) if start else 0
        if config.sliding_tail == "once":
            if covered == total:
                break
            first = covered - start
        covered = start + length
        windows.append(Window(start, length, first))
    return windows


def batched(config: Published, windows: list[Window]) -> Iterator[list[Window]]:
    for index in range(0, len(windows), config.eval_batch_seqs):
        yield windows[index : index + config.eval_batch_seqs]


def padded(config: Published, data: Validation, windows: list[Window]) -> tuple[Tensor, Tensor]:
    """Inputs and targets, filled up with id 0 on the right."""
    inputs_BT = torch.zeros(len(windows), config.train_seq_len, dtype=torch.int64)
    targets_BT = torch.zeros_like(inputs_BT)
    for row, window in enumerate(windows):
        end = window.start + window.length
        inputs_BT[row, : window.length] = data.ids[window.start : end]
        targets_BT[row, : window.length] = data.ids[window.start + 1 : end + 1]
    return inputs_BT, targets_BT


def token_nll(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    return F.cross_entropy(logits_BTV.transpose(1, 2), targets_BT, reduction="none")


def add_scores(score: Score, data: Validation, windows: list[Window], nll_BT: Tensor) -> None:
    for row, window in enumerate(windows):
        score.nll += nll_BT[row, window.first : window.length].double().sum().item()
        score.tokens += window.length - window.first
        scored = slice(window.start + window.first, window.start + window.length)
        score.bytes += int(data.bytes[scored].sum())


@torch.no_grad()
def score_windows(
    config: Published, model: Model, data: Validation, windows: list[Window], score: Score
) -> None:
    for batch in batched(config, windows):
        inputs_BT, targets_BT = padded(config, data, batch)
        add_scores(score, data, batch, token_nll(model.logits(inputs_BT), targets_BT))


def contiguous(config: Published, model: Model, data: Validation) -> Score:
    length = config.train_seq_len
    windows = [Window(start, length, 0) for start in range(0, data.total, length)]
    score = Score()
    score_windows(config, model, data, windows, score)
    return score


def sliding(config: Published, model: Model, data: Validation) -> Score:
    score = Score()
    score_windows(config, model, data, sliding_windows(config, data.total), score)
    return score


def trainable(config: Published, model: Model) -> list[Tensor]:
    """Freezing goes by block name and reaches only the small tensors, never the matrices."""
    frozen = tuple(f"blocks.{layer}." for layer in range(config.ttt_freeze_blocks))
    return [
        param
        for name, param in model.named_parameters()
        if name.endswith(".weight") or not name.startswith(frozen)
    ]


@torch.no_grad()
def muon_update(params: list[Tensor], lr: float) -> None:
    """No momentum, decay or shape factor; vectors take the clipped gradient itself."""
    for param in params:
        if param.grad is None:
            continue
        param.sub_(lr * (newton_schulz(param.grad) if param.ndim >= 2 else param.grad))


class ChunkTrainer:
    """Adapts the model to chunks that are already scored."""

    def __init__(self, config: Published, model: Model, data: Validation):
        self.config, self.model, self.data = config, model, data
        self.params = trainable(config, model)
        self.sgd = torch.optim.SGD(self.params, lr=config.ttt_lr, momentum=config.ttt_momentum)

    def update(self, inputs_BT: Tensor, targets_BT: Tensor, lr: float) -> None:
        self.model.zero_grad()
        self.model(inputs_BT, targets_BT).backward()
        if self.config.ttt_grad_clip:
            torch.nn.utils.clip_grad_norm_(self.params, self.config.ttt_grad_clip)
        if self.config.ttt == "sgd":
            self.sgd.param_groups[0]["lr"] = lr
            self.sgd.step()
        else:
            muon_update(self.params, lr)

    def train_chunk(self, start: int, end: int, lr: float) -> None:
        length, most = self.config.train_seq_len, self.config.ttt_batch_seqs
        sequences = (end - start) // length
        for _ in range(self.config.ttt_epochs):
            for first in range(0, sequences, most):
                begin = start + first * length
                stop = start + min(first + most, sequences) * length
                inputs_BT = self.data.ids[begin:stop].view(-1, length)
                targets_BT = self.data.ids[begin + 1 : stop + 1].view(-1, length)
                self.update(inputs_BT, targets_BT, lr)

    def late_qat(self, on: bool) -> None:
        for path in (self.model.bigram, self.model.ve_shared):
            if path is not None and path.proj is not None:
                path.proj.late_qat = on and self.config.ttt_late_qat


def score_first_ttt(config: Published, model: Model, data: Validation) -> Score:
    """Scores every chunk before training on it; leaves the model as the last update made it."""
    chunk, score = config.ttt_chunk_tokens, Score()
    chunks = math.ceil(data.total / chunk)
    members: list[list[Window]] = [[] for _ in range(chunks)]
    for window in sliding_windows(config, data.total):
        if window.length >= config.eval_stride:
            members[(window.start + window.first) // chunk].append(window)
    trainer = ChunkTrainer(config, model, data)
    for index, windows in enumerate(members):
        score_windows(config, model, data, windows, score)
        if index < chunks - 1:
            lr = config.ttt_lr * 0.5 * (1 + math.cos(math.pi * index / (chunks - 1)))
            trainer.late_qat(True)
            trainer.train_chunk(index * chunk, min((index + 1) * chunk, data.total), lr)
            trainer.late_qat(False)
    return score


def fit_delta(config: Published, model: Model, h_BTD: Tensor, targets_BT: Tensor) -> Tensor:
    """One vector for all windows of the batch, fitted on every position, padding included."""
    delta_11D = torch.zeros(1, 1, h_BTD.shape[-1], requires_grad=True)
    optimizer = torch.optim.AdamW(
        [delta_11D], lr=config.slot_lr, betas=(0.9, 0.999), eps=1e-5, weight_decay=1e-8
    )
    for _ in range(config.slot_steps):
        logits_BTV = model.head(h_BTD + delta_11D)
        loss = F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())
        (delta_11D.grad,) = torch.autograd.grad(loss, [delta_11D])
        optimizer.step()
    return delta_11D.detach()


def slot(config: Published, model: Model, data: Validation) -> Score:
    """Each rank (of ``loader_world``) makes batches of its own contiguous share of the windows."""
    score = Score()
    windows, world = sliding_windows(config, data.total), config.loader_world
    bounds = [len(windows) * rank // world for rank in range(world + 1)]
    shares = [windows[low:high] for low, high in pairwise(bounds)]
    for batch in (batch for share in shares for batch in batched(config, share)):
        inputs_BT, targets_BT = padded(config, data, batch)
        with torch.no_grad():
            h_BTD = model.hidden(inputs_BT)
        delta_11D = fit_delta(config, model, h_BTD, targets_BT)
        with torch.no_grad():
            logits_BTV = model.head(h_BTD + delta_11D)
        add_scores(score, data, batch, token_nll(logits_BTV, targets_BT))
    return score
