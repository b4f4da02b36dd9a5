"""Audit a byte sidecar: how many bytes of the original text each validation token stands for.

Text that was rewritten before it was tokenized (case folded behind markers, as in the CaseOps
datasets) cannot be counted over tokens. Its export has ``fineweb_val_bytes_000000.bin`` beside
``fineweb_val_000000.bin``: a shard of the same header and length, whose entry i is the bytes of
token i, 0 for a BOS (prepare_caseops_data.py and eval_val of train_gpt.py, parameter-golf records
of April 2026). N tokens.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sentencepiece import SentencePieceProcessor

from trainer.config.config_errors import ConfigError
from trainer.data.shards import load_stream, open_shard
from trainer.data.token_bytes import ByteTable
from trainer.data.tokenizer import BOS_ID

# As many tokens must stand for as many bytes as their pieces have. Over the 120 sample documents,
# as the published tokenizer normalises them, 98.7 % do; 30.3 % where the counts are one place off.
MIN_EQUAL = 0.6
# A document's original has at least a fourth and at most four times the bytes of its tokens: a
# marker is three bytes in front of one letter. White space that was taken away may add some more.
MAX_RATIO = 4
SLACK_BYTES = 4096


def require_sidecar(
    val_paths: Sequence[Path],
    sidecar_paths: Sequence[Path],
    processor: SentencePieceProcessor,
    table: ByteTable,
) -> None:
    """ConfigError unless lengths, positions and every document's sum are those of the tokens."""
    where = sidecar_paths[0].parent
    lengths, expected = ([open_shard(path).size for path in p] for p in (sidecar_paths, val_paths))
    if lengths != expected:
        raise _unusable(where, f"shards of {lengths} counts", f"{expected}, one for each token")
    tokens_N, counts_N = load_stream(val_paths), load_stream(sidecar_paths).astype(np.int64)
    is_control = np.array([processor.is_control(id) for id in range(processor.vocab_size())])
    if (wrong := np.flatnonzero(is_control[tokens_N] & (counts_N > 0))).size:
        found = f"{counts_N[wrong[0]]} bytes for token {wrong[0]}, which is a control piece"
        raise _unusable(where, found, "0")
    pieces_N = np.concatenate([[0], table.count(tokens_N[:-1], tokens_N[1:])])
    if (equal := float((counts_N == pieces_N).mean())) < MIN_EQUAL:
        found = f"the bytes of its piece for {equal:.1%} of the tokens"
        raise _unusable(where, found, f"{MIN_EQUAL:.0%} or more, each count in its place")
    begins = np.flatnonzero(tokens_N == BOS_ID)
    sums, sums_of_pieces = (np.add.reduceat(each, begins) for each in (counts_N, pieces_N))
    too_many = sums > MAX_RATIO * sums_of_pieces + SLACK_BYTES
    too_few = MAX_RATIO * sums + SLACK_BYTES < sums_of_pieces
    if (wrong := np.flatnonzero(too_many | too_few)).size:
        found = f"{sums[wrong[0]]:,} bytes in document {wrong[0]}"
        raise _unusable(where, found, f"about the {sums_of_pieces[wrong[0]]:,} of its pieces")


def _unusable(where: Path, found: str, expected: str) -> ConfigError:
    return ConfigError(
        f"{where}: the byte sidecar (*_val_bytes_*.bin) holds {found}, expected {expected}. Fetch "
        f"or make it again, with the validation shards that it was made for."
    )
