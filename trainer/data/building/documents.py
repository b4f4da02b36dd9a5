"""Read the documents of text files, JSON lines and Parquet files.

A plain text file is one document, a line of JSON lines is one, a row of a Parquet file is one; they
come in the order of the sources and, within one, in its own. One file, line or batch of rows is in
memory at a time.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from trainer.config.config_errors import ConfigError

FIELD = "text"
SUFFIXES = (".txt", ".md", ".jsonl", ".parquet")  # what is taken from a folder

# Cutting a text into tokens takes 45 bytes of memory for each of its bytes: 1.4 GB in each worker.
MAX_DOCUMENT_BYTES = 32_000_000

_MAX_LINE_BYTES = 2 * MAX_DOCUMENT_BYTES  # JSON escapes what it likes
_BATCH_ROWS = 256
_BOM = "\ufeff"
_CONVERT = "Convert it (iconv -f LATIN1 -t UTF-8, say) or leave it out."


@dataclass(frozen=True)
class Document:
    """A text with a name for people; its identity is the SHA-256 of its UTF-8 bytes."""

    name: str
    text: str

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def num_bytes(self) -> int:
        return len(self.text.encode())

    def is_validation(self, fraction: float) -> bool:
        """Whether the document's own hash, read as a number in [0, 1), falls below ``fraction``.

        No other document has a say, so a growing corpus moves none across.
        """
        return int(self.sha256[:16], 16) < fraction * 2**64


class SplitDocument(NamedTuple):
    """A document and the split that it is in."""

    document: Document
    is_validation: bool


def find_sources(paths: Sequence[Path]) -> list[Path]:
    """The text files in ``paths``, in its order; ConfigError if one is absent or there twice.

    A file is taken whatever it is called. In a folder those with a known suffix are, in all of its
    subfolders, sorted by path; what begins with a dot is passed over.
    """
    sources: list[Path] = []
    for path in paths:
        if path.is_dir():
            sources += _files_in(path)
        elif path.is_file():
            sources.append(path)
        else:
            raise ConfigError(f"{path}: there is no such file or folder. Name text that is there.")
    seen: dict[Path, Path] = {}
    for path in sources:
        if (other := seen.setdefault(path.resolve(), path)) is not path:
            raise ConfigError(
                f"{path} is given twice (also as {other}): its documents would count twice. Name "
                f"each file once."
            )
    return sources


def read_documents(sources: Iterable[Path]) -> Iterator[Document]:
    """Every document of ``sources``, empty ones too; ConfigError at the first that is no text."""
    for path in sources:
        read = _READERS.get(path.suffix.lower(), _read_text)
        for document in read(path):
            _check_size(document)
            yield document


def _files_in(folder: Path) -> list[Path]:
    found = []
    for parent, subfolders, names in os.walk(folder):
        subfolders[:] = [each for each in subfolders if not each.startswith(".")]
        found += [Path(parent, each) for each in names if not each.startswith(".")]
    files = [each for each in found if each.suffix.lower() in SUFFIXES]
    if not files:
        raise ConfigError(
            f"{folder}: there is no text in it: found {len(found)} files, and none ends in "
            f"{', '.join(SUFFIXES)}. Name a file of another kind by itself; it is read as UTF-8."
        )
    return sorted(files, key=lambda path: path.relative_to(folder).as_posix())


def _read_text(path: Path) -> Iterator[Document]:
    size = path.stat().st_size
    if size > MAX_DOCUMENT_BYTES:
        raise _too_long(path.name, size)
    yield Document(path.name, _decoded(path.read_bytes(), f"{path}: this").removeprefix(_BOM))


def _read_json_lines(path: Path) -> Iterator[Document]:
    with path.open("rb") as file:
        number = 0
        while line := file.readline(_MAX_LINE_BYTES + 1):
            number += 1
            where = f"{path}, line {number}"
            if len(line) > _MAX_LINE_BYTES:
                raise _too_long(where, len(line))
            text = _decoded(line, f"{where}: this")
            if number == 1:
                text = text.removeprefix(_BOM)
            if text.strip():
                yield Document(f"{path.name}:{number}", _text_of(text, where))


def _text_of(line: str, where: str) -> str:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{where}: this is not JSON ({error}). A line of a .jsonl file is one object, such as "
            f'{{"{FIELD}": "…"}}.'
        ) from None
    if not isinstance(value, dict) or FIELD not in value:
        found = f"the keys {', '.join(value) or 'none'}" if isinstance(value, dict) else line[:40]
        raise ConfigError(
            f'{where}: there is no text: found {found}, expected an object with "{FIELD}". Rename '
            f"its field or leave the line out."
        )
    return _checked(value[FIELD], where)


def _read_parquet(path: Path) -> Iterator[Document]:
    try:
        with pq.ParquetFile(path) as file:
            _check_column(path, file.schema_arrow)
            row = 0
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=[FIELD]):
                for value in batch.column(0):
                    row += 1
                    text = _as_python(value, f"{path}, row {row}")
                    yield Document(f"{path.name}:{row}", text)
    except pa.ArrowInvalid as error:
        raise ConfigError(
            f"{path}: this is no Parquet file that can be read ({error}). Fetch or write it again."
        ) from None


def _check_column(path: Path, schema: pa.Schema) -> None:
    kind = schema.field(FIELD).type if schema.names.count(FIELD) == 1 else None
    if kind is not None and pa.types.is_dictionary(kind):
        kind = kind.value_type
    if kind not in (pa.string(), pa.large_string(), pa.string_view()):
        columns = ", ".join(f"{each.name} ({each.type})" for each in schema)
        raise ConfigError(
            f"{path}: found the columns {columns or 'none'}, expected one of strings called "
            f"{FIELD}. Rename the column that holds the documents."
        )


def _as_python(value: Any, where: str) -> str:
    try:
        text = value.as_py()
    except UnicodeDecodeError as error:
        raise _not_utf8(f"{where}: this", error) from None
    return _checked(text, where)


def _checked(text: Any, where: str) -> str:
    """``text`` if it is one; JSON can spell half of a surrogate pair, which no text has."""
    if not isinstance(text, str):
        raise ConfigError(
            f"{where}: found {FIELD} = {json.dumps(text)[:40]}, expected a string. Write an empty "
            f"one, or leave it out."
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{where}: character {error.start} is {text[error.start]!a}, half of a surrogate "
            f"pair, which UTF-8 cannot write. Repair or leave out this document."
        ) from None
    return text


def _decoded(data: bytes, subject: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _not_utf8(subject, error) from None


def _not_utf8(subject: str, error: UnicodeDecodeError) -> ConfigError:
    return ConfigError(
        f"{subject} is not UTF-8 text: byte {error.start} is 0x{error.object[error.start]:02X} "
        f"({error.reason}). {_CONVERT}"
    )


def _check_size(document: Document) -> None:
    if len(document.text) * 4 > MAX_DOCUMENT_BYTES and document.num_bytes > MAX_DOCUMENT_BYTES:
        raise _too_long(document.name, document.num_bytes)


def _too_long(where: str, num_bytes: int) -> ConfigError:
    return ConfigError(
        f"{where}: a document of {num_bytes:,} bytes or more, and at most {MAX_DOCUMENT_BYTES:,} "
        f"are cut into tokens at once. Cut it into documents, such as a line of a .jsonl file each."
    )


_READERS = {".jsonl": _read_json_lines, ".parquet": _read_parquet}
