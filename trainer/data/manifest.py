"""Read, check and write a dataset's manifest: what its folder holds, by name, size and hash.

A dataset is a folder with ``tokenizer.model``, shards and ``manifest.json``, which says what the
rest must be. :func:`open_dataset` believes nothing that it can check cheaply.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field
from sentencepiece import SentencePieceProcessor

from trainer.config.config_errors import ConfigError, StrictModel, parse_object, validated
from trainer.contract import Sha256
from trainer.data.shards import RESTORE, load_stream, open_shard
from trainer.data.token_bytes import RULE_VERSION, ByteTable
from trainer.data.tokenizer import load_tokenizer
from trainer.files import file_sha256, write_atomically

MANIFEST_FILE = "manifest.json"
TOKENIZER_FILE = "tokenizer.model"

SHARD_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*\.bin$"
MAX_VOCAB_SIZE = 65536  # a token has 16 bits

_AGAIN = (
    f" `make data` rebuilds a dataset that was built here; where {MANIFEST_FILE} is in the way of "
    f"shards that were made elsewhere, move it away and `python -m trainer.data adopt` describes "
    f"them."
)

Count = Annotated[int, Field(ge=0)]


class Shard(StrictModel):
    """A file of the dataset's folder: its name, its tokens, and its content."""

    name: Annotated[str, Field(pattern=SHARD_NAME)]
    num_tokens: Count
    sha256: Sha256


Shards = Annotated[tuple[Shard, ...], Field(strict=False, min_length=1)]


class Manifest(StrictModel):
    """What a dataset's folder holds. Bytes are those of the text, counted by the byte table.

    ``audited`` is the version of the byte rule for which every validation document's count was held
    against its text and found right. ``val_raw_bytes`` are those of the validation text before the
    tokenizer normalised it, where that text was at hand.
    """

    manifest_version: Literal[1] = 1
    dataset: str
    vocab_size: Annotated[int, Field(ge=4, le=MAX_VOCAB_SIZE)]
    corpus_sha256: Sha256
    tokenizer_sha256: Sha256
    train: Shards
    validation: Shards
    byte_sidecar: Shards | None = None
    num_train_documents: Count
    num_val_documents: Count
    train_bytes: Count
    val_bytes: Count
    val_raw_bytes: Count | None = None
    audited: Annotated[int, Field(ge=1)] | None = None
    source: str

    @property
    def num_train_tokens(self) -> int:
        return sum(shard.num_tokens for shard in self.train)

    @property
    def num_val_tokens(self) -> int:
        return sum(shard.num_tokens for shard in self.validation)

    @property
    def shards(self) -> tuple[Shard, ...]:
        """All of them."""
        return (*self.train, *self.validation, *(self.byte_sidecar or ()))


@dataclass(frozen=True)
class Dataset:
    """A folder that has been checked against its manifest and a model's vocabulary."""

    directory: Path
    manifest: Manifest
    vocab_size: int

    @property
    def tokenizer_path(self) -> Path:
        return self.directory / TOKENIZER_FILE

    @property
    def train_paths(self) -> list[Path]:
        return [self.directory / shard.name for shard in self.manifest.train]

    @property
    def val_paths(self) -> list[Path]:
        return [self.directory / shard.name for shard in self.manifest.validation]

    @property
    def sidecar_paths(self) -> list[Path]:
        return [self.directory / shard.name for shard in self.manifest.byte_sidecar or ()]

    @cached_property
    def processor(self) -> SentencePieceProcessor:
        return load_tokenizer(self.tokenizer_path)

    @cached_property
    def byte_table(self) -> ByteTable:
        return ByteTable.from_tokenizer(self.processor, self.vocab_size)

    def val_target_bytes(self, tokens_N: npt.NDArray[np.uint16]) -> npt.NDArray[np.int64]:
        """Bytes of each target (N - 1) of the first N validation tokens."""
        if self.manifest.byte_sidecar is None:
            return self.byte_table.count(tokens_N[:-1], tokens_N[1:])
        return load_stream(self.sidecar_paths)[1 : tokens_N.size].astype(np.int64)


@dataclass(frozen=True)
class Prepared:
    """A dataset that can be used, how it came about, and what a person should know of it."""

    status: Literal["built", "adopted", "fetched", "up to date", "kept"]
    dataset: Dataset
    note: str | None


def open_dataset(
    directory: Path,
    vocab_size: int | None = None,
    *,
    hash_train: bool = False,
    unaudited: bool = False,
) -> Dataset:
    """The dataset in ``directory``, for a model of ``vocab_size`` tokens, by default its own.

    Checks the tokenizer (content, vocabulary), every shard's header and size, and the content of
    the validation shards; of the training shards (80 files of 200 MB in the published export) only
    if ``hash_train``. ConfigError on the first thing that does not fit, and, but for ``unaudited``,
    where the manifest does not say that bytes were counted as the byte table counts them now.
    """
    manifest = read_manifest(directory)
    if manifest.audited != RULE_VERSION and not unaudited:
        raise ConfigError(
            f"{directory}: its manifest says audited = {manifest.audited}, expected "
            f"{RULE_VERSION}: nobody has held the bytes that are counted against the text, and "
            f"scores may be wrong. `make data RECIPE=NAME`, or `python -m trainer.data prepare "
            f"--recipe NAME --root {directory.parent}`, does it once and writes it down."
        )
    vocab_size = manifest.vocab_size if vocab_size is None else vocab_size
    _check_tokenizer(directory / TOKENIZER_FILE, manifest, vocab_size)
    _check_shards(directory, manifest.train, vocab_size if hash_train else None)
    _check_shards(directory, manifest.validation, vocab_size)
    _check_shards(directory, manifest.byte_sidecar or (), MAX_VOCAB_SIZE)
    return Dataset(directory=directory, manifest=manifest, vocab_size=vocab_size)


def read_manifest(directory: Path) -> Manifest:
    """The manifest in ``directory``; ConfigError if there is none that is valid."""
    path = directory / MANIFEST_FILE
    try:
        data = path.read_bytes()
    except OSError:
        found = "there is no such folder" if not directory.is_dir() else f"no {MANIFEST_FILE} in it"
        raise ConfigError(
            f"{directory}: {found}, so there is no dataset to read. Build it with "
            f"`make data RECIPE=NAME`, or `python -m trainer.data prepare --recipe NAME "
            f"--root {directory.parent}`; shards that were made elsewhere are adopted with "
            f"`python -m trainer.data adopt {directory} --tokenizer FILE`."
        ) from None
    values = parse_object(data, str(path), _AGAIN)
    try:
        return validated(Manifest, values, str(path))
    except ConfigError as error:
        first, *others = str(error).splitlines()
        more = f" {len(others)} more of its keys are missing or wrong." if others else ""
        raise ConfigError(f"{first}{more}{_AGAIN}") from None


def check_content(
    directory: Path, manifest: Manifest, corpus_sha256: str, tokenizer_sha256: str
) -> None:
    """ConfigError unless the dataset in ``directory`` is of this corpus and tokenizer."""
    found = manifest.corpus_sha256, manifest.tokenizer_sha256
    if found != (corpus_sha256, tokenizer_sha256):
        raise ConfigError(
            f"{directory}: the cell asks for corpus {corpus_sha256[:12]} and tokenizer "
            f"{tokenizer_sha256[:12]}, here are {found[0][:12]} and {found[1][:12]}. Make the "
            f"data the same on every node, or point at the data that was meant."
        )


def write_manifest(directory: Path, manifest: Manifest) -> None:
    text = json.dumps(manifest.model_dump(mode="json"), indent=2, ensure_ascii=False)
    write_atomically(directory / MANIFEST_FILE, f"{text}\n".encode())


def _check_tokenizer(path: Path, manifest: Manifest, vocab_size: int) -> None:
    num_pieces = load_tokenizer(path).vocab_size()
    _check_hash(path, manifest.tokenizer_sha256)
    if num_pieces != vocab_size or manifest.vocab_size != vocab_size:
        raise ConfigError(
            f"{path}: a tokenizer that does not fit: it has {num_pieces} pieces (the manifest says "
            f"{manifest.vocab_size}) and the recipe's vocab_size is {vocab_size}. Set "
            f"model.vocab_size = {num_pieces}, or name another data.dataset and run `make data`."
        )


def _check_shards(directory: Path, shards: Sequence[Shard], vocab_size: int | None) -> None:
    """Header, size and count of each; with ``vocab_size``, content and largest token too."""
    for shard in shards:
        path = directory / shard.name
        tokens = open_shard(path)
        if tokens.size != shard.num_tokens:
            raise ConfigError(
                f"shard {path}: found {tokens.size} tokens, expected {shard.num_tokens} as its "
                f"manifest says. {RESTORE}"
            )
        if vocab_size is None:
            continue
        _check_hash(path, shard.sha256)
        if tokens.size and tokens.max() >= vocab_size:
            raise ConfigError(
                f"shard {path}: found token {tokens.max()}, expected tokens below the vocabulary "
                f"of {vocab_size}: it was written with another tokenizer. {RESTORE}"
            )


def _check_hash(path: Path, expected: str) -> None:
    found = file_sha256(path)
    if found != expected:
        raise ConfigError(
            f"{path}: found content {found[:16]}…, expected {expected[:16]}… as its manifest says: "
            f"the file was changed or belongs to another dataset. {RESTORE}"
        )
