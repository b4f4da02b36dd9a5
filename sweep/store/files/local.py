"""Files in a folder: written whole, and created by one writer only."""

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from sweep.store.files.store_error import StoreError
from trainer.files import fsync_folder, is_temporary, temporary_file, write_atomically

ABANDONED_S = 24 * 3600.0  # no write takes so long: such a temporary file has lost its writer
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_FULL = {errno.ENOSPC, errno.EDQUOT}


class LocalFiles:
    """A folder of a disk, or of a file system that many machines share."""

    readers = 1  # how many files are worth reading at once
    at_once = 4  # and writing: each waits for the disk, or for a file server
    tell_every_s, ask_every_s = 5.0, 2.0  # how often to write one and to look for one

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def place(self) -> str:
        """The place, as a person would type it."""
        return str(self.folder)

    def where(self, name: str) -> str:
        """The path or URI of ``name``."""
        return str(self.folder / name)

    def create(self, name: str, data: bytes) -> bool:
        """Make a file that is not there yet, for one caller only; False where it is there."""
        path = self.folder / name
        with _explained(path, "kept", missing_is_normal=False):
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary_file(path, data) as temporary:
                created = _link(temporary, path)
            if created is None:
                created = _fill_new(path, data)
            fsync_folder(path.parent)
        return created

    def replace(self, name: str, data: bytes) -> None:
        """Make a file, in the place of what may be there."""
        path = self.folder / name
        with _explained(path, "kept", missing_is_normal=False):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, data)

    def read(self, name: str) -> bytes:
        with _explained(self.folder / name, "read"):
            return (self.folder / name).read_bytes()

    def exists(self, name: str) -> bool:
        with _explained(self.folder / name, "read"):
            return (self.folder / name).exists()

    def modified_at(self, name: str) -> datetime:
        """When it was written, by the clock of the place."""
        with _explained(self.folder / name, "read"):
            return datetime.fromtimestamp((self.folder / name).stat().st_mtime, UTC)

    def remove(self, name: str) -> None:
        """Remove a file if it is there."""
        with _explained(self.folder / name, "removed"):
            (self.folder / name).unlink(missing_ok=True)

    def names(self, folder: str) -> list[str]:
        """The files directly in ``folder``, by their last name, sorted; without hidden ones."""
        return sorted(e.name for e in self._entries(folder) if e.is_file() and e.name[0] != ".")

    def folders(self) -> list[str]:
        """The folders directly in this place, sorted."""
        return sorted(e.name for e in self._entries("") if e.is_dir() and e.name[0] != ".")

    def remove_temporaries(self) -> None:
        """Remove what killed writers left half-written."""
        oldest_s = time.time() - ABANDONED_S
        for folder in ("", *self.folders()):
            for entry in self._entries(folder):
                with (
                    _explained(Path(entry.path), "removed"),
                    contextlib.suppress(FileNotFoundError),
                ):
                    if is_temporary(entry.name) and entry.stat().st_mtime < oldest_s:
                        Path(entry.path).unlink()

    def _entries(self, folder: str) -> list["os.DirEntry[str]"]:
        with _explained(self.folder / folder, "listed"):
            try:
                with os.scandir(self.folder / folder) as entries:
                    return list(entries)
            except FileNotFoundError:
                return []


def _link(temporary: Path, path: Path) -> bool | None:
    """Give a whole file its name if that is free; None where the file system knows no links."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno in _NO_LINKS:
            return None
        raise
    return True


def _fill_new(path: Path, data: bytes) -> bool:
    """Exclusive all the same. A kill in the middle leaves a torn file, which is passed over."""
    try:
        file = path.open("xb")
    except FileExistsError:
        return False
    try:
        with file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink()
        raise
    return True


@contextlib.contextmanager
def _explained(path: Path, done: str, *, missing_is_normal: bool = True) -> Iterator[None]:
    """An error of the disk as a sentence."""
    try:
        yield
    except OSError as error:
        if missing_is_normal and isinstance(error, FileNotFoundError):
            raise
        if error.errno in _FULL:
            remedy = "Free some of it; `make sweep` then goes on. Or RESULTS= chooses another place"
        else:
            remedy = "RESULTS= chooses another place"
        raise StoreError(
            f"{path}: this cannot be {done} there ({error.strerror or error}). {remedy}."
        ) from error
