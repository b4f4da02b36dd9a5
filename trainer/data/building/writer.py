"""Write a dataset: encode documents, audit them, and write shards, tokenizer and manifest.

A stream of tokens becomes shards without ever being in memory as a whole. A dataset is written into
a folder beside its place and renamed when it is whole. N tokens.
"""

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from trainer.config.config_errors import ConfigError
from trainer.data.building.documents import SplitDocument
from trainer.data.building.encode import encode
from trainer.data.building.scan import Contents, Progress, Tally, silent
from trainer.data.byte_audit import Auditor, loses_little, require_sound, require_text_kept
from trainer.data.manifest import MANIFEST_FILE, TOKENIZER_FILE, Manifest, write_manifest
from trainer.data.shard_counts import ShardPaths, describe_shards
from trainer.data.shards import HEADER_BYTES, shard_header
from trainer.data.token_bytes import RULE_VERSION, ByteTable
from trainer.data.tokenizer import parse_tokenizer
from trainer.files import write_atomically

SHARD_TOKENS = 100_000_000


@dataclass(frozen=True, kw_only=True)
class WriteOptions:
    """What the documents are, as their first reading found, and how they are written.

    ``lossless``: the counted bytes must be those of the text, which no normalisation changed.
    """

    name: str
    source: str
    contents: Contents
    shard_tokens: int = SHARD_TOKENS
    workers: int = 1
    lossless: bool = False


def write_dataset(
    folder: Path,
    documents: Iterable[SplitDocument],
    model: bytes,
    options: WriteOptions,
    progress: Progress = silent,
) -> Manifest:
    """Write the files of a dataset into the empty ``folder``, the manifest last.

    Every document that is not empty is prefixed with BOS; there is no EOS. The same documents and
    the same tokenizer ``model`` give the same files. ConfigError if the documents are not those of
    the first reading, or if bytes counted over tokens are not those of the text.
    """
    write_atomically(folder / TOKENIZER_FILE, model)
    processor = parse_tokenizer(model)
    table = ByteTable.from_tokenizer(processor, processor.vocab_size())
    auditor, where = Auditor(processor, table), f"dataset {options.name}"
    require_text_kept(processor, table, where, as_published=True)
    with (
        closing(Tally("cut into tokens", progress)) as tally,
        closing(ShardWriter(folder / f"{options.name}_train", options.shard_tokens)) as train,
        closing(ShardWriter(folder / f"{options.name}_val", options.shard_tokens)) as validation,
    ):
        for chunk in encode(tally.read(documents), model, options.workers):
            train.append(chunk.train)
            validation.append(chunk.validation)
            auditor.feed(chunk.validation)
            require_sound(auditor.found, where)  # at the first, not after hours
        if tally.contents() != options.contents:
            raise ConfigError(
                "the text changed while it was read. Run this again once it is complete."
            )
    require_sound(auditor.finish(), where)
    manifest = describe_shards(
        options.name,
        folder / TOKENIZER_FILE,
        ShardPaths(train.paths, validation.paths),
        options.source,
        options.contents.corpus_sha256,
    )
    val_raw_bytes = None if options.lossless else options.contents.val_bytes
    changes = {"audited": RULE_VERSION, "val_raw_bytes": val_raw_bytes}
    manifest = manifest.model_copy(update=changes)
    if options.lossless:
        _check_lossless(manifest, options.contents)
    elif not loses_little(manifest):
        raise ConfigError(
            f"{where}: of {val_raw_bytes:,} bytes of validation text the tokenizer's normalisation "
            f"leaves {manifest.val_bytes:,}, so bits per byte would be wrong. Leave --tokenizer "
            f"out (--vocab-size N learns one that keeps all), or name another."
        )
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
    foreign = [
        each.name
        for each in (sorted(target.iterdir()) if target.is_dir() else ())
        if each.name not in (MANIFEST_FILE, TOKENIZER_FILE) and each.suffix != ".bin"
    ]
    if foreign or (target.exists() and not target.is_dir()):
        raise ConfigError(
            f"{target} cannot be replaced: found {', '.join(foreign) or 'a file'}, expected a "
            f"folder with nothing but a dataset in it. Move it away and run this again."
        )


def _check_lossless(manifest: Manifest, contents: Contents) -> None:
    """ConfigError unless the bytes counted over the tokens are the text's UTF-8 length.

    Nothing is left over: the one space that the rule does not count, in front of a document, is the
    one that SentencePiece put there; a space that the text begins with comes after it.
    """
    counted = manifest.train_bytes, manifest.val_bytes
    if counted != (contents.train_bytes, contents.val_bytes):
        raise ConfigError(
            f"the tokens stand for {sum(counted)} bytes and their documents have "
            f"{contents.train_bytes + contents.val_bytes}: bits per byte would be wrong, so "
            f"nothing was written. This SentencePiece tokenizes with loss; install one that the "
            f"project is tested with (sentencepiece 0.2)."
        )


class ShardWriter:
    """Writes ``prefix_000000.bin`` and so on, each of ``shard_tokens`` but the last.

    For a folder that nobody reads yet: a shard has no header until it is complete. Documents go on
    from one shard to the next, as in the published export.
    """

    def __init__(self, prefix: Path, shard_tokens: int) -> None:
        self._prefix, self._shard_tokens = prefix, shard_tokens
        self._file: BinaryIO | None = None
        self._num_tokens = 0  # in the open file
        self.paths: list[Path] = []

    def append(self, tokens_N: npt.NDArray[np.uint16]) -> None:
        """The next tokens of the stream."""
        while tokens_N.size:
            if self._file is None:
                self._file = self._begin()
            part = tokens_N[: self._shard_tokens - self._num_tokens]
            self._file.write(part.astype("<u2", copy=False).data)
            self._num_tokens += part.size
            tokens_N = tokens_N[part.size :]
            if self._num_tokens == self._shard_tokens:
                self.close()

    def close(self) -> None:
        """Give the open file its header and make it durable."""
        if self._file is not None:
            with self._file as file:
                file.seek(0)
                file.write(shard_header(self._num_tokens))
                file.flush()
                os.fsync(file.fileno())
            self._file, self._num_tokens = None, 0

    def _begin(self) -> BinaryIO:
        path = self._prefix.with_name(f"{self._prefix.name}_{len(self.paths):06d}.bin")
        self.paths.append(path)
        file = path.open("xb")
        file.write(bytes(HEADER_BYTES))
        return file
