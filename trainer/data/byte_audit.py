"""Audit the byte counts of a dataset: tokens must stand for the bytes of the text they decode to.

Bits per byte divides by the byte table's count, so a wrong count changes every score and shows in
none. In every document of a validation split it is held against the text that SentencePiece decodes
the tokens to. docs/data.md says what the published rule leaves out. N tokens of D documents, each
behind a BOS; V pieces.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sentencepiece import SentencePieceProcessor

from trainer.config.config_errors import ConfigError
from trainer.data.manifest import Manifest, open_dataset, read_manifest, write_manifest
from trainer.data.shards import open_shard
from trainer.data.token_bytes import RULE_VERSION, ByteTable
from trainer.data.tokenizer import BOS_ID, SPACE_MARK

CHUNK_TOKENS = 1 << 18
NUM_DESCRIBED = 10

Tokens = npt.NDArray[np.uint16]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Mismatch:
    """A document, numbered from 0, whose tokens are counted as other than the bytes of its text."""

    document: int
    counted_bytes: int
    expected_bytes: int
    pieces: tuple[str, ...]  # which are at fault, where a piece is

    @property
    def difference(self) -> int:
        return self.counted_bytes - self.expected_bytes

    def __str__(self) -> str:
        blamed = f": {', '.join(self.pieces)}" if self.pieces else ""
        return (
            f"document {self.document}: {self.counted_bytes:,} bytes counted, "
            f"{self.expected_bytes:,} expected ({self.difference:+,}){blamed}"
        )


@dataclass(frozen=True)
class Audit:
    """What was found in a stream of documents.

    It passes if in every document the bytes counted are those of its text but for
    ``uncounted_spaces``, which stand behind a boundary and are left out by the published rule.
    ``cut_bytes`` of the text begin a character that ends with its document before it is whole.
    """

    num_documents: int = 0
    num_tokens: int = 0
    counted_bytes: int = 0
    text_bytes: int = 0
    uncounted_spaces: int = 0
    cut_bytes: int = 0
    num_mismatches: int = 0
    mismatches: tuple[Mismatch, ...] = ()  # the first few

    @property
    def passed(self) -> bool:
        return self.num_mismatches == 0

    def followed_by(self, other: "Audit") -> "Audit":
        """That of both streams, ``other`` behind this one and numbered on."""
        mismatches = (*self.mismatches, *other.mismatches)
        return Audit(
            num_documents=self.num_documents + other.num_documents,
            num_tokens=self.num_tokens + other.num_tokens,
            counted_bytes=self.counted_bytes + other.counted_bytes,
            text_bytes=self.text_bytes + other.text_bytes,
            uncounted_spaces=self.uncounted_spaces + other.uncounted_spaces,
            cut_bytes=self.cut_bytes + other.cut_bytes,
            num_mismatches=self.num_mismatches + other.num_mismatches,
            mismatches=mismatches[:NUM_DESCRIBED],
        )


class Auditor:
    """Reads a stream in pieces of any length; a document is audited once the next begins."""

    def __init__(self, processor: SentencePieceProcessor, table: ByteTable) -> None:
        self._table = table
        self._decoder = TextDecoder(processor, table)
        self._open: list[Tokens] = []  # the document that has not ended yet
        self.found = Audit()

    def feed(self, tokens_N: Tokens) -> None:
        """The next tokens of the stream; ConfigError if its very first is not a BOS."""
        if not tokens_N.size:
            return
        if not self._open and tokens_N[0] != BOS_ID:
            raise ConfigError(
                f"the validation split begins with token {tokens_N[0]}, expected {BOS_ID}, the "
                f"beginning of a document: what comes before is missing. Fetch or make it again."
            )
        starts = np.flatnonzero(tokens_N == BOS_ID)
        if starts.size:
            self._close(tokens_N[: starts[0]])
            self._audit(tokens_N[starts[0] : starts[-1]])
            tokens_N = tokens_N[starts[-1] :]
        self._open.append(tokens_N.copy())

    def finish(self) -> Audit:
        """The stream has ended, and its last document with it."""
        self._close(np.empty(0, np.uint16))
        return self.found

    def _close(self, rest_N: Tokens) -> None:
        if self._open:
            self._audit(np.concatenate([*self._open, rest_N]))
        self._open = []

    def _audit(self, tokens_N: Tokens) -> None:
        if not tokens_N.size:
            return
        starts_D = np.flatnonzero(tokens_N == BOS_ID)
        counts_N = np.zeros(tokens_N.size, np.int64)
        counts_N[1:] = self._table.count(tokens_N[:-1], tokens_N[1:])
        counted_D = np.add.reduceat(counts_N, starts_D)
        decoded = self._decoder.count(tokens_N, starts_D)
        expected_D = decoded.text_bytes_D - decoded.spaces_D
        wrong = np.flatnonzero((counted_D != expected_D) | ~decoded.is_exact_D)
        documents = np.split(tokens_N, starts_D[1:]) if wrong.size else []
        mismatches = tuple(
            Mismatch(
                document=self.found.num_documents + index,
                counted_bytes=int(counted_D[index]),
                expected_bytes=int(expected_D[index]),
                pieces=tuple(self._decoder.blame(documents[index])),
            )
            for index in wrong[:NUM_DESCRIBED].tolist()
        )
        part = Audit(
            num_documents=starts_D.size,
            num_tokens=tokens_N.size,
            counted_bytes=int(counted_D.sum()),
            text_bytes=int(decoded.text_bytes_D.sum()),
            uncounted_spaces=int(decoded.spaces_D.sum()),
            cut_bytes=int(decoded.cut_D.sum()),
            num_mismatches=wrong.size,
            mismatches=mismatches,
        )
        self.found = self.found.followed_by(part)


def audit_shards(
    paths: Sequence[Path], processor: SentencePieceProcessor, table: ByteTable
) -> Audit:
    """The audit of a stream, which begins with a BOS.

    10⁶ tokens of web text take 0.3 s on one core; the longest document must fit into memory.
    """
    auditor = Auditor(processor, table)
    for path in paths:
        tokens_N = open_shard(path)
        for start in range(0, tokens_N.size, CHUNK_TOKENS):
            auditor.feed(tokens_N[start : start + CHUNK_TOKENS])
    return auditor.finish()


def require_sound(audit: Audit, where: Path | str) -> None:
    """ConfigError unless the audit passed, with the first documents that are wrong."""
    if not audit.passed:
        raise ConfigError(
            f"{where}: in {audit.num_mismatches:,} of {audit.num_documents:,} validation documents "
            f"the bytes counted are not those of the text, so bits per byte would be wrong. Use a "
            f"tokenizer with byte fallback whose pieces hold no space but at their front "
            f"(docs/data.md).\n" + "\n".join(f"  {each}" for each in audit.mismatches)
        )


def audited(
    manifest: Manifest, val_paths: Sequence[Path], processor: SentencePieceProcessor
) -> Manifest:
    """``manifest`` with the word that its validation split was audited; ConfigError if it fails."""
    table = ByteTable.from_tokenizer(processor, manifest.vocab_size)
    audit = audit_shards(val_paths, processor, table)
    where = f"dataset {manifest.dataset}"
    require_sound(audit, where)
    found = audit.num_documents, audit.counted_bytes
    if found != (manifest.num_val_documents, manifest.val_bytes):
        raise ConfigError(
            f"{where}: its validation shards hold {found[0]:,} documents and {found[1]:,} bytes, "
            f"expected {manifest.num_val_documents:,} and {manifest.val_bytes:,} as its manifest "
            f"says. Make or adopt it again."
        )
    return manifest.model_copy(update={"audited": RULE_VERSION})


def ensure_audited(directory: Path) -> bool:
    """Audit a dataset whose manifest does not say that it was, and record it there.

    True if that was done. ConfigError, and nothing is written, if it is not sound.
    """
    manifest = read_manifest(directory)
    if manifest.audited == RULE_VERSION:
        return False
    dataset = open_dataset(directory, manifest.vocab_size, unaudited=True)
    write_manifest(directory, audited(manifest, dataset.val_paths, dataset.processor))
    return True


@dataclass(frozen=True)
class DecodedBytes:
    """``text_bytes_D`` of decoded text, of which the published rule leaves ``spaces_D`` out.

    ``cut_D`` bytes of it begin a character that the document ends in the middle of; they are bytes
    of text like others. ``is_exact_D`` is false where a piece occurs that the rule counts wrongly
    wherever it stands.
    """

    text_bytes_D: Counts
    spaces_D: Counts
    cut_D: Counts
    is_exact_D: npt.NDArray[np.bool_]


class TextDecoder:
    """Decodes documents with the tokenizer that they were written with, and counts their bytes."""

    def __init__(self, processor: SentencePieceProcessor, table: ByteTable) -> None:
        self._processor = processor
        self._table = table
        self._excess_V = np.array([*_excess(processor, table)], np.int64)
        self._drops_space = drops_first_space(processor, table)

    def count(self, tokens_N: Tokens, starts_D: Counts) -> DecodedBytes:
        """The bytes of documents that begin at ``starts_D``, the first with the first token."""
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
        return DecodedBytes(
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
