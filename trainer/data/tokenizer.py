"""Learn and load SentencePiece tokenizers.

What is learnt here is a BPE that loses nothing: no normalisation, and what has no piece of its own
is spelled in bytes. Ids are those of the parameter-golf tokenizers: 0 padding, 1 beginning of
document, 2 end, 3 unknown, 4 to 259 the bytes.
"""

import io
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from trainer.config.config_errors import ConfigError
from trainer.data.shards import RESTORE

# SentencePiece writes a space as U+2581, so in its output the two cannot be told apart: the bytes
# of a document that holds the character itself (3 in UTF-8) could not be counted exactly.
SPACE_MARK = "\u2581"

PAD_ID, BOS_ID, EOS_ID, UNK_ID = range(4)
NUM_RESERVED = 4 + 256

# Merges of a small vocabulary settle long before; keeps training to seconds.
SAMPLE_BYTES = 2_000_000
MAX_LINE_BYTES = 4192  # SentencePiece passes longer ones over
_ERRORS_ONLY = 2
_SET = "Set the vocabulary (model.vocab_size of the recipe, --vocab-size of a build)"


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, sample_bytes: int | None = None
) -> bytes:
    """A serialized SentencePiece model with exactly ``vocab_size`` pieces.

    Learnt from the lines of the first ``sample_bytes`` of ``texts`` (``SAMPLE_BYTES`` if that is
    left out), on one thread: the same texts give the same bytes. Lines carry no newline, so it
    stays the byte piece ``<0x0A>``; and no piece holds a space but at its front, which is what
    counting bytes relies on.
    """
    if vocab_size <= NUM_RESERVED:
        raise ConfigError(
            f"a vocabulary of {vocab_size} is too small: 4 control pieces and 256 bytes take "
            f"{NUM_RESERVED}, and the characters of the text come on top. {_SET} to 512 or more."
        )
    lines = list(_sample_lines(texts, sample_bytes or SAMPLE_BYTES))
    if not lines:
        raise ConfigError("there is no text to train a tokenizer on: every document is blank.")
    try:
        return _train(lines, vocab_size, exact=True)
    except RuntimeError as error:
        reached = _largest_vocabulary(lines, vocab_size)
        if reached is None:
            raise ConfigError(
                f"a vocabulary of {vocab_size} is too small for this text: {NUM_RESERVED} pieces "
                f"are taken before its first character. {_SET} to a larger number. "
                f"SentencePiece says: {str(error).rpartition('] ')[2]}"
            ) from None
        raise ConfigError(
            f"a vocabulary of {vocab_size} is too large for this text, which supports at most "
            f"{reached} pieces. {_SET} to {reached} or less."
        ) from None


def load_tokenizer(path: Path) -> SentencePieceProcessor:
    """The tokenizer in ``path``; ConfigError if there is none that SentencePiece can read."""
    try:
        model = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path}: the tokenizer cannot be read ({error.strerror}). {RESTORE}"
        ) from None
    try:
        return parse_tokenizer(model)
    except (RuntimeError, ValueError):
        raise ConfigError(
            f"{path}: found {len(model)} bytes that are no SentencePiece model, expected one as "
            f"SentencePiece writes it. {RESTORE}"
        ) from None


def parse_tokenizer(model: bytes) -> SentencePieceProcessor:
    """The tokenizer that ``model`` serializes; ValueError or RuntimeError if it is none."""
    if not model:
        raise ValueError("an empty model")  # SentencePiece would take it for "load later"
    return SentencePieceProcessor(model_proto=model)


def _sample_lines(texts: Iterable[str], limit_bytes: int) -> Iterator[str]:
    lines = itertools.chain.from_iterable(text.split("\n") for text in texts)
    taken = 0
    for line in lines:
        taken += len(line.encode()) + 1
        if taken > limit_bytes:
            return
        yield from filter(str.strip, _short_lines(line))


def _short_lines(line: str) -> Iterator[str]:
    """``line`` cut, at spaces where it has any, into pieces that SentencePiece learns from."""
    start, most = 0, len(line)
    if len(line.encode()) > MAX_LINE_BYTES:
        most = MAX_LINE_BYTES // 4  # a character has up to four bytes
    while len(line) - start > most:
        space = line.rfind(" ", start + 1, start + most)
        end = start + most if space < 0 else space
        yield line[start:end]
        start = end
    yield line[start:]


def _train(lines: list[str], vocab_size: int, exact: bool) -> bytes:
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocab_size,
        hard_vocab_limit=exact,
        byte_fallback=True,
        character_coverage=0.9995,  # rarer characters are spelled in bytes
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=True,
        allow_whitespace_only_pieces=False,
        pad_id=PAD_ID,
        bos_id=BOS_ID,
        eos_id=EOS_ID,
        unk_id=UNK_ID,
        num_threads=1,
        minloglevel=_ERRORS_ONLY,
    )
    return model.getvalue()


def _largest_vocabulary(lines: list[str], vocab_size: int) -> int | None:
    """How many pieces the text supports, or None if ``vocab_size`` is not even enough for it."""
    try:
        return parse_tokenizer(_train(lines, vocab_size, exact=False)).vocab_size()
    except RuntimeError:
        return None
