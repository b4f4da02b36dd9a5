"""What the model knows of a position before its first layer."""

import torch

from trainer.model.embeddings import bigram_hash


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
