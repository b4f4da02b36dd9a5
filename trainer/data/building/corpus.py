"""The corpus that every Python ships: the text of its standard library, split for validation.

Prose (the language reference behind ``help()``) and code (the sources of the standard library)
make a corpus that needs no download. Whole files are assigned to a split and then cut into
passages, so that a batch of a few hundred tokens holds more than one topic. The corpus differs
between Python versions, so it has a hash, and a dataset is built from it once and kept.
"""

import importlib
import os
import platform
import re
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from trainer.config.config_errors import ConfigError
from trainer.data.building.documents import Document, SplitDocument
from trainer.data.building.scan import Contents, contents_of
from trainer.data.tokenizer import SPACE_MARK

VALIDATION_FRACTION = 0.05
PASSAGE_CHARS = 1000

# Folders that are not part of every distribution (tests are stripped from many, installed packages
# differ from machine to machine) or hold tables rather than text (code pages).
_SKIPPED_FOLDERS = frozenset(
    {
        "__pycache__",
        "dist-packages",
        "encodings",
        "ensurepip",
        "idle_test",
        "lib2to3",
        "site-packages",
        "test",
        "tests",
    }
)
# config-* and _sysconfigdata_* record how this one interpreter was built, sitecustomize.py is the
# machine's own; the rest are generated tables (the topics are documents of their own).
_SKIPPED_FILES = frozenset(
    {
        "html/entities.py",
        "pydoc_data/topics.py",
        "sitecustomize.py",
        "stringprep.py",
        "usercustomize.py",
    }
)
_INDENT = re.compile(r"^(?: {4})+")
_SKIPPED_PREFIXES = ("config-", "_sysconfigdata_")


@dataclass(frozen=True)
class Corpus:
    """Two disjoint lists of documents, each ordered by hash so that prose and code mix.

    ``sha256`` names the content and the split: equal hashes, equal corpora. ``source`` says where
    the documents come from, for people, and is no part of it.
    """

    train: tuple[Document, ...]
    validation: tuple[Document, ...]
    source: str

    def documents(self) -> Iterator[SplitDocument]:
        """All of them, training first."""
        yield from (SplitDocument(each, False) for each in self.train)
        yield from (SplitDocument(each, True) for each in self.validation)

    @cached_property
    def contents(self) -> Contents:
        return contents_of(self.documents())

    @property
    def sha256(self) -> str:
        return self.contents.corpus_sha256


def is_stdlib_dataset(name: str) -> bool:
    """Whether a dataset of that name is built from the standard library, and so may be replaced."""
    return name.startswith("stdlib")


def stdlib_corpus() -> Corpus:
    """The texts of the running Python, split by file; ConfigError where it ships none.

    Every file is cut into passages after the split, and a passage of the validation split that
    also stands in a training file (a licence, say) is no training text.
    """
    source = f"the standard library of Python {platform.python_version()}"
    files = split_documents(stdlib_documents(), VALIDATION_FRACTION, source=source)
    validation = _usable(each for file in files.validation for each in passages(file))
    seen = {each.sha256 for each in validation}
    train = _usable(each for file in files.train for each in passages(file))
    return Corpus(
        train=tuple(each for each in train if each.sha256 not in seen),
        validation=tuple(validation),
        source=source,
    )


def passages(document: Document, num_chars: int = PASSAGE_CHARS) -> Iterator[Document]:
    """The document cut at blank lines into pieces of at least ``num_chars`` where it has them.

    Indentation is written with one tab for four spaces: the tokenizer has no pieces of several
    spaces, and would spend nearly half of its tokens on them.
    """
    piece: list[str] = []
    number = 0
    for paragraph in [*_tabs(document.text).split("\n\n"), None]:
        if piece and (paragraph is None or sum(map(len, piece)) >= num_chars):
            yield Document(f"{document.name}#{number}", "\n\n".join(piece).strip("\n"))
            piece, number = [], number + 1
        if paragraph is not None:
            piece.append(paragraph)


def split_documents(
    documents: Iterable[Document], validation_fraction: float, *, source: str
) -> Corpus:
    """The usable ``documents`` as a corpus; the order they are given in does not matter."""
    splits: tuple[list[Document], list[Document]] = [], []
    for each in _usable(documents):
        splits[each.is_validation(validation_fraction)].append(each)
    return Corpus(train=tuple(splits[False]), validation=tuple(splits[True]), source=source)


def stdlib_documents() -> list[Document]:
    """Help topics (``topics/<key>``) and library sources (``json/decoder.py``), ordered by hash."""
    folder = Path(sysconfig.get_path("stdlib"))
    sources = list(_sources(folder))
    if not sources:
        raise ConfigError(
            f"{folder} holds no Python sources: this interpreter comes without its standard "
            f"library as files. Use a full Python (python.org, your system's python3 package, "
            f"uv, pyenv or conda) rather than an embedded or frozen one."
        )
    return _usable([*_topics(), *sources])


def _usable(documents: Iterable[Document]) -> list[Document]:
    """Neither empty, nor unencodable, nor the same text twice; ordered by hash."""
    named_first = sorted(documents, key=lambda document: document.name, reverse=True)
    unique = {
        document.sha256: document
        for document in named_first
        if document.text and SPACE_MARK not in document.text
    }
    return [unique[key] for key in sorted(unique)]


def _topics() -> list[Document]:
    try:
        topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    except ImportError:
        raise ConfigError(
            "pydoc_data.topics (the text behind help()) is not part of this Python. Install the "
            "complete standard library (Debian, Ubuntu: apt install libpython3-stdlib; "
            "Fedora: dnf install python3-libs) or use a Python from python.org, uv, pyenv or conda."
        ) from None
    return [Document(f"topics/{key}", _newlines(text)) for key, text in topics.items()]


def _sources(folder: Path) -> Iterator[Document]:
    for path in _python_files(folder):
        name = path.relative_to(folder).as_posix()
        if name in _SKIPPED_FILES:
            continue
        try:
            text = path.read_bytes().decode("utf-8")
        except (OSError, UnicodeDecodeError):
            continue  # a dangling link of the distribution, or a source in another encoding
        yield Document(name, _newlines(text))


def _python_files(folder: Path) -> Iterator[Path]:
    for parent, subfolders, names in os.walk(folder):
        # Pruned in place, so that os.walk does not enter site-packages, which may be vast.
        subfolders[:] = [each for each in subfolders if not _is_skipped(each)]
        yield from (
            Path(parent, each) for each in names if each.endswith(".py") and not _is_skipped(each)
        )


def _is_skipped(name: str) -> bool:
    return name in _SKIPPED_FOLDERS or name.startswith(_SKIPPED_PREFIXES)


def _tabs(text: str) -> str:
    lines = (_INDENT.sub(lambda m: "\t" * (len(m[0]) // 4), line) for line in text.split("\n"))
    return "\n".join(lines)


def _newlines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
