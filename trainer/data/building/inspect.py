"""Inspect a dataset: describe what it holds, check all of it, and show its tokens as text."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from trainer.config.config_errors import ConfigError
from trainer.data.byte_audit import audit_dataset, drops_first_space
from trainer.data.manifest import Dataset, Manifest, open_dataset
from trainer.data.shard_counts import count_sidecar, count_split
from trainer.data.shards import HEADER_BYTES, TOKEN_BYTES, open_shard
from trainer.data.token_bytes import RULE_VERSION
from trainer.data.tokenizer import BOS_ID


def inspect_dataset(directory: Path) -> Iterator[str]:
    """Check everything and say what was found beyond the manifest, a line each.

    ConfigError names the first thing that is wrong: the hash, the header and every token of each
    shard, documents and bytes of both splits, a sample of documents that is encoded again, and the
    audit of the validation split, whether or not the manifest says that it was made.
    """
    dataset = open_dataset(directory, hash_train=True, unaudited=True)
    manifest = dataset.manifest
    for kind, paths, num_documents, num_bytes in (
        ("validation", dataset.val_paths, manifest.num_val_documents, manifest.val_bytes),
        ("training", dataset.train_paths, manifest.num_train_documents, manifest.train_bytes),
    ):
        counts = count_split(paths, dataset.byte_table)
        if kind == "validation" and manifest.byte_sidecar is not None:
            counts = counts._replace(num_bytes=count_sidecar(dataset.sidecar_paths)[1])
        for what, found, stated in (
            ("documents", counts.num_documents, num_documents),
            ("bytes", counts.num_bytes, num_bytes),
        ):
            if found != stated:
                raise ConfigError(
                    f"{directory}: found {found:,} {what} in the {kind} shards, expected "
                    f"{stated:,} as the manifest says. Make or adopt it again."
                )
    audit = audit_dataset(manifest, dataset.val_paths, dataset.processor)
    yield f"pieces       {_pieces(dataset)}"
    left_out = f"left out by the rule: {audit.uncounted_spaces:,} spaces"
    if manifest.byte_sidecar is not None:
        left_out = "those of the original are in the byte sidecar"
    yield (
        f"audit        {audit.counted_bytes:,} bytes counted in {audit.num_documents:,} validation "
        f"documents, {audit.text_bytes:,} in their text; {left_out}"
    )
    if audit.cut_bytes:
        yield f"             {audit.cut_bytes:,} bytes of characters that documents end within"
    if manifest.audited != RULE_VERSION:
        yield (
            "             the manifest does not say so, and recipes refuse the data until "
            "`python -m trainer.data prepare` or `adopt` has written it down"
        )
    named = {shard.name for shard in manifest.shards}
    if others := sorted({each.name for each in directory.glob("*.bin")} - named):
        yield f"unused       {', '.join(others)}: the manifest names no such shards"
    yield "sound        every hash, header, count and token was checked"


def description(manifest: Manifest) -> Iterator[str]:
    """What the manifest says, a line each."""
    yield f"dataset      {manifest.dataset}, {manifest.source}"
    yield f"corpus       {manifest.corpus_sha256}"
    yield f"tokenizer    {manifest.tokenizer_sha256}, {manifest.vocab_size:,} pieces"
    splits = (
        ("train", manifest.num_train_documents, manifest.train_bytes, manifest.train),
        ("validation", manifest.num_val_documents, manifest.val_bytes, manifest.validation),
    )
    for name, num_documents, num_bytes, shards in splits:
        num_tokens = sum(shard.num_tokens for shard in shards)
        ratio = f", {num_bytes / num_tokens:.4f} bytes per token" if num_tokens else ""
        yield (
            f"{name:<12} {num_documents:,} documents, {num_tokens:,} tokens, {num_bytes:,} bytes"
            f"{ratio}"
        )
        for shard in shards:
            size = HEADER_BYTES + TOKEN_BYTES * shard.num_tokens
            yield f"  {shard.name}  {shard.num_tokens:,} tokens, {size:,} bytes"
    for shard in manifest.byte_sidecar or ():
        yield f"  {shard.name}  {shard.num_tokens:,} byte counts of the original text"
    if manifest.val_raw_bytes is not None:
        lost = manifest.val_raw_bytes - manifest.val_bytes
        yield f"raw text     {manifest.val_raw_bytes:,} bytes of validation, {lost:,} not counted"


def span_text(directory: Path, split: str, start: int, count: int, *, pieces: bool) -> str:
    """Tokens ``start`` to ``start + count`` of ``split`` as text, every document behind a ``<s>``.

    As ``pieces``, one token is told from the next by a bar, and nothing is decoded.
    """
    dataset = open_dataset(directory, unaudited=True)
    paths = dataset.train_paths if split == "train" else dataset.val_paths
    shards = [open_shard(path) for path in paths]
    num_tokens = sum(tokens_N.size for tokens_N in shards)
    if not 0 <= start < num_tokens or count < 1:
        raise ConfigError(
            f"--start {start} --count {count}: the {split} split of {directory} has tokens 0 to "
            f"{num_tokens - 1}. Choose a start among them and a count of 1 or more."
        )
    parts = []
    for tokens_N in shards:
        parts.append(tokens_N[min(start, tokens_N.size) :][:count])
        start = max(0, start - tokens_N.size)
        count -= parts[-1].size
    span_N = np.concatenate(parts)
    processor = dataset.processor
    if pieces:
        return "|".join(processor.id_to_piece(token) for token in span_N.tolist())
    documents = np.split(span_N, np.flatnonzero(span_N == BOS_ID))
    begun = ["<s>" + processor.decode(each[1:].tolist()) for each in documents[1:]]
    return "\n".join([processor.decode(documents[0].tolist()), *begun]).removeprefix("\n")


def _pieces(dataset: Dataset) -> str:
    processor, table = dataset.processor, dataset.byte_table
    num_bytes = sum(processor.is_byte(token) for token in range(processor.vocab_size()))
    spaced = int(table.has_leading_space.sum())
    fallback = f"{num_bytes} bytes (byte fallback)" if num_bytes else "no byte fallback"
    first = "left out" if drops_first_space(processor, table) else "kept"
    return (
        f"{processor.vocab_size():,} of SentencePiece: {fallback}, {spaced:,} with a space in "
        f"front, which is {first} at a document's start"
    )
