"""Tokens lose nothing, and the bytes they stand for are the bytes of the text."""

import doctest
import inspect
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.config.config_errors import ConfigError
from trainer.data.token_bytes import ByteTable
from trainer.data.tokenizer import (
    BOS_ID,
    SPACE_MARK,
    load_tokenizer,
    parse_tokenizer,
    train_tokenizer,
)

VOCAB_SIZE = 400
TEXTS = [inspect.getsource(module) for module in (inspect, doctest)]

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=SPACE_MARK))
CODE_LIKE = st.text("  \n\tdefslf(_:é中🙂\x00")


@pytest.fixture(scope="module")
def model():
    return train_tokenizer(TEXTS, VOCAB_SIZE)


@pytest.fixture(scope="module")
def processor(model):
    return parse_tokenizer(model)


@pytest.fixture(scope="module")
def table(processor):
    return ByteTable.from_tokenizer(processor, VOCAB_SIZE)


def published_bytes(processor, previous, target):
    """The rule as it is published, one token at a time; written without looking at the table."""

    def special(token):
        return (
            token >= processor.vocab_size()
            or processor.is_control(token)
            or processor.is_unknown(token)
            or processor.is_unused(token)
        )

    if special(target):
        return 0
    if processor.is_byte(target):
        return 1
    piece = processor.id_to_piece(target)
    if not piece.startswith("▁"):
        return len(piece.encode())
    return len(piece[1:].encode()) + (not special(previous))


@settings(deadline=None)
@given(st.lists(ANY_TEXT | CODE_LIKE, min_size=1, max_size=3))
def test_decoding_gives_the_text_back_and_its_bytes_are_those_counted(processor, table, texts):
    rows = [processor.encode(text) for text in texts]
    assert [processor.decode(row) for row in rows] == texts
    stream = np.array([token for row in rows for token in (BOS_ID, *row)])
    counted = table.count(stream[:-1], stream[1:])
    assert counted.dtype == np.int64
    assert counted.sum() == sum(len(text.encode()) for text in texts)


def test_the_table_agrees_with_the_published_rule_for_every_pair_of_tokens(processor):
    wide = ByteTable.from_tokenizer(processor, VOCAB_SIZE + 5)  # ids that no piece has
    ids = np.arange(VOCAB_SIZE + 5)
    previous, target = (grid.ravel() for grid in np.meshgrid(ids, ids))
    expected = [
        published_bytes(processor, int(p), int(t)) for p, t in zip(previous, target, strict=True)
    ]
    assert wide.count(previous, target).tolist() == expected


def test_control_unknown_unused_and_missing_pieces_have_no_bytes_and_are_boundaries():
    @dataclass
    class Pieces:
        """A tokenizer of <s>, an unknown, an unused piece, a byte and two words."""

        pieces: tuple[str, ...] = ("<s>", "<unk>", "gone", "<0x20>", "▁né", "né")

        def vocab_size(self):
            return len(self.pieces)

        def id_to_piece(self, token):
            return self.pieces[token]

        def is_control(self, token):
            return token == 0

        def is_unknown(self, token):
            return token == 1

        def is_unused(self, token):
            return token == 2

        def is_byte(self, token):
            return token == 3

    table = ByteTable.from_tokenizer(Pieces(), 8)
    assert table.is_boundary.tolist() == [True, True, True, False, False, False, True, True]
    assert table.base_bytes.tolist() == [0, 0, 0, 1, 3, 3, 0, 0]
    assert table.base_bytes.dtype == np.int16
    word = np.full(8, 4)
    assert table.count(np.arange(8), word).tolist() == [3, 3, 3, 4, 4, 4, 3, 3]


def test_a_byte_table_cannot_be_changed(table):
    with pytest.raises(ValueError, match="read-only"):
        table.base_bytes[0] = 1


def test_a_model_smaller_than_its_tokenizer_is_refused_with_both_numbers(processor):
    with pytest.raises(ConfigError, match=r"400 pieces.*vocabulary is 300"):
        ByteTable.from_tokenizer(processor, 300)


def test_the_reserved_ids_are_those_of_the_published_tokenizers(processor):
    assert processor.vocab_size() == VOCAB_SIZE
    assert (processor.pad_id(), processor.bos_id(), processor.eos_id()) == (0, 1, 2)
    assert processor.unk_id() == 3
    assert processor.id_to_piece(4) == "<0x00>"
    assert processor.id_to_piece(259) == "<0xFF>"


def test_a_newline_is_a_byte_and_no_piece_holds_a_space_but_at_its_front(processor):
    pieces = [processor.id_to_piece(token) for token in range(VOCAB_SIZE)]
    assert not [piece for piece in pieces if "\n" in piece or SPACE_MARK in piece[1:]]
    assert "<0x0A>" in processor.encode("a\nb", out_type=str)


def test_training_twice_gives_the_same_model_and_prints_nothing(model, capfd):
    assert train_tokenizer(TEXTS, VOCAB_SIZE) == model
    assert capfd.readouterr() == ("", "")


def test_only_the_first_megabytes_are_learnt_from(monkeypatch, model):
    limit = sum(len(text.encode()) + 1 for text in TEXTS)
    monkeypatch.setattr("trainer.data.tokenizer.SAMPLE_BYTES", limit)
    assert train_tokenizer([*TEXTS, "zqzqzq\n" * 1000], VOCAB_SIZE) == model


def test_a_vocabulary_without_room_for_bytes_or_characters_is_refused_with_both_numbers():
    for size, needed in ((200, "260"), (270, r"270 vs \d+")):
        with pytest.raises(ConfigError, match=f"vocabulary of {size} is too small.*{needed}"):
            train_tokenizer(TEXTS, size)


def test_a_vocabulary_too_large_for_the_text_is_refused_with_one_that_works():
    with pytest.raises(ConfigError, match="vocabulary of 60000 is too large") as caught:
        train_tokenizer(TEXTS[1:], 60_000)
    largest = int(str(caught.value).rpartition(" to ")[2].split()[0])
    assert parse_tokenizer(train_tokenizer(TEXTS[1:], largest)).vocab_size() == largest


def test_text_without_a_word_is_refused():
    with pytest.raises(ConfigError, match="no text"):
        train_tokenizer(["  \n\n"], 512)


def test_a_file_that_is_no_tokenizer_is_named_and_nothing_printed(tmp_path, model, capfd):
    path = tmp_path / "tokenizer.model"
    for content in (b"", b"x", b"no model " * 40, model[: len(model) // 2]):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=f"{path}: found {len(content)} bytes.*make data"):
            load_tokenizer(path)
    assert capfd.readouterr() == ("", "")


def test_a_missing_tokenizer_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot be read.*make data"):
        load_tokenizer(tmp_path / "tokenizer.model")
