"""How does a shard come to stand in its folder whole and verified, or not at all?

What comes is collected under another name in a folder of its own, checked from end to end, and only
then renamed. What is there already is checked likewise, and stays if it is right.
"""

import hashlib
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trainer.config.config_errors import ConfigError
from trainer.data.building.adopt import check_tokenizer
from trainer.data.download.hub import GONE, Hub, HubError, OnBytes, RemoteFile
from trainer.data.manifest import TOKENIZER_FILE
from trainer.data.shard_contents import Contents, read_shard
from trainer.data.token_bytes import ByteTable
from trainer.data.tokenizer import parse_tokenizer
from trainer.files import write_atomically

WORKPLACE = ".fetch"


@contextmanager
def workplace(directory: Path) -> Iterator[None]:
    """The folder for what has not come whole; it goes when everything has, and stays otherwise."""
    (directory / WORKPLACE).mkdir(parents=True, exist_ok=True)
    yield
    shutil.rmtree(directory / WORKPLACE, ignore_errors=True)


def bring_tokenizer(hub: Hub, file: RemoteFile, directory: Path, vocab_size: int) -> ByteTable:
    """Make the dataset's tokenizer stand in the folder; ConfigError if it is for another model."""
    path = directory / TOKENIZER_FILE
    is_there = path.exists() and file.is_content(path.read_bytes())
    content = path.read_bytes() if is_there else hub.read(file)
    try:
        processor = parse_tokenizer(content)
    except (RuntimeError, ValueError):
        raise ConfigError(f"{file.path} from {hub.where} is no SentencePiece model.") from None
    check_tokenizer(processor, path)
    if processor.vocab_size() != vocab_size:
        raise ConfigError(
            f"{file.path} has {processor.vocab_size()} pieces, and the recipe's model.vocab_size "
            f"is {vocab_size}: nothing was fetched. Set model.vocab_size = "
            f"{processor.vocab_size()}, or name another data.dataset."
        )
    if not is_there:
        write_atomically(path, content)
    return ByteTable.from_tokenizer(processor, vocab_size)


def partial_path(directory: Path, file: RemoteFile) -> Path:
    """Where the bytes of the file are collected; another content has another place."""
    version = (file.digest or file.commit)[:16]
    return directory / WORKPLACE / f"{file.name}.{version}.part"


def missing_bytes(directory: Path, file: RemoteFile) -> int:
    """What has yet to come if whatever is there is right."""
    if _size(directory / file.name) == file.size:
        return 0
    collected = _size(partial_path(directory, file))
    return file.size - (collected if collected <= file.size else 0)


@dataclass(frozen=True)
class Brought:
    """A shard that is there now; ``note`` if a file had to be fetched again for it."""

    contents: Contents
    note: str | None


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """From ``hub`` into ``directory``, for shards of the tokenizer that ``table`` was made of."""

    hub: Hub
    directory: Path
    table: ByteTable
    stop: threading.Event
    on_bytes: OnBytes

    def bring(self, file: RemoteFile) -> Brought:
        """Make ``file`` stand in the folder. ConfigError if what comes is wrong twice."""
        target = self.directory / file.name
        note = None
        if target.exists():
            try:
                return Brought(self._checked(target, file), None)
            except _WrongFileError as wrong:
                note = str(wrong)
                if _size(target) == file.size:
                    self.on_bytes(-file.size)  # it was not expected to come
        partial = partial_path(self.directory, file)
        try:
            contents = self._collect(file, partial)
        except (_WrongFileError, HubError) as first:
            if isinstance(first, HubError) and not first.passing:
                raise
            note = str(first)
            contents = self._collect_again(file, partial)
        _install(partial, target)
        return Brought(contents, note)

    def _collect(self, file: RemoteFile, partial: Path) -> Contents:
        """Have all of the file in ``partial``; what cannot be continued is not kept there."""
        try:
            self.hub.download(file, partial, self.on_bytes, self.stop)
            return self._checked(partial, file)
        except (_WrongFileError, HubError) as error:
            if not isinstance(error, HubError) or error.status == GONE:
                self.on_bytes(-_size(partial))
                partial.unlink(missing_ok=True)
            raise

    def _collect_again(self, file: RemoteFile, partial: Path) -> Contents:
        try:
            return self._collect(file, partial)
        except _WrongFileError as second:
            raise ConfigError(
                f"{second}, and so it was the first time. {self.hub.where} does not serve what it "
                f"promises: try again later, or name another server with HF_ENDPOINT."
            ) from None

    def _checked(self, path: Path, file: RemoteFile) -> Contents:
        """The shard in ``path`` if it is the file; all of it is read."""
        found = _size(path)
        if found != file.size:
            kind = "truncated" if found < file.size else "too long"
            raise _WrongFileError(
                f"{file.name} was {kind}: found {found} bytes, expected {file.size}"
            )
        try:
            contents = read_shard(path, self.table, file.name)
        except ConfigError as error:
            raise _WrongFileError(f"{file.name} was no shard of this dataset ({error})") from None
        digest = file.digest or contents.shard.sha256
        content = contents.shard.sha256 if len(digest) == 64 else _git_hash(path)
        if content != digest:
            raise _WrongFileError(
                f"{file.name} was wrong: found content {content[:16]}…, expected {digest[:16]}…"
            )
        return contents


class _WrongFileError(Exception):
    """A file is there, and it is not what it is meant to be."""


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _git_hash(path: Path) -> str:
    digest = hashlib.sha1(b"blob %d\0" % _size(path))
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _install(partial: Path, target: Path) -> None:
    """Rename, after the content is on the disk: a power cut leaves no file that looks whole."""
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(target)
