"""How do many cores cut a stream of documents into tokens, and nobody can tell how many?

The documents are dealt out in chunks and the chunks' tokens come back in their order, with a few
chunks under way at a time. Processes rather than threads: a tenth of the work turns tokens into
Python's numbers and these into an array, which threads do one after the other. N tokens.
"""

import itertools
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
import numpy.typing as npt

from trainer.config.config_errors import ConfigError
from trainer.data.token_bytes import ByteTable
from trainer.data.tokenizer import BOS_ID, Document, parse_tokenizer

CHUNK_CHARS = 1 << 20


@dataclass(frozen=True)
class Encoded:
    """What became of a chunk. ``tokens_N`` holds a BOS before each document."""

    train: "EncodedSplit"
    validation: "EncodedSplit"
    digests: bytes  # the documents' hashes, one after the other, in their order


@dataclass(frozen=True)
class EncodedSplit:
    tokens_N: npt.NDArray[np.uint16]
    num_documents: int
    num_bytes: int  # by the byte table
    raw_bytes: int  # of the text as it was given


@dataclass(frozen=True)
class Encoder:
    """Cuts a chunk of texts into tokens; it is sent to the processes that do."""

    model: bytes
    val_fraction: float

    def open(self) -> "OpenEncoder":
        return OpenEncoder(self)


def encode(documents: Iterable[Document], encoder: Encoder, workers: int) -> Iterator[Encoded]:
    """The chunks of ``documents`` in their order, the same for any number of ``workers``."""
    chunks = _chunks(documents)
    if workers == 1:
        yield from map(encoder.open().encode, chunks)
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (encoder,))
    waiting: deque[Future[Encoded]] = deque()
    try:
        for chunk in chunks:
            waiting.append(pool.submit(_encode_in_worker, chunk))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise ConfigError(
            f"one of {workers} workers was ended from outside, most often for lack of memory. Use "
            f"fewer: --workers {max(1, workers // 2)}."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _chunks(documents: Iterable[Document]) -> Iterator[list[str]]:
    """Texts of ``CHUNK_CHARS`` characters together or a little more; empty ones are left out."""
    chunk: list[str] = []
    held = 0
    for document in documents:
        if not document.text:
            continue
        chunk.append(document.text)
        held += len(document.text)
        if held >= CHUNK_CHARS:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


class OpenEncoder:
    """An encoder with its tokenizer read."""

    def __init__(self, encoder: Encoder) -> None:
        self._processor = parse_tokenizer(encoder.model)
        self._table = ByteTable.from_tokenizer(self._processor, self._processor.vocab_size())
        self._val_fraction = encoder.val_fraction

    def encode(self, texts: list[str]) -> Encoded:
        documents = [Document("", text) for text in texts]
        is_val = [each.is_validation(self._val_fraction) for each in documents]
        return Encoded(
            train=self._split(list(itertools.compress(documents, [not each for each in is_val]))),
            validation=self._split(list(itertools.compress(documents, is_val))),
            digests=b"".join(bytes.fromhex(each.sha256) for each in documents),
        )

    def _split(self, documents: list[Document]) -> EncodedSplit:
        rows = [
            np.array([BOS_ID, *self._processor.encode(each.text)], np.uint16) for each in documents
        ]
        tokens_N = np.concatenate([np.empty(0, np.uint16), *rows])
        return EncodedSplit(
            tokens_N=tokens_N,
            num_documents=len(documents),
            num_bytes=int(self._table.count(tokens_N[:-1], tokens_N[1:]).sum()),
            raw_bytes=sum(each.num_bytes for each in documents),
        )


_open: OpenEncoder | None = None  # of this process, where it is a worker


def _start_worker(encoder: Encoder) -> None:
    global _open
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears of Ctrl-C and ends us
    _open = encoder.open()


def _encode_in_worker(texts: list[str]) -> Encoded:
    assert _open is not None
    return _open.encode(texts)
