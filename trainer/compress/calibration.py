"""Hessians of the inputs of every matrix, for GPTQ, and text generated to take them on.

The Hessian of a matrix W is H = XᵀX for its inputs X: replacing W by W' changes its outputs by
tr((W − W')·H·(W − W')ᵀ) in squares. Q, K and V of a layer share one.

At 11 layers of width 512 with 1536 hidden channels the sums take 139 MB (104 of them for the
down-projections), and what is returned 162 MB. Source: parameter-golf PR #1135 (training data) and
#1019 (generated text). Shapes: L layers, B sequences, T tokens, V vocabulary, C inputs of a matrix,
N matrices of a parameter, S all sequences.
"""

from collections.abc import Callable, Iterable
from itertools import islice

import torch
from torch import Tensor

from trainer.config import Gptq
from trainer.distributed.world import World
from trainer.model import GPT

PROJECTIONS = {"bigram_in": "bigram.proj", "value_in": "value_embedding.proj"}
SMALLEST_MEAN = 1e-6  # what damping is relative to where a matrix sees nothing at all


def hessians(
    model: GPT,
    batches: Iterable[Tensor],
    num_batches: int,
    config: Gptq,
    world: World,
    beat: Callable[[], None] = lambda: None,
) -> dict[str, Tensor]:
    """For every bank and projection of ``model`` its damped Hessians (N, C, C), in their order.

    ``batches`` gives the same ``num_batches`` or more token batches (B, T) to every rank, which
    takes every ``world.size``-th of them. One batch is summed in the precision of the model's
    products (rounded to bfloat16 where it computes in that, as published), all of them in float32.
    The sum is divided by their number, and damping · mean diagonal is added to the diagonal.
    ``beat`` is called after each batch.
    """
    sums = {
        site: torch.zeros(num, size, size, device=world.device)
        for site, (num, size) in _inputs(model).items()
    }

    def add(site: str, layer: int, x: Tensor) -> None:
        if site in sums:
            flat = x.flatten(0, -2)
            sums[site][layer] += flat.T @ flat

    model.eval()
    with torch.inference_mode():
        for index, tokens_BT in enumerate(islice(batches, num_batches)):
            if index % world.size == world.rank:
                model.body(tokens_BT.to(world.device), tap=add)
                beat()
    for site, sum_LCC in sums.items():
        sums[site] = _damped(world.sum_(sum_LCC) / num_batches, config.damping)
    seen = sums["attention_in"]
    projections = {name: sums[site] for site, name in PROJECTIONS.items() if site in sums}
    return projections | {
        "qo_bank": torch.cat([seen, sums["attention_out"]]),
        "kv_bank": torch.cat([seen, seen]),
        "up_bank": sums["mlp_in"],
        "down_bank": sums["mlp_hidden"],
    }


def generate(
    model: GPT,
    config: Gptq,
    *,
    length: int,
    seed: int,
    world: World,
    beat: Callable[[], None] | None = None,
) -> list[Tensor]:
    """``config.sequences`` sequences that ``model`` writes itself, in batches (B, T).

    The first token is drawn evenly, each later one at ``config.temperature``, all from one
    generator in the order of the batches, as published. The ranks share the batches, and a rank
    makes the draws of the others' too: the text does not depend on their number. ``beat`` is called
    for every token.
    """
    vocab_size, draw = len(model.embed), torch.Generator(world.device).manual_seed(seed)
    tokens_ST = torch.zeros(config.sequences, length, dtype=torch.int64, device=world.device)
    model.eval()
    with torch.inference_mode():
        for index, tokens_BT in enumerate(torch.split(tokens_ST, config.sequence_batch)):
            mine = index % world.size == world.rank
            size, where = len(tokens_BT), world.device
            first_B = torch.randint(vocab_size, (size,), generator=draw, device=where)
            if mine:
                tokens_BT[:, 0] = first_B
            for t in range(1, length):
                # p / noise is greatest at v with probability p_v: what torch.multinomial does.
                noise_BV = torch.empty(size, vocab_size, device=where).exponential_(generator=draw)
                if mine:
                    p_BV = _next_token(model, tokens_BT[:, :t], config.temperature)
                    tokens_BT[:, t] = (p_BV / noise_BV).argmax(dim=-1)
                    if beat is not None:
                        beat()
    world.sum_(tokens_ST)
    return list(torch.split(tokens_ST, config.sequence_batch))


def _inputs(model: GPT) -> dict[str, tuple[int, int]]:
    """What the tap shows of what goes into a matrix: in how many layers, and C."""
    num_layers, width, hidden = model.config.num_layers, model.embed.size(1), model.up_bank.size(1)
    inputs = dict.fromkeys(("attention_in", "attention_out", "mlp_in"), (num_layers, width))
    inputs["mlp_hidden"] = (num_layers, hidden)
    parameters = dict(model.named_parameters())
    for site, name in PROJECTIONS.items():
        if name in parameters:
            inputs[site] = (1, parameters[name].size(1))
    return inputs


def _next_token(model: GPT, tokens_BT: Tensor, temperature: float) -> Tensor:
    """Probabilities (B, V) of what follows ``tokens_BT``."""
    logits_BV = model.head(model.body(tokens_BT, tail=1))[:, 0].float()
    return torch.softmax(logits_BV / temperature, dim=-1)


def _damped(hessian_LCC: Tensor, damping: float) -> Tensor:
    diagonal_LC = hessian_LCC.diagonal(dim1=1, dim2=2)
    added_L1 = damping * diagonal_LC.mean(dim=1, keepdim=True).clamp(min=SMALLEST_MEAN)
    return hessian_LCC + torch.diag_embed(added_L1.expand_as(diagonal_LC))
