"""What is in these shards: how much text, and exactly which?

Every shard is read once, from end to end, for its hash, its documents and its bytes alike; shards
may be read in any order, or in parallel, and are joined to a stream afterwards. N tokens.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainer.config.config_errors import ConfigError
from trainer.data.manifest import Dataset, Manifest, Shard
from trainer.data.shards import HEADER_BYTES, open_shard
from trainer.data.token_bytes import ByteTable
from trainer.data.tokenizer import BOS_ID

CHUNK_TOKENS = 1 << 20  # counting takes some 30 bytes of memory for each


@dataclass(frozen=True)
class Ends:
    """The first and the last token of a row that is not empty."""

    first: int
    last: int


@dataclass(frozen=True)
class Contents:
    """A shard, read. ``num_bytes`` are those of all its tokens but the first, whose leading space
    counts or not according to the shard before.
    """

    shard: Shard
    num_documents: int
    num_bytes: int
    ends: Ends | None


@dataclass(frozen=True)
class Split:
    """Shards as one stream. Its own first token is nobody's target, so its bytes do not count."""

    shards: tuple[Shard, ...] = ()
    num_documents: int = 0
    num_bytes: int = 0
    last: int | None = None

    def followed_by(self, contents: Sequence[Contents], table: ByteTable) -> "Split":
        """This stream with those shards behind it."""
        num_bytes, last = self.num_bytes, self.last
        for each in contents:
            num_bytes += each.num_bytes
            if each.ends is not None:
                if last is not None:
                    joint = np.array([last, each.ends.first])
                    num_bytes += int(table.count(joint[:1], joint[1:]).sum())
                last = each.ends.last
        return Split(
            shards=self.shards + tuple(each.shard for each in contents),
            num_documents=self.num_documents + sum(each.num_documents for each in contents),
            num_bytes=num_bytes,
            last=last,
        )


def read_shard(path: Path, table: ByteTable, name: str | None = None) -> Contents:
    """All of the shard in ``path``, by default of the file's own name.

    ConfigError unless the header fits the file and the tokenizer of ``table`` has every token.
    A shard of 10⁸ tokens takes 2 s.
    """
    tokens_N = open_shard(path)
    with path.open("rb") as file:
        digest = hashlib.sha256(file.read(HEADER_BYTES))
    num_documents, num_bytes = 0, 0
    before = np.empty(0, np.uint16)
    for start in range(0, tokens_N.size, CHUNK_TOKENS):
        chunk = np.array(tokens_N[start : start + CHUNK_TOKENS])
        digest.update(chunk.data)
        if chunk.max() >= table.base_bytes.size:
            raise ConfigError(
                f"shard {path}: found token {chunk.max()}, expected tokens below "
                f"{table.base_bytes.size}, the tokenizer's number of pieces. Name the tokenizer "
                f"that it was written with (--tokenizer)."
            )
        row = np.concatenate([before, chunk])
        num_bytes += int(table.count(row[:-1], row[1:]).sum())
        num_documents += int(np.count_nonzero(chunk == BOS_ID))
        before = chunk[-1:]
    shard = Shard(name=name or path.name, num_tokens=tokens_N.size, sha256=digest.hexdigest())
    ends = Ends(int(tokens_N[0]), int(tokens_N[-1])) if tokens_N.size else None
    return Contents(shard, num_documents, num_bytes, ends)


def described_train(dataset: Dataset) -> Split:
    """The training stream as the dataset's manifest describes it; only its end is read."""
    manifest = dataset.manifest
    last = next((shard for shard in reversed(manifest.train) if shard.num_tokens), None)
    return Split(
        shards=manifest.train,
        num_documents=manifest.num_train_documents,
        num_bytes=manifest.train_bytes,
        last=None if last is None else int(open_shard(dataset.directory / last.name)[-1]),
    )


def corpus_hash(train: Sequence[Shard], validation: Sequence[Shard]) -> str:
    """The SHA-256 that stands for the text: of a line for each shard, validation first.

    A line is the split, the shard's name and its SHA-256, with a space between and a newline
    behind. The names are in it since the coprime order is drawn from them; the folder is not.
    """
    lines = [f"validation {shard.name} {shard.sha256}\n" for shard in validation]
    lines += [f"train {shard.name} {shard.sha256}\n" for shard in train]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def describe(
    dataset: str,
    *,
    vocab_size: int,
    tokenizer_sha256: str,
    train: Split,
    validation: Split,
    source: str,
) -> Manifest:
    """The manifest of shards that were made elsewhere."""
    return Manifest(
        dataset=dataset,
        vocab_size=vocab_size,
        corpus_sha256=corpus_hash(train.shards, validation.shards),
        tokenizer_sha256=tokenizer_sha256,
        train=train.shards,
        validation=validation.shards,
        num_train_documents=train.num_documents,
        num_val_documents=validation.num_documents,
        train_bytes=train.num_bytes,
        val_bytes=validation.num_bytes,
        source=source,
    )
