"""Shards are taken with the tokenizer that wrote them, and with no other of the same size."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.tokenizers import tokenizer
from trainer.config.config_errors import ConfigError
from trainer.data.building.adopt import adopt
from trainer.data.byte_audit import audited, open_audited
from trainer.data.checks.reencode import require_same_tokens
from trainer.data.manifest import read_manifest, write_manifest
from trainer.data.shards import write_shard
from trainer.data.tokenizer import BOS_ID, EOS_ID, load_tokenizer, parse_tokenizer, train_tokenizer
from trainer.files import file_sha256

WORDS = ["".join(random.Random(seed).choices("abcdefgh", k=1 + seed % 7)) for seed in range(300)]
TEXTS = [" ".join(random.Random(seed).choices(WORDS, k=60)) + "\n 🙂" for seed in range(99)]


@pytest.fixture(scope="module")
def right():
    return train_tokenizer(TEXTS, 330)


@pytest.fixture(scope="module")
def wrong():
    return train_tokenizer([text[::-1] for text in TEXTS], 330)


def stream_of(model, texts=TEXTS):
    processor = parse_tokenizer(model)
    return [token for text in texts for token in (BOS_ID, *processor.encode(text))]


@pytest.fixture
def shards(right, tmp_path):
    folder = tmp_path / "words"
    folder.mkdir()
    for split in ("train", "val"):
        write_shard(folder / f"x_{split}_000000.bin", stream_of(right))
    for name, model in (("right", right), ("wrong", train_tokenizer(TEXTS[:9], 330))):
        (tmp_path / f"{name}.model").write_bytes(model)
    return folder


def test_the_right_tokenizer_gives_all_tokens_and_one_of_its_size_does_not(shards, tmp_path):
    with pytest.raises(ConfigError, match=r"x_val_000000\.bin: of \d+ documents 0 gave the same"):
        adopt(shards, tmp_path / "wrong.model")
    assert adopt(shards, tmp_path / "right.model").status == "adopted"


def test_one_training_shard_of_another_tokenizer_is_refused(shards, wrong, tmp_path):
    write_shard(shards / "x_train_000001.bin", stream_of(wrong))
    with pytest.raises(ConfigError, match=r"x_train_000001\.bin: of .*written with another"):
        adopt(shards, tmp_path / "right.model")


def test_one_odd_document_of_thirty_is_let_pass_and_three_are_not(right, tmp_path):
    """Spelled in bytes, though there are pieces."""
    path = tmp_path / "a.bin"
    odd = [BOS_ID, *(4 + byte for byte in TEXTS[0].encode())]
    for num_odd, passes in ((1, True), (3, False)):
        write_shard(path, odd * num_odd + stream_of(right, TEXTS[:30]))
        assert gives_back(path, right) == passes


def gives_back(path, model):
    try:
        require_same_tokens([path], parse_tokenizer(model))
    except ConfigError:
        return False
    return True


def test_a_dataset_that_was_adopted_before_is_refused_when_it_is_audited_anew(shards, tmp_path):
    adopt(shards, tmp_path / "right.model")
    other = tmp_path / "wrong.model"
    (shards / "tokenizer.model").write_bytes(other.read_bytes())
    sha256 = file_sha256(other)
    old = read_manifest(shards).model_copy(update={"audited": 1, "tokenizer_sha256": sha256})
    write_manifest(shards, old)
    with pytest.raises(ConfigError, match="written with another tokenizer"):
        open_audited(shards)
    with pytest.raises(ConfigError, match="written with another tokenizer"):
        audited(old, [shards / "x_val_000000.bin"], load_tokenizer(other))


@pytest.mark.parametrize("kind", ["as built here", "unigram"])
def test_documents_may_be_cut_anywhere_and_end_with_a_control_piece(kind, tmp_path):
    processor = tokenizer(kind)
    path = tmp_path / "shard.bin"
    rows = [processor.encode(text) for text in TEXTS[:8]]

    @settings(deadline=None)
    @given(st.lists(st.integers(8, 60), min_size=8, max_size=8))
    def check(lengths):
        cut = [[BOS_ID, *row[:n], EOS_ID] for row, n in zip(rows, lengths, strict=True)]
        write_shard(path, np.concatenate(cut))
        require_same_tokens([path], processor)

    check()


@pytest.mark.parametrize("kind", ["as built here", "no dummy prefix", "as published"])
def test_documents_may_be_dealt_out_in_chunks_that_begin_anywhere(kind, tmp_path):
    processor = tokenizer(kind)
    tokens = [token for text in TEXTS for token in processor.encode(text)]
    chunks = [[BOS_ID, *tokens[start : start + 50]] for start in range(0, len(tokens), 50)]
    write_shard(tmp_path / "a.bin", np.concatenate(chunks))
    require_same_tokens([tmp_path / "a.bin"], processor)
    with pytest.raises(ConfigError, match="written with another"):
        require_same_tokens([tmp_path / "a.bin"], parse_tokenizer(train_tokenizer(TEXTS, 420)))


def test_documents_with_unknown_pieces_are_passed_over(tmp_path):
    processor = tokenizer("no byte fallback")
    write_shard(tmp_path / "a.bin", [BOS_ID, *processor.encode("\u6f22 the cat")])
    require_same_tokens([tmp_path / "a.bin"], processor)
