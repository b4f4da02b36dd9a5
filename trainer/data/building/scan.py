"""Scan a corpus that does not fit into memory: count and hash it, and draw the tokenizer's sample.

The first of two readings, before anything is written. It finds every document that is no text. What
is kept meanwhile is the sample and, on disk, 32 bytes for each training document.
"""

import hashlib
import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from trainer.data.building.corpus import CorpusHash
from trainer.data.building.documents import Document, SplitDocument

PASSAGE_CHARS = 16_384
Progress = Callable[[str, int, int], None]  # what is being done, documents, bytes


@dataclass(frozen=True)
class Scan:
    """What a corpus holds, and ``sample``, the texts that a tokenizer is learnt from."""

    num_train_documents: int
    num_val_documents: int
    num_empty: int
    num_bytes: int
    corpus_sha256: str
    sample: tuple[str, ...]


def scan(documents: Iterable[SplitDocument], sample_bytes: int, progress: Progress) -> Scan:
    """Read all of ``documents`` once. Empty ones are counted and otherwise passed over."""
    sample = _Sample(sample_bytes)
    num_train = num_val = num_empty = num_bytes = 0
    with CorpusHash() as corpus_hash:
        for each in documents:
            if not each.document.text:
                num_empty += 1
                continue
            corpus_hash.add(each)
            num_bytes += each.document.num_bytes
            if each.is_validation:
                num_val += 1
            else:
                num_train += 1
                sample.add(each.document)
            progress("read", num_train + num_val, num_bytes)
        return Scan(
            num_train_documents=num_train,
            num_val_documents=num_val,
            num_empty=num_empty,
            num_bytes=num_bytes,
            corpus_sha256=corpus_hash.hexdigest(),
            sample=sample.passages(),
        )


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

    def passages(self) -> tuple[str, ...]:
        return tuple(text for _, text in sorted(self._heap, reverse=True))

    def _push(self, key: int, passage: str) -> None:
        heapq.heappush(self._heap, (-key, passage))
        self.num_bytes += len(passage.encode())
        while self.num_bytes - (last := len(self._heap[0][1].encode())) >= self.limit_bytes:
            heapq.heappop(self._heap)
            self.num_bytes -= last
