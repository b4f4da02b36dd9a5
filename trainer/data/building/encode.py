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
from functools import lru_cache
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sentencepiece import SentencePieceProcessor

from trainer.config.config_errors import ConfigError
from trainer.data.building.documents import SplitDocument
from trainer.data.tokenizer import BOS_ID, parse_tokenizer

CHUNK_CHARS = 1 << 20


class EncodedChunk(NamedTuple):
    """Each split's tokens of a chunk (N,), a BOS before every document."""

    train: npt.NDArray[np.uint16]
    validation: npt.NDArray[np.uint16]


def encode(
    documents: Iterable[SplitDocument], model: bytes, workers: int
) -> Iterator[EncodedChunk]:
    """The chunks of ``documents`` in their order, the same for any number of ``workers``.

    ``model`` is a serialized SentencePiece model.
    """
    chunks = _chunks(documents)
    if workers == 1:
        yield from (_encode(model, *chunk) for chunk in chunks)
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _leave_ctrl_c_to_the_parent)
    waiting: deque[Future[EncodedChunk]] = deque()
    try:
        for chunk in chunks:
            waiting.append(pool.submit(_encode, model, *chunk))
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


def _chunks(documents: Iterable[SplitDocument]) -> Iterator[tuple[list[str], list[str]]]:
    """Texts of training and of validation, ``CHUNK_CHARS`` characters together or a little more."""
    train: list[str] = []
    validation: list[str] = []
    num_chars = 0
    for document, is_validation in documents:
        (validation if is_validation else train).append(document.text)
        num_chars += len(document.text)
        if num_chars >= CHUNK_CHARS:
            yield train, validation
            train, validation, num_chars = [], [], 0
    if num_chars:
        yield train, validation


def _leave_ctrl_c_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@lru_cache(maxsize=1)
def _processor(model: bytes) -> SentencePieceProcessor:
    return parse_tokenizer(model)


def _encode(model: bytes, train: list[str], validation: list[str]) -> EncodedChunk:
    processor = _processor(model)

    def tokens_of(texts: list[str]) -> npt.NDArray[np.uint16]:
        rows = [np.array([BOS_ID, *processor.encode(text)], np.uint16) for text in texts]
        return np.concatenate([np.empty(0, np.uint16), *rows])

    return EncodedChunk(tokens_of(train), tokens_of(validation))
