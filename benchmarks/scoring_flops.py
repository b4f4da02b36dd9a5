"""How many floating-point operations does it take to score a sequence?"""

from dataclasses import dataclass

from trainer.config import Model


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Floating-point operations of matrix products and attention, a multiply-add counted as two."""

    plain: float
    ours: float


def flops(model: Model, length: int, tail: int) -> float:
    """Of the logits of the last ``tail`` of ``length`` positions, in one sequence.

    Attention is counted where it looks: each query at its own position and all before it.
    """
    width, kv, hidden = model.width, model.kv_dim, model.mlp_hidden
    keys_and_values = 2 * length * width * 2 * kv

    def rest_of_layer(positions: int) -> float:
        seen = sum(range(length - positions + 1, length + 1))
        products = 2 * positions * (2 * width * width + 2 * width * hidden)
        return products + 2 * seen * 2 * width

    embeddings = 0
    if model.bigram is not None and model.bigram.dim != width:
        embeddings += 2 * length * model.bigram.dim * width
    if model.value_embedding is not None and model.value_embedding.dim != kv:
        embeddings += 2 * length * model.value_embedding.dim * kv
    layers = (model.num_layers - 1) * rest_of_layer(length) + rest_of_layer(tail)
    head = 2 * tail * width * model.vocab_size
    return embeddings + model.num_layers * keys_and_values + layers + head
