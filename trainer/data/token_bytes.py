"""Count the bytes of text that each token stands for, by the published rule.

Bits per byte divides by bytes so that tokenizers can be compared; this is the rule of the
parameter-golf evaluation, as a table over token ids. V is the model's vocabulary, N any shape.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sentencepiece import SentencePieceProcessor

from trainer.config.config_errors import ConfigError
from trainer.data.tokenizer import SPACE_MARK

# A dataset records for which version it was audited. A table that counts differently is another
# version, and so is an audit that asks for more (2: probes, the same tokens when encoded again).
RULE_VERSION = 2


@dataclass(frozen=True, eq=False)
class ByteTable:
    """The bytes of a target token are its own, plus one for its leading space.

    The leading space counts unless the token before is a boundary (control, unknown, unused, or an
    id that the tokenizer does not have). So two things are not counted: the space in front of the
    first word after a boundary, and control tokens themselves, which stand for no text. A
    SentencePiece model with a dummy prefix puts that first space there itself, so its documents,
    each behind a BOS, are counted to the byte.

    base_bytes          int16 (V,)  UTF-8 length of the piece without its leading space
    has_leading_space   bool  (V,)
    is_boundary         bool  (V,)

    With <s>, "▁the" and "re" as tokens 0, 1 and 2, "<s> there the" is 3 + 2 + (1 + 3) bytes:

    >>> table = ByteTable(
    ...     base_bytes=np.array([0, 3, 2], np.int16),
    ...     has_leading_space=np.array([False, True, False]),
    ...     is_boundary=np.array([True, False, False]),
    ... )
    >>> tokens = np.array([0, 1, 2, 1])
    >>> table.count(tokens[:-1], tokens[1:]).tolist()
    [3, 2, 4]
    """

    base_bytes: npt.NDArray[np.int16]
    has_leading_space: npt.NDArray[np.bool_]
    is_boundary: npt.NDArray[np.bool_]

    @classmethod
    def from_tokenizer(cls, processor: SentencePieceProcessor, vocab_size: int) -> "ByteTable":
        """The table for a model of ``vocab_size`` tokens, which the tokenizer may not exceed."""
        num_pieces = processor.vocab_size()
        if num_pieces > vocab_size:
            raise ConfigError(
                f"the tokenizer has {num_pieces} pieces and the model's vocabulary is "
                f"{vocab_size}: every piece needs an id. Set model.vocab_size to {num_pieces} or "
                f"more, or use another dataset."
            )
        base_bytes = np.zeros(vocab_size, np.int16)
        has_leading_space = np.zeros(vocab_size, np.bool_)
        is_boundary = np.ones(vocab_size, np.bool_)
        for token in range(num_pieces):
            if _is_special(processor, token):
                continue
            is_boundary[token] = False
            if processor.is_byte(token):
                base_bytes[token] = 1
                continue
            piece = processor.id_to_piece(token)
            has_leading_space[token] = piece.startswith(SPACE_MARK)
            base_bytes[token] = len(piece.removeprefix(SPACE_MARK).encode())
        for array in (base_bytes, has_leading_space, is_boundary):
            array.setflags(write=False)
        return cls(base_bytes, has_leading_space, is_boundary)

    def count(
        self, previous_ids: npt.NDArray[np.integer], target_ids: npt.NDArray[np.integer]
    ) -> npt.NDArray[np.int64]:
        """Bytes of each target (N), given the token before it (N)."""
        space = self.has_leading_space[target_ids] & ~self.is_boundary[previous_ids]
        counts: npt.NDArray[np.int64] = self.base_bytes[target_ids].astype(np.int64) + space
        return counts


def _is_special(processor: SentencePieceProcessor, token: int) -> bool:
    return bool(
        processor.is_control(token) or processor.is_unknown(token) or processor.is_unused(token)
    )
