"""How many bytes would a right count find in a document's tokens?

The answer comes from the text that SentencePiece decodes them to, not from the table that it is
held against. N tokens of D whole documents, each behind a BOS; V pieces.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sentencepiece import SentencePieceProcessor

from trainer.data.token_bytes import ByteTable
from trainer.data.tokenizer import SPACE_MARK

Tokens = npt.NDArray[np.uint16]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Expected:
    """``text_bytes_D`` of decoded text, of which the published rule leaves ``spaces_D`` out.

    ``cut_D`` bytes of it begin a character that the document ends in the middle of; they are bytes
    of text like others. ``is_exact_D`` is false where a piece occurs that the rule counts wrongly
    wherever it stands.
    """

    text_bytes_D: Counts
    spaces_D: Counts
    cut_D: Counts
    is_exact_D: npt.NDArray[np.bool_]


class Expectation:
    """What is expected of documents that were written with the tokenizer ``processor``."""

    def __init__(self, processor: SentencePieceProcessor, table: ByteTable) -> None:
        self._processor = processor
        self._table = table
        self._excess_V = np.array([*_excess(processor, table)], np.int64)
        self._drops_space = drops_first_space(processor, table)

    def of(self, tokens_N: Tokens, starts_D: Counts) -> Expected:
        """For documents that begin at ``starts_D``, the first with the first token."""
        ids = tokens_N.tolist()
        ends = [*starts_D[1:].tolist(), len(ids)]
        text_bytes, cut = [], []
        for start, end in zip(starts_D.tolist(), ends, strict=True):
            text = self._processor.decode(ids[start + 1 : end])
            num_cut = self._num_cut(ids[start + 1 : end]) if text.endswith("\ufffd") else 0
            # The decoder shows each byte of a character that is cut as U+FFFD, of three bytes.
            num_bytes = len(text) if text.isascii() else len(text.encode())
            text_bytes.append(num_bytes - 2 * num_cut)
            cut.append(num_cut)
        excess_N = self._excess_V[tokens_N] != 0
        return Expected(
            text_bytes_D=np.array(text_bytes, np.int64),
            spaces_D=self._spaces(tokens_N, starts_D),
            cut_D=np.array(cut, np.int64),
            is_exact_D=~np.logical_or.reduceat(excess_N, starts_D),
        )

    def blame(self, tokens_N: Tokens) -> Iterator[str]:
        """The pieces of a document that the rule counts wrongly, each with by how much."""
        tokens, times = np.unique(tokens_N, return_counts=True)
        for token, count in zip(tokens.tolist(), times.tolist(), strict=True):
            excess = int(self._excess_V[token])
            if self._processor.is_unknown(token):
                what = "text that no piece stands for, so its bytes cannot be known"
            else:
                what = f"{abs(excess)} too {'many' if excess > 0 else 'few'} each"
            if excess:
                yield f"{self._processor.id_to_piece(token)!r} ({what}; {count} times)"

    def _spaces(self, tokens_N: Tokens, starts_D: Counts) -> Counts:
        """Spaces of each document's text that stand behind a boundary."""
        is_text_N = ~self._table.is_boundary[tokens_N]
        behind_N = np.zeros(tokens_N.size, np.int64)
        behind_N[1:] = self._table.has_leading_space[tokens_N[1:]] & ~is_text_N[:-1]
        if self._drops_space:
            texts = np.flatnonzero(is_text_N)
            firsts_D = np.searchsorted(texts, starts_D)  # a document's first token of text
            behind_N[texts[firsts_D[firsts_D < texts.size]]] = 0
        spaces_D: Counts = np.add.reduceat(behind_N, starts_D)
        return spaces_D

    def _num_cut(self, ids: list[int]) -> int:
        """How many bytes at the document's end begin a character that does not end there."""
        end = len(ids)
        while end and self._processor.is_control(ids[end - 1]):
            end -= 1
        start = end
        while start and self._processor.is_byte(ids[start - 1]):
            start -= 1
        data = bytes(_byte(self._processor.id_to_piece(token)) for token in ids[start:end])
        try:
            data.decode()
        except UnicodeDecodeError as error:
            return len(data) - error.start if error.reason == "unexpected end of data" else 0
        return 0


def drops_first_space(processor: SentencePieceProcessor, table: ByteTable) -> bool:
    """Whether decoding leaves out the space that a document's first piece begins with.

    It does where encoding puts one in front (a dummy prefix) or takes those of the text away.
    """
    first = next(iter(np.flatnonzero(table.has_leading_space).tolist()), None)
    return first is not None and not processor.decode([first]).startswith(" ")


def _excess(processor: SentencePieceProcessor, table: ByteTable) -> Iterator[int]:
    """By how many bytes each token is counted as more than it adds to a text.

    Within a piece a space is written as U+2581, of three bytes, of which the rule takes only one at
    the front for what it is. Text behind an unknown piece was there and is not counted; how much it
    was is lost, and the decoder's own sign for it stands here.
    """
    for token in range(processor.vocab_size()):
        if processor.is_control(token) or processor.is_byte(token):
            yield 0
        elif processor.is_unknown(token):
            yield -len(processor.decode([token]).encode())
        else:
            text = processor.id_to_piece(token).replace(SPACE_MARK, " ")
            yield int(table.base_bytes[token] + table.has_leading_space[token]) - len(text.encode())


def _byte(piece: str) -> int:
    """The value of a byte piece such as ``<0x0A>``."""
    return int(piece[1:-1], 16)
