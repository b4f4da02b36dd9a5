"""Check that a tokenizer wrote the shards: encoding what it decodes gives the same tokens.

A wrong one with as many pieces decodes any tokens to some text, whose bytes are just those of its
own pieces. Over the 120 sample documents the right one gave every token back. N tokens.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sentencepiece import SentencePieceProcessor

from trainer.config.config_errors import ConfigError
from trainer.data.shards import open_shard
from trainer.data.tokenizer import BOS_ID, SPACE_MARK

# A shard is looked at in so many places; of each the first document is taken, up to its 2,048th
# token. That is 50 ms a shard.
NUM_PLACES = 32
PLACE_TOKENS = 8192
MAX_TOKENS = 2048

# One in twenty may differ, for text that no tokenizer gives back, such as U+2581 itself.
MIN_SAME = 0.95
# A document may end or begin within a word, whose pieces then join differently: of 600 random ends
# in the sample documents ten changed tokens, at most the last two.
CUT_TOKENS = 8

Tokens = npt.NDArray[np.uint16]


def require_same_tokens(paths: Sequence[Path], processor: SentencePieceProcessor) -> None:
    """ConfigError names the first shard that was written with another tokenizer."""
    for path in paths:
        found = [_comes_back(processor, each) for each in _sample(open_shard(path))]
        num_same, num_sampled = found.count(True), len(found) - found.count(None)
        if num_same < MIN_SAME * num_sampled:
            raise ConfigError(
                f"shard {path}: of {num_sampled} documents {num_same} gave the same tokens when "
                f"they were decoded and encoded again, expected {MIN_SAME:.0%} or more: it was "
                f"written with another tokenizer, so its bytes would be miscounted. Name that one "
                f"(--tokenizer)."
            )


def _sample(tokens_N: Tokens) -> Iterator[Tokens]:
    """Documents without their BOS, from places all over the shard, none twice."""
    seen = set()
    for place in np.linspace(0, tokens_N.size, NUM_PLACES, endpoint=False, dtype=int).tolist():
        window_N = tokens_N[place : place + PLACE_TOKENS]
        begins = np.flatnonzero(window_N == BOS_ID)
        if begins.size and place + int(begins[0]) not in seen:
            seen.add(place + int(begins[0]))
            yield window_N[begins[0] + 1 : begins[1] if begins.size > 1 else None][:MAX_TOKENS]


def _comes_back(processor: SentencePieceProcessor, document_N: Tokens) -> bool | None:
    """Whether the tokens do, but for those at a cut; None where that cannot be asked."""
    ids = [each for each in document_N.tolist() if not processor.is_control(each)]
    if not ids or any(map(processor.is_unknown, ids)):
        return None
    kept = ids[: len(ids) - min(CUT_TOKENS, len(ids) // 4)]
    again: list[int] = processor.encode(processor.decode(ids))
    if again[: len(kept)] == kept:
        return True
    kept, again = _from_second_word(processor, kept), _from_second_word(processor, again)
    return kept != [] and again[: len(kept)] == kept


def _from_second_word(processor: SentencePieceProcessor, ids: list[int]) -> list[int]:
    """Encoding puts a space in front of a document that was cut within its first word."""
    starts = (at for at in range(1, len(ids)) if processor.id_to_piece(ids[at])[0] == SPACE_MARK)
    return ids[next(starts, len(ids)) :]
