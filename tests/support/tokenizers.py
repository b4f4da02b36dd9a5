"""Tokenizers of every kind that a dataset may have been written with, learnt in a moment."""

import io
from typing import Any

from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

VOCAB_SIZE = 420
LINES = [
    "the cat  sat on the   mat, and the dog sat on the log",
    "a caf\u00e9 na\u00efve r\u00e9sum\u00e9, or the other   thing",
    "def f(x):    return x + 1",
    "one two three four five six seven eight nine ten",
] * 30

# How each differs from the one that is learnt here by default.
KINDS: dict[str, dict[str, Any]] = {
    "as built here": {},
    "no dummy prefix": {"add_dummy_prefix": False},
    "spaces removed": {"remove_extra_whitespaces": True},
    "as published": {
        "add_dummy_prefix": False,
        "remove_extra_whitespaces": True,
        "normalization_rule_name": "nmt_nfkc",
    },
    "unigram": {"model_type": "unigram"},
    "symbols": {"user_defined_symbols": ["<sep>", "::"], "control_symbols": ["<ctl>"]},
    "no byte fallback": {"byte_fallback": False, "vocab_size": 120},
    "several spaces": {"allow_whitespace_only_pieces": True},
    "several words": {"split_by_whitespace": False},
    "space behind": {"treat_whitespace_as_suffix": True},
    "spaced symbols": {"user_defined_symbols": ["the▁cat", "<a▁b>"]},
}

# Those with a piece that holds a space elsewhere than at its front.
MISCOUNTED = ("several spaces", "several words", "space behind", "spaced symbols")


def learn(**options: Any) -> bytes:
    """A serialized model; ids 0 to 3 are those of the published tokenizers."""
    model = io.BytesIO()
    values: dict[str, Any] = {
        "model_type": "bpe",
        "vocab_size": VOCAB_SIZE,
        "hard_vocab_limit": False,
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "add_dummy_prefix": True,
        "allow_whitespace_only_pieces": False,
        "pad_id": 0,
        "bos_id": 1,
        "eos_id": 2,
        "unk_id": 3,
        "num_threads": 1,
        "minloglevel": 2,
    }
    SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=model, **(values | options)
    )
    return model.getvalue()


def tokenizer(kind: str) -> SentencePieceProcessor:
    return SentencePieceProcessor(model_proto=learn(**KINDS[kind]))


def spell_spaces_in_bytes() -> SentencePieceProcessor:
    """A tokenizer without a piece for a space: its mark U+2581 takes three byte pieces."""
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(["abab", "cdcd"]),
        model_writer=model,
        model_type="bpe",
        vocab_size=270,
        hard_vocab_limit=False,
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        num_threads=1,
        minloglevel=2,
    )
    return SentencePieceProcessor(model_proto=model.getvalue())
