"""The hash and the size of source files, the trainer's own above all."""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Source:
    sha256: str
    num_bytes: int


@cache
def trainer_source() -> Source:
    """Over every ``.py`` file of the package ``trainer``, by relative name and content."""
    return source_of(Path(__file__).parent)


def source_of(root: Path) -> Source:
    """Over every ``.py`` file below ``root``, by relative name and content."""
    digest, num_bytes = hashlib.sha256(), 0
    for path in sorted(root.rglob("*.py")):
        content = path.read_bytes()
        name = path.relative_to(root).as_posix().encode()
        digest.update(b"%d %b %d " % (len(name), name, len(content)))
        digest.update(content)
        num_bytes += len(content)
    return Source(digest.hexdigest(), num_bytes)
