"""What is in a corpus that does not fit into memory? One pass, before anything is written.

It finds every document that is no text, the split, the corpus' hash, and what a tokenizer learns
from. What is kept meanwhile is that sample and, on disk, 32 bytes for each training document.
"""

import hashlib
import heapq
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import BinaryIO

from trainer.data.tokenizer import Document

PASSAGE_CHARS = 16_384
Tell = Callable[[str, int, int], None]  # what is being done, documents, bytes


@dataclass(frozen=True)
class Scan:
    """``corpus_sha256`` is the hash of a :class:`Corpus` of these documents in this order.

    ``order_sha256`` is over the documents' hashes one after the other, whatever their split.
    """

    num_train_documents: int
    num_val_documents: int
    num_empty: int
    num_bytes: int
    corpus_sha256: str
    order_sha256: str
    sample: tuple[Document, ...]


def scan(documents: Iterable[Document], val_fraction: float, sample_bytes: int, tell: Tell) -> Scan:
    """Read all of ``documents`` once. Empty ones are counted and otherwise passed over."""
    sample = _Sample(sample_bytes)
    order, corpus = hashlib.sha256(), hashlib.sha256()
    num_train = num_val = num_empty = num_bytes = 0
    with tempfile.TemporaryFile() as train_digests:
        for document in documents:
            if not document.text:
                num_empty += 1
                continue
            digest = bytes.fromhex(document.sha256)
            order.update(digest)
            num_bytes += document.num_bytes
            if document.is_validation(val_fraction):
                num_val += 1
                corpus.update(f"validation {document.sha256}\n".encode())
            else:
                num_train += 1
                train_digests.write(digest)
                sample.add(document)
            tell("read", num_train + num_val, num_bytes)
        _add_training(corpus.update, train_digests)
    return Scan(
        num_train_documents=num_train,
        num_val_documents=num_val,
        num_empty=num_empty,
        num_bytes=num_bytes,
        corpus_sha256=corpus.hexdigest(),
        order_sha256=order.hexdigest(),
        sample=sample.documents(),
    )


def _add_training(update: Callable[[bytes], None], digests: BinaryIO) -> None:
    digests.seek(0)
    while digest := digests.read(32):
        update(f"train {digest.hex()}\n".encode())


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

    def documents(self) -> tuple[Document, ...]:
        return tuple(Document(f"{-key:x}", text) for key, text in sorted(self._heap, reverse=True))

    def _push(self, key: int, passage: str) -> None:
        heapq.heappush(self._heap, (-key, passage))
        self.num_bytes += len(passage.encode())
        while self.num_bytes - (last := len(self._heap[0][1].encode())) >= self.limit_bytes:
            heapq.heappop(self._heap)
            self.num_bytes -= last
