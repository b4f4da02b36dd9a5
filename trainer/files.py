"""Write files atomically, and hash their content."""

import contextlib
import glob
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

_CHUNK_BYTES = 1 << 20


def write_atomically(path: Path, *parts: bytes | memoryview, durable: bool = True) -> None:
    """Put ``parts``, one after the other, into ``path``; a reader never sees a part of it.

    Written under a hidden name in the same folder, flushed to disk if ``durable``, then renamed.
    An OSError names the file, which that of a full disk does not do by itself.
    """
    with temporary_file(path, *parts, durable=durable) as temporary:
        temporary.replace(path)
    if durable:
        fsync_folder(path.parent)


@contextlib.contextmanager
def temporary_file(path: Path, *parts: bytes | memoryview, durable: bool = True) -> Iterator[Path]:
    """A hidden file in the folder of ``path`` that holds ``parts``; what is left of it goes."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            for part in parts:
                file.write(part)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        yield temporary
    except OSError as error:
        if error.errno is not None:
            error.filename = error.filename or str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def is_temporary(name: str) -> bool:
    """Whether ``temporary_file`` gives files such names.

    >>> is_temporary(".report.json.0a1b2c3d"), is_temporary("report.json")
    (True, False)
    """
    return re.fullmatch(r"\..+\.[0-9a-f]{8}", name) is not None


def remove_temporaries(path: Path) -> None:
    """Remove what processes have left that were killed while they wrote ``path``."""
    for temporary in path.parent.glob(f".{glob.escape(path.name)}.*"):
        temporary.unlink(missing_ok=True)


def fsync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_sha256(path: Path) -> str:
    """The SHA-256 of the file's content, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
