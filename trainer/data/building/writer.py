"""Write a dataset: encode documents, audit them, and write shards, tokenizer and manifest.

A stream of tokens becomes shards without ever being in memory as a whole. A dataset is written into
a folder beside its place and renamed when it is whole. N tokens.
"""

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from trainer.config.config_errors import ConfigError
from trainer.data.building.corpus import CorpusHash
from trainer.data.building.documents import SplitDocument
from trainer.data.building.encode import EncodedSplit, encode
from trainer.data.building.scan import Progress
from trainer.data.byte_audit import Auditor, require_sound
from trainer.data.manifest import MANIFEST_FILE, TOKENIZER_FILE, Manifest, Shard, write_manifest
from trainer.data.shards import HEADER_BYTES, shard_header
from trainer.data.token_bytes import RULE_VERSION, ByteTable
from trainer.data.tokenizer import parse_tokenizer
from trainer.files import file_sha256, write_atomically

SHARD_TOKENS = 100_000_000


@dataclass(frozen=True, kw_only=True)
class WriteOptions:
    """What the documents are, as their first reading found, and how they are written.

    ``lossless``: the counted bytes must be those of the text, which no normalisation changed.
    """

    name: str
    source: str
    corpus_sha256: str
    shard_tokens: int = SHARD_TOKENS
    workers: int = 1
    lossless: bool = False


def write_dataset(
    folder: Path,
    documents: Iterable[SplitDocument],
    model: bytes,
    options: WriteOptions,
    progress: Progress | None = None,
) -> Manifest:
    """Write the files of a dataset into the empty ``folder``, the manifest last.

    Every document that is not empty is prefixed with BOS; there is no EOS. The same documents and
    the same tokenizer ``model`` give the same files. ConfigError if the documents are not those of
    the first reading, or if bytes counted over tokens are not those of the text.
    """
    write_atomically(folder / TOKENIZER_FILE, model)
    processor = parse_tokenizer(model)
    vocab_size = processor.vocab_size()
    auditor = Auditor(processor, ByteTable.from_tokenizer(processor, vocab_size))
    with (
        CorpusHash() as corpus_hash,
        ShardWriter(folder, f"{options.name}_train", options.shard_tokens) as train_shards,
        ShardWriter(folder, f"{options.name}_val", options.shard_tokens) as val_shards,
    ):
        train, validation = _SplitWriter(train_shards), _SplitWriter(val_shards)
        for chunk in encode(_hashed(documents, corpus_hash), model, options.workers):
            train.add(chunk.train)
            validation.add(chunk.validation)
            auditor.feed(chunk.validation.tokens_N)
            require_sound(auditor.found, f"dataset {options.name}")  # at the first, not after hours
            if progress is not None:
                num_documents = train.num_documents + validation.num_documents
                progress("cut into tokens", num_documents, train.raw_bytes + validation.raw_bytes)
        if corpus_hash.hexdigest() != options.corpus_sha256:
            raise ConfigError(
                "the text changed while it was read. Run this again once it is complete."
            )
    require_sound(auditor.finish(), f"dataset {options.name}")
    if options.lossless:
        train.check_lossless()
        validation.check_lossless()
    manifest = _manifest(options, model, vocab_size, train, validation)
    write_manifest(folder, manifest)
    return manifest


@contextlib.contextmanager
def build_folder(target: Path) -> Iterator[Path]:
    """A new hidden folder beside ``target``; what is still in it afterwards is removed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = target.with_name(f".{target.name}.{secrets.token_hex(4)}.building")
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def install(folder: Path, target: Path, *, replace: bool) -> bool:
    """Rename ``folder`` to ``target``; False if another dataset came to stand there."""
    if replace:
        old = folder.with_suffix(".replaced")
        with contextlib.suppress(FileNotFoundError):
            target.rename(old)
        shutil.rmtree(old, ignore_errors=True)
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def check_replaceable(target: Path) -> None:
    """ConfigError if the folder holds a file that no build writes: it may be someone's work."""
    entries = sorted(target.iterdir()) if target.is_dir() else []
    foreign = [each.name for each in entries if not _is_of_a_dataset(each)]
    if foreign or (target.exists() and not target.is_dir()):
        raise ConfigError(
            f"{target} cannot be replaced: found {', '.join(foreign) or 'a file'}, expected a "
            f"folder with nothing but a dataset in it. Move it away and run this again."
        )


def _is_of_a_dataset(path: Path) -> bool:
    return path.name in (MANIFEST_FILE, TOKENIZER_FILE) or path.suffix == ".bin"


def _hashed(documents: Iterable[SplitDocument], corpus_hash: CorpusHash) -> Iterator[SplitDocument]:
    """Those that are not empty, added to the hash on their way."""
    for each in documents:
        if each.document.text:
            corpus_hash.add(each)
            yield each


@dataclass
class _SplitWriter:
    shards: "ShardWriter"
    num_documents: int = 0
    num_bytes: int = 0
    raw_bytes: int = 0

    def add(self, part: EncodedSplit) -> None:
        self.shards.append(part.tokens_N)
        self.num_documents += part.num_documents
        self.num_bytes += part.num_bytes
        self.raw_bytes += part.raw_bytes

    def check_lossless(self) -> None:
        """ConfigError unless the bytes counted over the tokens are the text's UTF-8 length.

        Nothing is left over: the one space that the rule does not count, in front of a document, is
        the one that SentencePiece put there; a space that the text begins with comes after it.
        """
        if self.num_bytes != self.raw_bytes:
            raise ConfigError(
                f"the tokens stand for {self.num_bytes} bytes and their documents have "
                f"{self.raw_bytes}: bits per byte would be wrong, so nothing was written. This "
                f"SentencePiece tokenizes with loss; install one that the project is tested with "
                f"(sentencepiece 0.2)."
            )


def _manifest(
    options: WriteOptions,
    model: bytes,
    vocab_size: int,
    train: _SplitWriter,
    validation: _SplitWriter,
) -> Manifest:
    return Manifest(
        dataset=options.name,
        vocab_size=vocab_size,
        corpus_sha256=options.corpus_sha256,
        tokenizer_sha256=hashlib.sha256(model).hexdigest(),
        train=tuple(train.shards.shards),
        validation=tuple(validation.shards.shards),
        num_train_documents=train.num_documents,
        num_val_documents=validation.num_documents,
        train_bytes=train.num_bytes,
        val_bytes=validation.num_bytes,
        val_raw_bytes=None if options.lossless else validation.raw_bytes,
        audited=RULE_VERSION,
        source=options.source,
    )


class ShardWriter:
    """Writes ``folder/prefix_000000.bin`` and so on, each of ``shard_tokens`` but the last.

    For a folder that nobody reads yet: a shard has no header until it is complete. Documents go on
    from one shard to the next, as in the published export.
    """

    def __init__(self, folder: Path, prefix: str, shard_tokens: int) -> None:
        self._folder = folder
        self._prefix = prefix
        self._shard_tokens = shard_tokens
        self._file: BinaryIO | None = None
        self._path = folder
        self._num_tokens = 0  # in the open file
        self.shards: list[Shard] = []

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._complete()
        elif self._file is not None:
            self._file.close()

    def append(self, tokens_N: npt.NDArray[np.uint16]) -> None:
        """The next tokens of the stream."""
        while tokens_N.size:
            if self._file is None:
                self._begin()
            assert self._file is not None
            part = tokens_N[: self._shard_tokens - self._num_tokens]
            self._file.write(part.astype("<u2", copy=False).data)
            self._num_tokens += part.size
            tokens_N = tokens_N[part.size :]
            if self._num_tokens == self._shard_tokens:
                self._complete()

    def _begin(self) -> None:
        self._path = self._folder / f"{self._prefix}_{len(self.shards):06d}.bin"
        self._file = self._path.open("xb")
        self._file.write(bytes(HEADER_BYTES))

    def _complete(self) -> None:
        """Give the open file its header and make it durable."""
        if self._file is None:
            return
        with self._file:
            self._file.seek(0)
            self._file.write(shard_header(self._num_tokens))
            self._file.flush()
            os.fsync(self._file.fileno())
        self.shards.append(
            Shard(
                name=self._path.name,
                num_tokens=self._num_tokens,
                sha256=file_sha256(self._path),
            )
        )
        self._file, self._num_tokens = None, 0
