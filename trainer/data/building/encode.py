"""Encode a stream of documents into tokens with several processes, in the order of the documents.

The documents are dealt out in chunks and the chunks' tokens come back in their order, with a few
chunks under way at a time. Processes rather than threads: a tenth of the work turns tokens into
Python's numbers and these into an array, which threads do one after the other. N tokens.
"""

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
from trainer.data.building.documents import SplitDocument
from trainer.data.token_bytes import ByteTable
from trainer.data.tokenizer import BOS_ID, parse_tokenizer

CHUNK_CHARS = 1 << 20


@dataclass(frozen=True)
class EncodedSplit:
    """The documents of a chunk that are in one split; ``tokens_N`` holds a BOS before each."""

    tokens_N: npt.NDArray[np.uint16]
    num_documents: int
    num_bytes: int  # by the byte table
    raw_bytes: int  # of the text


@dataclass(frozen=True)
class EncodedChunk:
    train: EncodedSplit
    validation: EncodedSplit


def encode(
    documents: Iterable[SplitDocument], model: bytes, workers: int
) -> Iterator[EncodedChunk]:
    """The chunks of ``documents`` in their order, the same for any number of ``workers``.

    ``model`` is a serialized SentencePiece model.
    """
    chunks = _chunks(documents)
    if workers == 1:
        yield from map(_Encoder(model).encode, chunks)
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (model,))
    waiting: deque[Future[EncodedChunk]] = deque()
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


@dataclass(frozen=True)
class _Chunk:
    """Texts of ``CHUNK_CHARS`` characters together or a little more."""

    train: list[str]
    validation: list[str]


def _chunks(documents: Iterable[SplitDocument]) -> Iterator[_Chunk]:
    chunk, num_chars = _Chunk([], []), 0
    for document, is_validation in documents:
        (chunk.validation if is_validation else chunk.train).append(document.text)
        num_chars += len(document.text)
        if num_chars >= CHUNK_CHARS:
            yield chunk
            chunk, num_chars = _Chunk([], []), 0
    if num_chars:
        yield chunk


class _Encoder:
    def __init__(self, model: bytes) -> None:
        self._processor = parse_tokenizer(model)
        self._table = ByteTable.from_tokenizer(self._processor, self._processor.vocab_size())

    def encode(self, chunk: _Chunk) -> EncodedChunk:
        return EncodedChunk(self._encode_split(chunk.train), self._encode_split(chunk.validation))

    def _encode_split(self, texts: list[str]) -> EncodedSplit:
        rows = [np.array([BOS_ID, *self._processor.encode(text)], np.uint16) for text in texts]
        tokens_N = np.concatenate([np.empty(0, np.uint16), *rows])
        return EncodedSplit(
            tokens_N=tokens_N,
            num_documents=len(texts),
            num_bytes=int(self._table.count(tokens_N[:-1], tokens_N[1:]).sum()),
            raw_bytes=sum(len(text.encode()) for text in texts),
        )


_encoder: _Encoder | None = None  # of this process, where it is a worker


def _start_worker(model: bytes) -> None:
    global _encoder
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears of Ctrl-C and ends us
    _encoder = _Encoder(model)


def _encode_in_worker(chunk: _Chunk) -> EncodedChunk:
    assert _encoder is not None
    return _encoder.encode(chunk)
