"""The interface of a place of files: exclusive creation, atomic replacement, listing, locks.

Names are relative to one place and separated by "/". A file appears whole or not at all, and
``create`` succeeds for one caller only, whatever machine it runs on. An error of the disk or of the
service is a ``StoreError``: a sentence that names the file, what failed, and what to do. A file
that is not there is a ``FileNotFoundError``. No call waits longer than its deadline.
"""

from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol

from trainer.config.config_errors import ConfigError


class StoreError(ConfigError):
    """The place of the results cannot do what is needed; nothing false is stored."""


class Files(Protocol):
    """One place and the files in it."""

    readers: int
    """How many files are worth reading at once."""

    @property
    def place(self) -> str:
        """The place, as a person would type it."""
        ...

    def where(self, name: str) -> str:
        """The path or URI of ``name``."""
        ...

    def create(self, name: str, data: bytes) -> bool:
        """Make a file that is not there yet, for one caller only; False where it is there."""
        ...

    def replace(self, name: str, data: bytes) -> None:
        """Make a file, in the place of what may be there."""
        ...

    def read(self, name: str) -> bytes: ...

    def exists(self, name: str) -> bool: ...

    def modified_at(self, name: str) -> datetime:
        """When it was written, by the clock of the place."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file if it is there."""
        ...

    def names(self, folder: str) -> list[str]:
        """The files directly in ``folder``, by their last name, sorted; without hidden ones."""
        ...

    def folders(self) -> list[str]:
        """The folders directly in this place, sorted."""
        ...

    def lock(self, name: str, data: bytes) -> AbstractContextManager[object] | None:
        """Make a file and lock it for as long as this process lives, or until it is unlocked.

        None where the place knows no such thing; then no file is made.
        """
        ...

    def is_locked(self, name: str) -> bool: ...

    def remove_temporaries(self) -> None:
        """Remove what killed writers left half-written."""
        ...
