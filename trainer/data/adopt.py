"""How do shards that were made elsewhere become a dataset?

They are read from end to end, described by a manifest, and left as they are. N tokens.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError
from sentencepiece import SentencePieceProcessor

from trainer.data.bytes import ByteTable
from trainer.data.manifest import (
    MANIFEST_FILE,
    MAX_VOCAB_SIZE,
    SHARD_NAME,
    TOKENIZER_FILE,
    Dataset,
    Manifest,
    Shard,
    read_manifest,
    write_manifest,
)
from trainer.data.prepare import Prepared, is_buildable
from trainer.data.shards import open_shard
from trainer.data.tokenizer import BOS_ID, load_tokenizer
from trainer.files import file_sha256, write_atomically
from trainer.recipe.data import Data
from trainer.strict import ConfigError

SOURCE = "shards that were made elsewhere"
CHUNK_TOKENS = 1 << 20  # counting takes some 30 bytes of memory for each


def adopt(directory: Path, tokenizer: Path, dataset: str | None = None) -> Prepared:
    """Make ``directory``, which holds shards, a dataset, by default of the folder's own name.

    Every ``*_train_*.bin`` and ``*_val_*.bin`` is taken, in lexicographic order, and read whole.
    ``tokenizer`` is copied beside them and the manifest written last; where ConfigError is raised,
    or the writing fails, neither is left. Doing it again checks everything and changes nothing.
    A shard of 10⁸ tokens takes 2 s.
    """
    name = dataset or directory.absolute().name
    _check_name(name)
    train, validation = _shard_paths(directory)
    before = _manifest_before(directory)
    processor = _checked_tokenizer(tokenizer, directory)
    manifest = _describe(name, processor, tokenizer, train, validation)
    if before is not None and before != manifest:
        raise ConfigError(
            f"{directory / MANIFEST_FILE} describes another dataset than what is here: its "
            f"{_differences(before, manifest)} would change, and results may depend on it. Move "
            f"it away to adopt these shards anew, or fetch again what it describes."
        )
    _complete(directory, manifest, tokenizer.read_bytes())
    found = Dataset(directory=directory, manifest=manifest, vocab_size=manifest.vocab_size)
    return Prepared("adopted" if before is None else "up to date", found, None)


def corpus_hash(train: Sequence[Shard], validation: Sequence[Shard]) -> str:
    """The SHA-256 that stands for the text: of a line for each shard, validation first.

    A line is the split, the shard's name and its SHA-256, with a space between and a newline
    behind. The names are in it since the coprime order is drawn from them; the folder is not.
    """
    lines = [f"validation {shard.name} {shard.sha256}\n" for shard in validation]
    lines += [f"train {shard.name} {shard.sha256}\n" for shard in train]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@dataclass(frozen=True)
class _Split:
    shards: tuple[Shard, ...]
    num_documents: int
    num_bytes: int


def _describe(
    name: str,
    processor: SentencePieceProcessor,
    tokenizer: Path,
    train_paths: Sequence[Path],
    val_paths: Sequence[Path],
) -> Manifest:
    table = ByteTable.from_tokenizer(processor, processor.vocab_size())
    validation = _read(val_paths, table)
    train = _read(train_paths, table)
    return Manifest(
        dataset=name,
        vocab_size=processor.vocab_size(),
        corpus_sha256=corpus_hash(train.shards, validation.shards),
        tokenizer_sha256=file_sha256(tokenizer),
        train=train.shards,
        validation=validation.shards,
        num_train_documents=train.num_documents,
        num_val_documents=validation.num_documents,
        train_bytes=train.num_bytes,
        val_bytes=validation.num_bytes,
        source=SOURCE,
    )


def _read(paths: Sequence[Path], table: ByteTable) -> _Split:
    """A split's shards as one stream: the token before a shard's first is the last of the one
    before it. The stream's own first token is nobody's target, so its bytes do not count.
    """
    shards, num_documents, num_bytes = [], 0, 0
    before = np.empty(0, np.uint16)
    for path in paths:
        tokens_N = open_shard(path)
        for start in range(0, tokens_N.size, CHUNK_TOKENS):
            chunk = tokens_N[start : start + CHUNK_TOKENS]
            _check_tokens(path, chunk, table.base_bytes.size)
            row = np.concatenate([before, chunk])
            num_bytes += int(table.count(row[:-1], row[1:]).sum())
            num_documents += int(np.count_nonzero(chunk == BOS_ID))
            before = chunk[-1:]
        shards.append(Shard(name=path.name, num_tokens=tokens_N.size, sha256=file_sha256(path)))
    return _Split(tuple(shards), num_documents, num_bytes)


def _shard_paths(directory: Path) -> tuple[list[Path], list[Path]]:
    """Training and validation shards, each with a good header and a name that a manifest takes."""
    if not directory.is_dir():
        raise ConfigError(f"{directory}: there is no such folder. Name the one with the shards.")
    train, validation = (sorted(directory.glob(f"*_{part}_*.bin")) for part in ("train", "val"))
    for path in (*train, *validation):
        if not re.match(SHARD_NAME, path.name) or (path in train and path in validation):
            raise ConfigError(
                f"{path}: not the name of a shard. It has one of _train_ and _val_ in it, and "
                f"otherwise letters, digits, dots, dashes and underscores. Rename or remove it."
            )
    for kind, example, paths in (("training", "train", train), ("validation", "val", validation)):
        if not paths:
            raise ConfigError(
                f"{directory} holds no {kind} shard: found {len(train)} files *_train_*.bin and "
                f"{len(validation)} *_val_*.bin, and a dataset needs one of each or more, such as "
                f"fineweb_{example}_000000.bin. Fetch what is missing, or name another folder."
            )
        if sum(open_shard(path).size for path in paths) < 2:
            raise ConfigError(f"{directory}: the {kind} shards hold nothing to predict.")
    return train, validation


def _manifest_before(directory: Path) -> Manifest | None:
    if not (directory / MANIFEST_FILE).exists():
        return None
    try:
        return read_manifest(directory)
    except ConfigError as error:
        raise ConfigError(
            f"{error}\n{directory / MANIFEST_FILE} is in the way: move it away."
        ) from None


def _checked_tokenizer(path: Path, directory: Path) -> SentencePieceProcessor:
    processor = load_tokenizer(path)
    if processor.bos_id() != BOS_ID or not 4 <= processor.vocab_size() <= MAX_VOCAB_SIZE:
        raise ConfigError(
            f"{path}: found {processor.vocab_size()} pieces and {processor.bos_id()} for the "
            f"beginning of a document, expected 4 to {MAX_VOCAB_SIZE} pieces and {BOS_ID}. Name "
            f"the tokenizer that the shards were written with."
        )
    there = directory / TOKENIZER_FILE
    if there.exists() and there.read_bytes() != path.read_bytes():
        raise ConfigError(
            f"{there} is another tokenizer than {path}. Name it (--tokenizer {there}) if the "
            f"shards were written with it; otherwise move it away."
        )
    return processor


def _check_tokens(path: Path, tokens_N: npt.NDArray[np.uint16], vocab_size: int) -> None:
    if tokens_N.max() >= vocab_size:
        raise ConfigError(
            f"shard {path}: found token {tokens_N.max()}, expected tokens below {vocab_size}, the "
            f"tokenizer's number of pieces. Name the tokenizer that it was written with "
            f"(--tokenizer)."
        )


def _check_name(name: str) -> None:
    try:
        Data(dataset=name)
        fits = not is_buildable(name)
    except ValidationError:
        fits = False
    if not fits:
        raise ConfigError(
            f"{name!r} cannot be the name of an adopted dataset: it begins with a letter or digit, "
            f"goes on with these, dots, dashes and underscores, and does not begin with stdlib, "
            f"which is for what is built here. Give another, such as --dataset fineweb10B_sp1024."
        )


def _differences(before: Manifest, now: Manifest) -> str:
    keys = [key for key, value in before if value != getattr(now, key)]
    return ", ".join(keys)


def _complete(directory: Path, manifest: Manifest, model: bytes) -> None:
    """Write what is missing of tokenizer and manifest: all of it, or nothing."""
    paths = directory / TOKENIZER_FILE, directory / MANIFEST_FILE
    missing = [path for path in paths if not path.exists()]
    try:
        if paths[0] in missing:
            write_atomically(paths[0], model)
        if paths[1] in missing:
            write_manifest(directory, manifest)
    except BaseException:
        for path in missing:
            path.unlink(missing_ok=True)
        raise
