"""What the model knows of a position before its first layer."""

import torch

from tests.support.drawn_tensors import normal
from tests.support.tiny import VOCAB_SIZE, random_tokens, tiny_recipe
from trainer.model.embeddings import HashedBigram, bigram_hash, smear

T = 32


def test_smear_mixes_each_position_with_the_one_before_and_the_first_with_nothing():
    x, gate = normal(2, 5, 4), normal(4, seed=1)
    g = torch.sigmoid(gate)
    y = smear(x, gate)
    assert torch.equal(y[:, 0], (1 - g) * x[:, 0] + g * 0)
    assert torch.equal(y[:, 1:], (1 - g) * x[:, 1:] + g * x[:, :-1])


def test_the_bigram_hash_is_the_published_one():
    """In Python integers; the sum of two products of 16 bits each wraps around at 32."""
    tokens = torch.randint(65536, (2, 50), generator=torch.Generator().manual_seed(0))

    def wrap(value):
        return (value + 2**31) % 2**32 - 2**31

    for size in (2, 512, 1536):
        hashed = bigram_hash(tokens, size, (36313, 27191)).tolist()
        for row, found in zip(tokens.tolist(), hashed, strict=True):
            pairs = zip(row[1:], row[:-1], strict=True)
            rest = [(wrap(36313 * a) ^ wrap(27191 * b)) % (size - 1) for a, b in pairs]
            assert found == [size - 1, *rest]
            assert all(0 <= bucket <= size - 2 for bucket in found[1:])


def test_the_bigram_sees_its_own_and_the_last_token_alone():
    module = HashedBigram(tiny_recipe().model.bigram, 32)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(normal(*parameter.shape))
    tokens = random_tokens(1, T)
    for position in (0, 7, T - 1):
        changed = tokens.clone()
        changed[:, position] = (changed[:, position] + 1) % VOCAB_SIZE
        differs = (module(tokens) != module(changed)).any(dim=-1)[0].nonzero().flatten().tolist()
        assert set(differs) <= {position, position + 1}
        assert position + 1 in differs or position == T - 1
