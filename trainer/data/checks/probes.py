"""Probe a tokenizer with short texts: does it lose or rewrite text, or are its bytes miscounted?

Tokens do not show what a normalisation took away before them, so bytes that are counted over them
are those of another text. The published tokenizers normalise too (nmt_nfkc, spaces); what that does
to their own text, FineWeb, was measured: of 893,995 bytes 893,966 are left.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from sentencepiece import SentencePieceProcessor

from trainer.data.token_bytes import ByteTable
from trainer.data.tokenizer import BOS_ID, SPACE_MARK

EXPORT_NAME = re.compile(r"fineweb10B_sp([0-9]+)")  # the challenge's own datasets
# fineweb_1024_bpe.model of the export
PUBLISHED_TOKENIZER = "4f5e8adb109c66b4886963bc75a7befd73bda36d27fd7102df8e9e66503b0e2a"

# What is probed, a text, and what the published tokenizers make of it where that is another.
PROBES = {
    "words": ("the cat sat", None),
    "upper case": ("The CAT Sat \u00c9", None),
    "digits": ("1234567890", None),
    "punctuation": ("(a_b): 'c'; \"d\" <e> #f", None),
    "CJK": ("\u6f22\u5b57\u304b\u306a\ud55c", None),
    "emoji": ("\U0001f642\U0001f44d\U0001f3fd", None),
    "spaces in a row": ("a  b   c", "a b c"),
    "spaces at the front": ("  a", "a"),
    "spaces at the end": ("a  ", "a"),
    "tabs": ("a\tb", "a b"),
    "line ends": ("a\n\nb\r\nc", "a b c"),
    "combining characters": ("e\u0301", "\u00e9"),
    "ligatures": ("\ufb01", "fi"),
    "full-width letters": ("\uff21\uff42", "Ab"),
}

# Besides these, each character by itself: those that have a case, a compatible form, or no look.
# CJK ideographs and Hangul syllables (normalised to themselves) and other planes are left out.
CHARACTERS = [
    chr(code)
    for code in (*range(0x3400), *range(0xA000, 0xAC00), *range(0xF900, 0x10000))
    if chr(code) != SPACE_MARK
]
SEPARATOR = "\ue000"
UNSEEN = ("Cc", "Cf", "Zs", "Zl", "Zp")  # control, format, spaces


@dataclass(frozen=True)
class FailedProbe:
    """A text that does not come back from its tokens, or is not counted as its bytes.

    ``is_published``: the published tokenizers do the same to it.
    """

    name: str
    text: str
    decoded: str
    counted_bytes: int
    is_published: bool

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.text!r} of {len(self.text.encode())} bytes becomes "
            f"{self.decoded!r} and counts {self.counted_bytes}"
        )


def failed_probes(processor: SentencePieceProcessor, table: ByteTable) -> Iterator[FailedProbe]:
    """Those that the tokenizer fails.

    A text that it has no pieces for is left to the audit, which refuses documents that hold it.
    """
    for name, (text, published) in PROBES.items():
        ids = processor.encode(text)
        if any(map(processor.is_unknown, ids)):
            continue
        decoded = processor.decode(ids).replace(SPACE_MARK, " ")
        row_N = np.array([BOS_ID, *ids])
        counted_bytes = int(table.count(row_N[:-1], row_N[1:]).sum())
        # The rule leaves the space behind a boundary out.
        counted_bytes += processor.decode(ids[:1]).startswith(" ")
        if decoded != text or counted_bytes != len(text.encode()):
            is_published = decoded == published and counted_bytes == len(decoded.encode())
            yield FailedProbe(name, text, decoded, counted_bytes, is_published)
    yield from _changed_characters(processor)


def _changed_characters(processor: SentencePieceProcessor) -> Iterator[FailedProbe]:
    """A failed probe with the first few characters that normalisation changes, if any.

    Of such as the published tokenizers would leave, where there are any.
    """
    row = SEPARATOR.join(["", *CHARACTERS, ""])
    images = processor.normalize(row).replace(SPACE_MARK, " ").split(SEPARATOR)[1:-1]
    if len(images) != len(CHARACTERS):  # the separator is one of those that change
        images = [""] * len(CHARACTERS)
    changed = [each for each in zip(CHARACTERS, images, strict=True) if each[0] != each[1]]
    others = [each for each in changed if not _is_nfkc(*each)]
    if changed:
        text, decoded = map("".join, zip(*(others or changed)[:5], strict=True))
        yield FailedProbe("characters", text, decoded, len(decoded.encode()), not others)


def _is_nfkc(character: str, image: str) -> bool:
    """Whether nmt_nfkc makes ``image`` of it: compatible forms, and a space or nothing if unseen.

    Characters that Python's Unicode does not have yet may have become anything.
    """
    kind = unicodedata.category(character)
    if kind in UNSEEN or character == "\ufffd":
        return image.strip() == "" or image == unicodedata.normalize("NFKC", character)
    return kind == "Cn" or image == unicodedata.normalize("NFKC", character)


def is_published(dataset: str, tokenizer_sha256: str) -> bool:
    """Whether a dataset is one of the challenge's export, or written with its tokenizer."""
    return bool(EXPORT_NAME.fullmatch(dataset)) or tokenizer_sha256 == PUBLISHED_TOKENIZER
