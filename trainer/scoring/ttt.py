"""What does a model score that may learn from the text it has already scored?

Score-first test-time training: the stream is cut into chunks; every chunk is scored, and only then
trained on, so that no score depends on a token that comes later. Source: parameter-golf PR #549
(docs/recipes.md); ours scores the last stride once where the published script scores it again.
"""

import math
from collections.abc import Iterator

import torch

from trainer.model import GPT
from trainer.recipe import TTT, Scoring
from trainer.scoring.bpb import Score, Sink, Stream, local_sums, to_score
from trainer.scoring.windows import by_chunk, windows
from trainer.world import World


def adapt_and_score(
    model: GPT,
    stream: Stream,
    *,
    scoring: Scoring,
    ttt: TTT,
    world: World,
    sink: Sink | None = None,
) -> Score:
    """The sliding score of ``stream`` with ``model`` adapted on every chunk already scored.

    Adapts ``model`` in place: hand in a private copy. Every parameter is trained, by SGD with a
    momentum that persists over chunks; the rate follows half a cosine over the chunks.
    """
    chunks = by_chunk(
        windows(stream.num_targets, scoring.seq_len, scoring.stride), ttt.chunk_tokens
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=ttt.lr, momentum=ttt.momentum)
    sums = torch.zeros(3, dtype=torch.float64, device=stream.tokens.device)
    for index, plan in enumerate(chunks):
        mine = world.share(len(plan))
        sums += local_sums(model, stream, plan[mine.start : mine.stop], scoring.batch_seqs, sink)
        if index + 1 < len(chunks):
            progress = index / max(len(chunks) - 1, 1)
            optimizer.param_groups[0]["lr"] = ttt.lr * 0.5 * (1 + math.cos(math.pi * progress))
            first = index * ttt.chunk_tokens
            _adapt(
                model,
                stream,
                range(first, first + ttt.chunk_tokens),
                optimizer,
                scoring,
                ttt,
                world,
            )
    return to_score(world.sum_(sums))


def _adapt(
    model: GPT,
    stream: Stream,
    chunk: range,
    optimizer: torch.optim.Optimizer,
    scoring: Scoring,
    ttt: TTT,
    world: World,
) -> None:
    model.train()
    parameters = list(model.parameters())
    for starts in _sequence_batches(chunk, scoring.seq_len, ttt):
        mine = world.share(len(starts))
        local = starts[mine.start : mine.stop]
        if local:
            offsets = torch.arange(scoring.seq_len, device=stream.tokens.device)
            index_BT = torch.tensor(local, device=stream.tokens.device)[:, None] + offsets
            nll_BT = model.nll(stream.tokens[index_BT], stream.tokens[index_BT + 1])
            torch.autograd.backward(nll_BT.sum() / (len(starts) * scoring.seq_len))
        world.sum_gradients(parameters)
        if ttt.grad_clip is not None:
            torch.nn.utils.clip_grad_norm_(parameters, ttt.grad_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def _sequence_batches(chunk: range, seq_len: int, ttt: TTT) -> Iterator[list[int]]:
    starts = list(range(chunk.start, chunk.stop, seq_len))
    for _ in range(ttt.epochs):
        for i in range(0, len(starts), ttt.batch_seqs):
            yield starts[i : i + ttt.batch_seqs]
