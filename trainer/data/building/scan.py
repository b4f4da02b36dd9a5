"""Scan a corpus that does not fit into memory: count and hash it, and draw the tokenizer's sample.

The first of two readings, before anything is written. It finds every document that is no text. What
is kept meanwhile is the sample and, on disk, 32 bytes for each training document.
"""

import hashlib
import heapq
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field

from trainer.data.building.documents import Document, SplitDocument

PASSAGE_CHARS = 16_384
Progress = Callable[[str, int, int], None]  # what is being done, documents, bytes


def silent(_what: str, _num_documents: int, _num_bytes: int) -> None:
    """The progress of a corpus that is read in a moment."""


@dataclass(frozen=True)
class Contents:
    """What a corpus holds; ``corpus_sha256`` names its documents and their split."""

    num_train_documents: int
    num_val_documents: int
    num_empty: int
    train_bytes: int
    val_bytes: int
    corpus_sha256: str


class Tally:
    """Counts and hashes documents on their way, in any mixture of the two splits.

    The hash is of a line ``validation HASH`` or ``train HASH`` for each, validation first. Until
    the end, the hashes of training wait in a temporary file.
    """

    def __init__(self, what: str = "", progress: Progress = silent) -> None:
        self._what, self._progress = what, progress
        self._lines = hashlib.sha256()
        self._train_digests = tempfile.TemporaryFile()  # noqa: SIM115  (closed by close)
        self._num_documents, self._num_bytes = [0, 0], [0, 0]  # of training, of validation
        self._num_empty = 0

    def close(self) -> None:
        self._train_digests.close()

    def read(self, documents: Iterable[SplitDocument]) -> Iterator[SplitDocument]:
        """Those that are not empty; the others are only counted."""
        for each in documents:
            document, is_validation = each
            if not document.text:
                self._num_empty += 1
                continue
            if is_validation:
                self._lines.update(f"validation {document.sha256}\n".encode())
            else:
                self._train_digests.write(bytes.fromhex(document.sha256))
            self._num_documents[is_validation] += 1
            self._num_bytes[is_validation] += document.num_bytes
            self._progress(self._what, sum(self._num_documents), sum(self._num_bytes))
            yield each

    def contents(self) -> Contents:
        """Of all that were read; to be asked for once, at the end."""
        self._train_digests.seek(0)
        while digest := self._train_digests.read(32):
            self._lines.update(f"train {digest.hex()}\n".encode())
        return Contents(
            num_train_documents=self._num_documents[False],
            num_val_documents=self._num_documents[True],
            num_empty=self._num_empty,
            train_bytes=self._num_bytes[False],
            val_bytes=self._num_bytes[True],
            corpus_sha256=self._lines.hexdigest(),
        )


def contents_of(documents: Iterable[SplitDocument]) -> Contents:
    with closing(Tally()) as tally:
        for _ in tally.read(documents):
            pass
        return tally.contents()


def scan(
    documents: Iterable[SplitDocument], sample_bytes: int, progress: Progress
) -> tuple[Contents, list[str]]:
    """Read all of ``documents`` once: what they hold, and texts to learn a tokenizer from."""
    sample = _Sample(sample_bytes)
    with closing(Tally("read", progress)) as tally:
        for document, is_validation in tally.read(documents):
            if not is_validation:
                sample.add(document)
        return tally.contents(), sample.passages()


@dataclass
class _Sample:
    """The passages with the smallest keys, just enough of them for ``limit_bytes``.

    A passage is 16,384 characters of a document, its key a hash of the document's and its place, so
    the sample is drawn from all of the text and does not depend on the order of the documents.
    """

    limit_bytes: int
    num_bytes: int = 0
    _heap: list[tuple[int, str]] = field(default_factory=list)  # the largest key first

    def add(self, document: Document) -> None:
        for place in range(0, len(document.text), PASSAGE_CHARS):
            seed = f"{document.sha256} {place}".encode()
            key = int.from_bytes(hashlib.sha256(seed).digest()[:8], "big")
            if self.num_bytes < self.limit_bytes or key < -self._heap[0][0]:
                self._push(key, document.text[place : place + PASSAGE_CHARS])

    def passages(self) -> list[str]:
        return [text for _, text in sorted(self._heap, reverse=True)]

    def _push(self, key: int, passage: str) -> None:
        heapq.heappush(self._heap, (-key, passage))
        self.num_bytes += len(passage.encode())
        while self.num_bytes - (last := len(self._heap[0][1].encode())) >= self.limit_bytes:
            heapq.heappop(self._heap)
            self.num_bytes -= last
