"""Describe token shards: count their documents and bytes, and hash them, in one reading.

N tokens.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trainer.config.config_errors import ConfigError
from trainer.data.manifest import Manifest, Shard
from trainer.data.shards import HEADER_BYTES, load_stream, open_shard
from trainer.data.token_bytes import ByteTable
from trainer.data.tokenizer import BOS_ID, load_tokenizer
from trainer.files import file_sha256

CHUNK_TOKENS = 1 << 18  # counting takes some 30 bytes of memory for each


class SplitCounts(NamedTuple):
    """Shards as one stream. Its own first token is nobody's target, so its bytes do not count."""

    shards: tuple[Shard, ...]
    num_documents: int
    num_bytes: int


class ShardPaths(NamedTuple):
    """The shards of a dataset, each in its order; those of the byte sidecar if it has one."""

    train: Sequence[Path]
    validation: Sequence[Path]
    byte_sidecar: Sequence[Path] = ()


def count_split(paths: Sequence[Path], table: ByteTable) -> SplitCounts:
    """All of the shards of a split, in their order.

    ConfigError unless each header fits its file and the tokenizer of ``table`` has every token.
    A shard of 10⁸ tokens takes 2 s.
    """
    shards = []
    num_documents, num_bytes = 0, 0
    last_N = np.empty(0, np.uint16)
    for path in paths:
        num_tokens = open_shard(path).size
        with path.open("rb") as file:  # a map would count as memory of the process
            digest = hashlib.sha256(file.read(HEADER_BYTES))
            while (chunk := np.fromfile(file, "<u2", CHUNK_TOKENS)).size:
                digest.update(chunk.data)
                if chunk.max() >= table.base_bytes.size:
                    raise ConfigError(
                        f"shard {path}: found token {chunk.max()}, expected tokens below "
                        f"{table.base_bytes.size}, the tokenizer's number of pieces. Name the "
                        f"tokenizer that it was written with (--tokenizer)."
                    )
                row = np.concatenate([last_N, chunk])
                num_bytes += int(table.count(row[:-1], row[1:]).sum())
                num_documents += int(np.count_nonzero(chunk == BOS_ID))
                last_N = chunk[-1:]
        shards.append(Shard(name=path.name, num_tokens=num_tokens, sha256=digest.hexdigest()))
    return SplitCounts(tuple(shards), num_documents, num_bytes)


def count_sidecar(paths: Sequence[Path]) -> tuple[tuple[Shard, ...], int]:
    """The shards of a byte sidecar, and the bytes of all targets: the first token is none."""
    shards = tuple(
        Shard(name=path.name, num_tokens=open_shard(path).size, sha256=file_sha256(path))
        for path in paths
    )
    return shards, int(load_stream(paths)[1:].sum(dtype=np.int64))


def describe_shards(
    name: str,
    tokenizer: Path,
    paths: ShardPaths,
    source: str,
    corpus_sha256: str | None = None,
) -> Manifest:
    """The manifest of shards that nobody has audited yet; all of them are read.

    ``corpus_sha256`` is :func:`hash_of_shards` where the text is not at hand.
    """
    processor = load_tokenizer(tokenizer)
    table = ByteTable.from_tokenizer(processor, processor.vocab_size())
    validation, train = count_split(paths.validation, table), count_split(paths.train, table)
    sidecar, val_bytes = None, validation.num_bytes
    if paths.byte_sidecar:
        sidecar, val_bytes = count_sidecar(paths.byte_sidecar)
    return Manifest(
        dataset=name,
        vocab_size=processor.vocab_size(),
        corpus_sha256=corpus_sha256
        or hash_of_shards(train.shards, validation.shards, sidecar or ()),
        tokenizer_sha256=file_sha256(tokenizer),
        train=train.shards,
        validation=validation.shards,
        byte_sidecar=sidecar,
        num_train_documents=train.num_documents,
        num_val_documents=validation.num_documents,
        train_bytes=train.num_bytes,
        val_bytes=val_bytes,
        source=source,
    )


def hash_of_shards(
    train: Sequence[Shard], validation: Sequence[Shard], sidecar: Sequence[Shard] = ()
) -> str:
    """The ``corpus_sha256`` of shards whose text is not at hand: of a line for each.

    Validation comes first, a byte sidecar last. A line is the split (``validation``, ``train`` or
    ``bytes``), the shard's name and its SHA-256, with a space between and a newline behind. The
    names are in it since the coprime order is drawn from them; the folder is not.
    """
    lines = [f"validation {shard.name} {shard.sha256}\n" for shard in validation]
    lines += [f"train {shard.name} {shard.sha256}\n" for shard in train]
    lines += [f"bytes {shard.name} {shard.sha256}\n" for shard in sidecar]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
