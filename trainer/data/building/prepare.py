"""How does a corpus become a dataset that nobody ever sees half built?

Built in a folder beside its place and renamed whole. A dataset that is there stays: results depend
on it, and another Python ships another text.
"""

import contextlib
import errno
import secrets
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from sentencepiece import SentencePieceProcessor

from trainer.config.config_errors import ConfigError
from trainer.data.building.corpus import Corpus
from trainer.data.byte_audit import audited, ensure_audited
from trainer.data.manifest import (
    MANIFEST_FILE,
    TOKENIZER_FILE,
    Dataset,
    Manifest,
    Shard,
    open_dataset,
    read_manifest,
    write_manifest,
)
from trainer.data.shards import write_shard
from trainer.data.token_bytes import ByteTable
from trainer.data.tokenizer import BOS_ID, Document, parse_tokenizer, train_tokenizer
from trainer.files import file_sha256, write_atomically

SHARD_TOKENS = 100_000_000


@dataclass(frozen=True)
class Prepared:
    """A dataset that can be used, how it came about, and what a person should know of it."""

    status: Literal["built", "adopted", "fetched", "up to date", "kept"]
    dataset: Dataset
    note: str | None


def is_buildable(dataset: str) -> bool:
    """Whether ``dataset`` names something that this package builds, and so may replace."""
    return dataset.startswith("stdlib")


def check_buildable(dataset: str, root: Path) -> None:
    """ConfigError unless ``dataset`` is buildable."""
    if not is_buildable(dataset):
        raise ConfigError(
            f"dataset {dataset!r} cannot be built here. What can be: stdlib-NAME, such as "
            f"stdlib-1024, from the text that every Python ships (--set data.dataset=stdlib-1024). "
            f"The FineWeb export is fetched where it is not there yet; its datasets are called "
            f"fineweb10B_sp1024 and alike. Shards that were made elsewhere go into "
            f"{root / dataset}, and `python -m trainer.data adopt {root / dataset} --tokenizer "
            f"FILE` makes a dataset of them."
        )


def find_adopted(dataset: str, vocab_size: int, root: Path) -> Prepared | None:
    """The dataset of that name if it was made elsewhere and is there.

    The content of its training shards (16 GB in the published export) is not read again: that is
    what adopting it once more does.
    """
    if is_buildable(dataset) or not (root / dataset / MANIFEST_FILE).exists():
        return None
    ensure_audited(root / dataset)
    return Prepared("up to date", open_dataset(root / dataset, vocab_size), None)


def prepare(
    dataset: str, vocab_size: int, root: Path, corpus: Corpus, *, rebuild: bool = False
) -> Prepared:
    """Make ``root/dataset`` a whole dataset; build it only if it is not one, or on ``rebuild``."""
    check_buildable(dataset, root)
    target = root / dataset
    reason = None
    if target.exists() and not rebuild:
        try:
            return _existing(target, vocab_size, corpus)
        except _DamagedError as damage:
            reason = f"what was there could not be used: {damage}"
    check_replaceable(target)
    workplace = root / f".{dataset}.{secrets.token_hex(4)}.building"
    try:
        build_dataset(workplace, dataset, vocab_size, corpus)
        if not install(workplace, target, replace=rebuild or reason is not None):
            return _existing(target, vocab_size, corpus)  # another build was faster
    finally:
        shutil.rmtree(workplace, ignore_errors=True)
    return Prepared("built", open_dataset(target, vocab_size), reason)


def build_dataset(
    directory: Path,
    dataset: str,
    vocab_size: int,
    corpus: Corpus,
    *,
    shard_tokens: int = SHARD_TOKENS,
) -> Manifest:
    """Write the dataset's files into the new folder ``directory``, the manifest last.

    Every document is prefixed with BOS; there is no EOS. The same corpus gives the same files.
    ConfigError if a split is empty, or if bytes counted over tokens are not those of the text.
    """
    for name, documents in (("training", corpus.train), ("validation", corpus.validation)):
        if not documents:
            raise ConfigError(
                f"{corpus.source} leaves no document for {name}: a dataset needs both splits. "
                f"Use a larger corpus."
            )
    directory.mkdir(parents=True)
    model = train_tokenizer(corpus.train, vocab_size)
    write_atomically(directory / TOKENIZER_FILE, model)
    processor = parse_tokenizer(model)
    table = ByteTable.from_tokenizer(processor, vocab_size)
    train_N = encode_documents(processor, corpus.train)
    val_N = encode_documents(processor, corpus.validation)
    manifest = Manifest(
        dataset=dataset,
        vocab_size=vocab_size,
        corpus_sha256=corpus.sha256,
        tokenizer_sha256=file_sha256(directory / TOKENIZER_FILE),
        train_bytes=_checked_bytes(table, train_N, corpus.train),
        val_bytes=_checked_bytes(table, val_N, corpus.validation),
        train=tuple(_write_shards(directory, f"{dataset}_train", train_N, shard_tokens)),
        validation=tuple(_write_shards(directory, f"{dataset}_val", val_N, shard_tokens)),
        num_train_documents=len(corpus.train),
        num_val_documents=len(corpus.validation),
        source=corpus.source,
    )
    val_paths = [directory / shard.name for shard in manifest.validation]
    manifest = audited(manifest, val_paths, processor)
    write_manifest(directory, manifest)
    return manifest


def encode_documents(
    processor: SentencePieceProcessor, documents: Sequence[Document]
) -> npt.NDArray[np.uint16]:
    """The documents as one row of tokens (N,), each behind a BOS."""
    rows = [np.array([BOS_ID, *processor.encode(each.text)], np.uint16) for each in documents]
    return np.concatenate([np.empty(0, np.uint16), *rows])


class _DamagedError(ConfigError):
    """The folder is there and is no dataset that can be used; building it anew helps."""


def _existing(target: Path, vocab_size: int, corpus: Corpus) -> Prepared:
    try:
        ensure_audited(target)
        manifest = read_manifest(target)
        dataset = open_dataset(target, manifest.vocab_size, hash_train=True)
    except ConfigError as error:
        raise _DamagedError(str(error)) from None
    if manifest.vocab_size != vocab_size:
        raise ConfigError(
            f"{target} was built with a vocabulary of {manifest.vocab_size}, and the recipe's "
            f"model.vocab_size is {vocab_size}. Give the other one its own name "
            f"(--set data.dataset=stdlib-{vocab_size}), or replace it with --rebuild."
        )
    if manifest.corpus_sha256 == corpus.sha256:
        return Prepared("up to date", dataset, None)
    note = (
        f"it was built from another text ({manifest.source}) than this one ({corpus.source}) and "
        f"stays, since results depend on it; --rebuild replaces it"
    )
    return Prepared("kept", dataset, note)


def check_replaceable(target: Path) -> None:
    """ConfigError if the folder holds a file that no build writes: it may be someone's work."""
    entries = sorted(target.iterdir()) if target.is_dir() else []
    foreign = [each.name for each in entries if not _is_ours(each)]
    if foreign or (target.exists() and not target.is_dir()):
        raise ConfigError(
            f"{target} cannot be replaced: found {', '.join(foreign) or 'a file'}, expected a "
            f"folder with nothing but a dataset in it. Move it away and run this again."
        )


def _is_ours(path: Path) -> bool:
    return path.name in (MANIFEST_FILE, TOKENIZER_FILE) or path.suffix == ".bin"


def install(workplace: Path, target: Path, *, replace: bool) -> bool:
    """Rename ``workplace`` to ``target``; False if another dataset came to stand there."""
    if replace:
        old = workplace.with_suffix(".replaced")
        with contextlib.suppress(FileNotFoundError):
            target.rename(old)
        shutil.rmtree(old, ignore_errors=True)
    try:
        workplace.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def _checked_bytes(
    table: ByteTable, tokens_N: npt.NDArray[np.uint16], documents: Sequence[Document]
) -> int:
    """The text's bytes, counted over its tokens, which must agree with its UTF-8 length.

    Nothing is left over: the one space that the rule does not count, in front of a document, is
    the one that SentencePiece put there; a space that the text begins with comes after it.
    """
    counted = int(table.count(tokens_N[:-1], tokens_N[1:]).sum())
    expected = sum(document.num_bytes for document in documents)
    if counted != expected:
        raise ConfigError(
            f"the tokens stand for {counted} bytes and their documents have {expected}: bits per "
            f"byte would be wrong, so nothing was written. This SentencePiece tokenizes with loss; "
            f"install one that the project is tested with (sentencepiece 0.2)."
        )
    return expected


def _write_shards(
    directory: Path, prefix: str, tokens_N: npt.NDArray[np.uint16], shard_tokens: int
) -> Iterator[Shard]:
    for index, start in enumerate(range(0, tokens_N.size, shard_tokens)):
        path = directory / f"{prefix}_{index:06d}.bin"
        part = tokens_N[start : start + shard_tokens]
        write_shard(path, part)
        yield Shard(name=path.name, num_tokens=part.size, sha256=file_sha256(path))
