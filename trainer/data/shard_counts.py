"""Count the documents and bytes of token shards, and hash them, in one reading.

Every shard is read from end to end by itself; counts are joined to those of a stream afterwards.
N tokens.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from trainer.config.config_errors import ConfigError
from trainer.data.manifest import Shard
from trainer.data.shards import HEADER_BYTES, open_shard
from trainer.data.token_bytes import ByteTable
from trainer.data.tokenizer import BOS_ID

CHUNK_TOKENS = 1 << 20  # counting takes some 30 bytes of memory for each


@dataclass(frozen=True)
class ShardCounts:
    """A shard, read. ``num_bytes`` are those of all its tokens but the first, whose leading space
    counts or not according to the shard before.
    """

    shard: Shard
    num_documents: int
    num_bytes: int
    first_and_last: tuple[int, int] | None  # tokens; None if there is none


@dataclass(frozen=True)
class SplitCounts:
    """Shards as one stream. Its own first token is nobody's target, so its bytes do not count."""

    shards: tuple[Shard, ...]
    num_documents: int
    num_bytes: int


def count_split(paths: Sequence[Path], table: ByteTable) -> SplitCounts:
    """All of the shards of a split, in their order."""
    counts = [count_shard(path, table) for path in paths]
    num_bytes = sum(each.num_bytes for each in counts)
    ends = [each.first_and_last for each in counts if each.first_and_last is not None]
    for (_, last), (first, _) in pairwise(ends):
        num_bytes += int(table.count(np.array([last]), np.array([first])).sum())
    return SplitCounts(
        shards=tuple(each.shard for each in counts),
        num_documents=sum(each.num_documents for each in counts),
        num_bytes=num_bytes,
    )


def count_shard(path: Path, table: ByteTable) -> ShardCounts:
    """All of the shard in ``path``.

    ConfigError unless the header fits the file and the tokenizer of ``table`` has every token.
    A shard of 10⁸ tokens takes 2 s.
    """
    tokens_N = open_shard(path)
    with path.open("rb") as file:
        digest = hashlib.sha256(file.read(HEADER_BYTES))
    num_documents, num_bytes = 0, 0
    last_N = np.empty(0, np.uint16)
    for start in range(0, tokens_N.size, CHUNK_TOKENS):
        chunk = np.array(tokens_N[start : start + CHUNK_TOKENS])
        digest.update(chunk.data)
        if chunk.max() >= table.base_bytes.size:
            raise ConfigError(
                f"shard {path}: found token {chunk.max()}, expected tokens below "
                f"{table.base_bytes.size}, the tokenizer's number of pieces. Name the tokenizer "
                f"that it was written with (--tokenizer)."
            )
        row = np.concatenate([last_N, chunk])
        num_bytes += int(table.count(row[:-1], row[1:]).sum())
        num_documents += int(np.count_nonzero(chunk == BOS_ID))
        last_N = chunk[-1:]
    shard = Shard(name=path.name, num_tokens=tokens_N.size, sha256=digest.hexdigest())
    ends = (int(tokens_N[0]), int(tokens_N[-1])) if tokens_N.size else None
    return ShardCounts(shard, num_documents, num_bytes, ends)


def hash_of_shards(train: Sequence[Shard], validation: Sequence[Shard]) -> str:
    """The ``corpus_sha256`` of shards whose text is not at hand: of a line for each.

    Validation comes first. A line is the split, the shard's name and its SHA-256, with a space
    between and a newline behind. The names are in it since the coprime order is drawn from them;
    the folder is not.
    """
    lines = [f"validation {shard.name} {shard.sha256}\n" for shard in validation]
    lines += [f"train {shard.name} {shard.sha256}\n" for shard in train]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
