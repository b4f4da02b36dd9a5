"""Audit the byte counts of a dataset: tokens must stand for the bytes of the text they decode to.

Bits per byte divides by the byte table's count, so a wrong count changes every score and shows in
none. In every document of a validation split it is held against the text that SentencePiece decodes
the tokens to. docs/data.md says what the published rule leaves out. N tokens, V pieces.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sentencepiece import SentencePieceProcessor

from trainer.config.config_errors import ConfigError
from trainer.data.checks.byte_sidecar import require_sidecar
from trainer.data.checks.probes import failed_probes, is_published
from trainer.data.checks.reencode import require_same_tokens
from trainer.data.manifest import Dataset, Manifest, open_dataset, write_manifest
from trainer.data.shard_counts import count_sidecar
from trainer.data.shards import open_shard
from trainer.data.token_bytes import RULE_VERSION, ByteTable
from trainer.data.tokenizer import BOS_ID, SPACE_MARK

CHUNK_TOKENS = 1 << 18
NUM_DESCRIBED = 10
# Of validation bytes: a fifth of the smallest difference that is published (0.0005 of 1.1 BPB).
# FineWeb loses 0.000032 to the published tokenizer, and has no character for private use.
MAX_LOSS = 1e-4
PRIVATE_USE = re.compile("[\ue000-\uf8ff\U000f0000-\U0010fffd]+")

Tokens = npt.NDArray[np.uint16]


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


@dataclass
class Audit:
    """What was found in a stream of documents so far.

    It passes if in every document the bytes counted are those of its text but for
    ``uncounted_spaces``, which stand behind a boundary and are left out by the published rule.
    ``cut_bytes`` of the text begin a character that ends with its document before it is whole; they
    are bytes of text like others. ``private_bytes`` of it are characters for private use.
    """

    num_documents: int = 0
    num_tokens: int = 0
    counted_bytes: int = 0
    text_bytes: int = 0
    uncounted_spaces: int = 0
    cut_bytes: int = 0
    private_bytes: int = 0
    num_mismatches: int = 0
    mismatches: list[Mismatch] = field(default_factory=list)  # the first few

    @property
    def passed(self) -> bool:
        return self.num_mismatches == 0


class Auditor:
    """Reads a stream in pieces of any length; a document is audited once the next begins."""

    def __init__(self, processor: SentencePieceProcessor, table: ByteTable) -> None:
        self._processor = processor
        self._table = table
        self._excess_V = np.array([*_excess(processor, table)], np.int64)
        self._drops_space = drops_first_space(processor, table)
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
        rest_N, *documents = np.split(tokens_N, np.flatnonzero(tokens_N == BOS_ID))
        self._open.append(rest_N.copy())
        for document_N in documents:
            self._close()
            self._open.append(document_N.copy())

    def finish(self) -> Audit:
        """The stream has ended, and its last document with it."""
        self._close()
        return self.found

    def _close(self) -> None:
        tokens_N = np.concatenate([np.empty(0, np.uint16), *self._open])
        self._open = []
        if not tokens_N.size:
            return
        ids = tokens_N[1:].tolist()
        text = self._processor.decode(ids)
        spelled_spaces = text.count(SPACE_MARK)  # in bytes: a piece's own mark decodes to a space
        # The decoder shows each byte of a character that is cut as U+FFFD, of three bytes.
        cut_bytes = self._cut_bytes(ids) if text.endswith("\ufffd") else 0
        text_bytes = len(text.encode()) - 2 * cut_bytes - 2 * spelled_spaces
        num_spaces = self._num_spaces(tokens_N)
        counted_bytes = int(self._table.count(tokens_N[:-1], tokens_N[1:]).sum())
        expected_bytes = text_bytes - num_spaces
        found = self.found
        # Two pieces that are counted wrongly may cancel each other.
        if counted_bytes != expected_bytes or self._excess_V[tokens_N].any():
            found.num_mismatches += 1
            if len(found.mismatches) < NUM_DESCRIBED:
                pieces = tuple(self._blame(tokens_N, spelled_spaces))
                found.mismatches.append(
                    Mismatch(found.num_documents, counted_bytes, expected_bytes, pieces)
                )
        found.num_documents += 1
        found.num_tokens += tokens_N.size
        found.counted_bytes += counted_bytes
        found.text_bytes += text_bytes
        found.uncounted_spaces += num_spaces
        found.cut_bytes += cut_bytes
        found.private_bytes += len("".join(PRIVATE_USE.findall(text)).encode())

    def _blame(self, tokens_N: Tokens, spelled_spaces: int) -> Iterator[str]:
        """The pieces of a document that the rule counts wrongly, each with by how much."""
        if spelled_spaces:
            yield f"<0xE2><0x96><0x81> (a space in bytes, 2 too many each; {spelled_spaces} times)"
        tokens, times = np.unique(tokens_N, return_counts=True)
        for token, count in zip(tokens.tolist(), times.tolist(), strict=True):
            excess = int(self._excess_V[token])
            if self._processor.is_unknown(token):
                what = "text that no piece stands for, so its bytes cannot be known"
            else:
                what = f"{abs(excess)} too {'many' if excess > 0 else 'few'} each"
            if excess:
                yield f"{self._processor.id_to_piece(token)!r} ({what}; {count} times)"

    def _num_spaces(self, tokens_N: Tokens) -> int:
        """Spaces of the document's text that stand behind a boundary."""
        is_text_N = ~self._table.is_boundary[tokens_N]
        is_left_out_N = self._table.has_leading_space[tokens_N[1:]] & ~is_text_N[:-1]
        if self._drops_space and is_left_out_N.size:
            is_left_out_N[is_text_N[1:].argmax()] = False  # a document's first is not in its text
        return int(is_left_out_N.sum())

    def _cut_bytes(self, ids: list[int]) -> int:
        """How many bytes at the document's end begin a character that does not end there."""
        end = len(ids)
        while end and self._processor.is_control(ids[end - 1]):
            end -= 1
        start = end
        while start and self._processor.is_byte(ids[start - 1]):
            start -= 1
        pieces = map(self._processor.id_to_piece, ids[start:end])  # such as <0x0A>
        data = bytes(int(piece[1:-1], 16) for piece in pieces)
        try:
            data.decode()
        except UnicodeDecodeError as error:
            return len(data) - error.start if error.reason == "unexpected end of data" else 0
        return 0


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


def require_text_kept(
    processor: SentencePieceProcessor, table: ByteTable, where: Path | str, *, as_published: bool
) -> None:
    """ConfigError where the tokenizer rewrites text, which probes show and tokens do not.

    ``as_published``: it may do to text what the published tokenizers do.
    """
    failed = [*failed_probes(processor, table)]
    if as_published:
        failed = [each for each in failed if not each.is_published]
    if failed:
        raise ConfigError(
            f"{where}: its tokenizer does not keep text as it is, so bytes counted over tokens are "
            f"not those of the text, and bits per byte would be wrong. Use one that normalises "
            f"nothing and has a piece for a space, such as `python -m trainer.data build` learns, "
            f"or shards with a byte sidecar. It fails on\n"
            + "\n".join(f"  {each}" for each in failed)
        )


def loses_little(manifest: Manifest) -> bool:
    """Whether normalisation is known to leave the bytes of this validation text, nearly all.

    It was measured on the text itself, or on that of the published export.
    """
    if manifest.val_raw_bytes is None:
        return is_published(manifest.dataset, manifest.tokenizer_sha256)
    return abs(manifest.val_raw_bytes - manifest.val_bytes) <= MAX_LOSS * manifest.val_raw_bytes


def audit_dataset(
    manifest: Manifest, val_paths: Sequence[Path], processor: SentencePieceProcessor
) -> Audit:
    """Every check of a dataset's bytes; ConfigError with the first that it fails."""
    table = ByteTable.from_tokenizer(processor, manifest.vocab_size)
    where, folder = f"dataset {manifest.dataset}", val_paths[0].parent
    audit = audit_shards(val_paths, processor, table)
    if manifest.byte_sidecar is not None:
        sidecar_paths = [folder / shard.name for shard in manifest.byte_sidecar]
        require_sidecar(val_paths, sidecar_paths, processor, table)
        _, audit.counted_bytes = count_sidecar(sidecar_paths)
        require_marks_uncounted(audit, where)
    else:
        require_sound(audit, where)
        require_text_kept(processor, table, where, as_published=loses_little(manifest))
        if manifest.val_raw_bytes is None and audit.private_bytes > MAX_LOSS * audit.text_bytes:
            raise ConfigError(
                f"{where}: {audit.private_bytes:,} of {audit.text_bytes:,} bytes are characters "
                f"for private use, such as stand for case in text that was rewritten before it was "
                f"tokenized. Its original's bytes are in a byte sidecar, *_val_bytes_*.bin: fetch "
                f"it, and adopt the shards with it."
            )
    require_same_tokens([*val_paths, *(folder / each.name for each in manifest.train)], processor)
    return audit


def require_marks_uncounted(audit: Audit, where: str) -> None:
    """ConfigError where a sidecar counts the marks of rewritten text as bytes of its original."""
    without_marks = audit.text_bytes - audit.private_bytes
    halfway = without_marks + audit.private_bytes // 2
    if audit.private_bytes > MAX_LOSS * audit.text_bytes and audit.counted_bytes > halfway:
        raise ConfigError(
            f"{where}: the byte sidecar counts {audit.counted_bytes:,} bytes, and the text has "
            f"{without_marks:,} without its {audit.private_bytes:,} of characters for private use, "
            f"which stand for none of the original. Fetch or make the sidecar again."
        )


def audited(
    manifest: Manifest, val_paths: Sequence[Path], processor: SentencePieceProcessor
) -> Manifest:
    """``manifest`` with the word that its validation split was audited; ConfigError if it fails."""
    audit = audit_dataset(manifest, val_paths, processor)
    found = audit.num_documents, audit.counted_bytes
    if found != (manifest.num_val_documents, manifest.val_bytes):
        raise ConfigError(
            f"dataset {manifest.dataset}: its validation shards hold {found[0]:,} documents and "
            f"{found[1]:,} bytes, expected {manifest.num_val_documents:,} and "
            f"{manifest.val_bytes:,} as its manifest says. Make or adopt it again."
        )
    return manifest.model_copy(update={"audited": RULE_VERSION})


def open_audited(
    directory: Path, vocab_size: int | None = None, *, hash_train: bool = False
) -> Dataset:
    """As :func:`open_dataset`; one that nobody has audited is, and its manifest says so then."""
    dataset = open_dataset(directory, vocab_size, hash_train=hash_train, unaudited=True)
    if dataset.manifest.audited == RULE_VERSION:
        return dataset
    manifest = audited(dataset.manifest, dataset.val_paths, dataset.processor)
    write_manifest(directory, manifest)
    return replace(dataset, manifest=manifest)


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
