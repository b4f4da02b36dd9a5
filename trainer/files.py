"""How does a file come to exist whole or not at all, and how is its content named?"""

import hashlib
import os
import secrets
from pathlib import Path

_CHUNK_BYTES = 1 << 20


def write_atomically(path: Path, *parts: bytes | memoryview, durable: bool = True) -> None:
    """Put ``parts``, one after the other, into ``path``; a reader never sees a part of it.

    Written under a hidden name in the same folder, flushed to disk if ``durable``, then renamed.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            for part in parts:
                file.write(part)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if durable:
        fsync_folder(path.parent)


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
