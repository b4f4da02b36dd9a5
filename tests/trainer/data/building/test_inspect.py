"""A sound dataset is said to be sound, and of another the first thing that is wrong is named."""

import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.tokenizers import tokenizer
from trainer.data.__main__ import main
from trainer.data.building.corpus import split_documents
from trainer.data.building.documents import Document
from trainer.data.building.inspect import span_text
from trainer.data.building.prepare import build_dataset
from trainer.data.manifest import Manifest, Shard, open_dataset, read_manifest, write_manifest
from trainer.data.shard_counts import hash_of_shards
from trainer.data.shards import load_stream, open_shard, write_shard
from trainer.data.tokenizer import BOS_ID
from trainer.files import file_sha256

NAME, VOCAB_SIZE = "stdlib-tiny", 400


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A dataset of some documents in shards of 500 tokens."""
    draw = random.Random(3)
    words = ["".join(draw.choices("abdeiklmnorstu", k=draw.randint(2, 7))) for _ in range(200)]
    texts = [" ".join(draw.choices(words, k=60)) + "\n é 🙂" for _ in range(40)]
    documents = [Document(str(index), text) for index, text in enumerate(texts)]
    directory = tmp_path_factory.mktemp("data") / NAME
    corpus = split_documents(documents, 0.3, source="made-up words")
    build_dataset(directory, NAME, VOCAB_SIZE, corpus, shard_tokens=500)
    return directory


@pytest.fixture
def copy(built, tmp_path):
    return Path(shutil.copytree(built, tmp_path / NAME))


def edit(folder, **changes):
    write_manifest(folder, read_manifest(folder).model_copy(update=changes))


# -- a sound dataset


def test_a_sound_dataset_is_described_and_said_to_be_sound(built, capsys):
    assert main(["inspect", str(built)]) == 0
    printed = capsys.readouterr().out
    manifest = read_manifest(built)
    for expected in (
        f"{NAME}, made-up words",
        manifest.corpus_sha256,
        manifest.tokenizer_sha256,
        "400 pieces",
        "256 bytes (byte fallback)",
        f"{manifest.num_train_documents:,} documents, {manifest.num_train_tokens:,} tokens",
        f"{manifest.val_bytes:,} bytes",
        f"{manifest.val_bytes / manifest.num_val_tokens:.4f} bytes per token",
        f"{manifest.val_bytes:,} bytes counted in {manifest.num_val_documents} validation",
        "sound ",
    ):
        assert expected in printed
    for shard in (*manifest.train, *manifest.validation):
        size = (built / shard.name).stat().st_size
        assert f"{shard.name}  {shard.num_tokens:,} tokens, {size:,} bytes" in printed


def test_what_the_manifest_leaves_unsaid_is_said_and_nothing_is_written(copy, capsys):
    edit(copy, audited=None)
    write_shard(copy / "left_over.bin", [BOS_ID])
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    assert main(["inspect", str(copy)]) == 0
    printed = capsys.readouterr().out
    assert "recipes refuse the data until" in printed
    assert "unused       left_over.bin" in printed
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before


# -- what is wrong is named


def change(split):
    def damage(folder):
        path = folder / f"{NAME}_{split}_000000.bin"
        tokens = np.array(open_shard(path))
        tokens[7] ^= 1
        write_shard(path, tokens)

    damage.__name__ = f"change_{split}"
    return damage


def rewrite(split, tokens):
    """Shards that are what the manifest says, and hold something else."""

    def damage(folder):
        path = folder / f"{NAME}_{split}_000000.bin"
        kind = "train" if split == "train" else "validation"
        first, *others = getattr(read_manifest(folder), kind)
        write_shard(path, tokens)
        shard = Shard(name=first.name, num_tokens=len(tokens), sha256=file_sha256(path))
        edit(folder, **{kind: (shard, *others)})

    damage.__name__ = f"rewrite_{split}_{tokens[1]}"
    return damage


def miscount(key):
    def damage(folder):
        edit(folder, **{key: getattr(read_manifest(folder), key) + 1})

    damage.__name__ = f"miscount_{key}"
    return damage


def swap_tokenizer(folder):
    (folder / "tokenizer.model").write_bytes(tokenizer("as built here").serialized_model_proto())


WRONG = {
    change("train"): r"train_000000\.bin: found content",
    change("val"): r"val_000000\.bin: found content",
    rewrite("train", [BOS_ID, 400]): r"train_000000\.bin: found token 400, expected tokens below",
    rewrite("val", [BOS_ID, 401]): r"val_000000\.bin: found token 401, expected tokens below",
    rewrite("val", [5, 300]): r"found \d+ documents in the validation shards, expected",
    miscount("num_val_documents"): r"found \d+ documents in the validation shards, expected \d+ as",
    miscount("num_train_documents"): r"found \d+ documents in the training shards",
    miscount("val_bytes"): r"found [\d,]+ bytes in the validation shards, expected",
    miscount("train_bytes"): r"found [\d,]+ bytes in the training shards, expected",
    swap_tokenizer: r"tokenizer\.model: found content",
}


@pytest.mark.parametrize(
    ("damage", "message"), WRONG.items(), ids=[damage.__name__ for damage in WRONG]
)
def test_the_first_thing_that_is_wrong_is_named(copy, capsys, damage, message):
    damage(copy)
    assert main(["inspect", str(copy)]) == 2
    streams = capsys.readouterr()
    assert re.search(message, streams.err)
    assert "sound" not in streams.out


def test_miscounted_bytes_are_found_though_all_hashes_and_counts_agree(tmp_path, capsys):
    """Written by something that believes its own count."""
    processor = tokenizer("several spaces")
    folder = tmp_path / "spaced"
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes(processor.serialized_model_proto())
    tokens = [BOS_ID, *processor.encode("the  cat")]
    shards = {}
    for split in ("train", "val"):
        path = folder / f"x_{split}_000000.bin"
        write_shard(path, tokens)
        shards[split] = Shard(name=path.name, num_tokens=len(tokens), sha256=file_sha256(path))
    manifest = Manifest(
        dataset="spaced",
        vocab_size=processor.vocab_size(),
        corpus_sha256=hash_of_shards([shards["train"]], [shards["val"]]),
        tokenizer_sha256=file_sha256(folder / "tokenizer.model"),
        train=(shards["train"],),
        validation=(shards["val"],),
        num_train_documents=1,
        num_val_documents=1,
        train_bytes=10,
        val_bytes=10,
        audited=1,
        source="elsewhere",
    )
    write_manifest(folder, manifest)
    assert main(["inspect", str(folder)]) == 2
    assert "10 bytes counted, 8 expected (+2): '▁▁'" in capsys.readouterr().err


# -- spans


def test_all_of_a_split_is_the_documents_each_behind_its_mark(built):
    dataset = open_dataset(built, VOCAB_SIZE)
    for split, paths in (("train", dataset.train_paths), ("val", dataset.val_paths)):
        stream = load_stream(paths)
        assert len(paths) > 2
        text = span_text(built, split, 0, stream.size, pieces=False)
        parts = np.split(stream, np.flatnonzero(stream == BOS_ID))[1:]
        texts = [dataset.processor.decode(part[1:].tolist()) for part in parts]
        assert text == "\n".join(f"<s>{each}" for each in texts)


def test_any_span_shows_its_own_pieces(built):
    dataset = open_dataset(built, VOCAB_SIZE)
    stream = load_stream(dataset.val_paths)

    @settings(deadline=None, max_examples=25)
    @given(st.integers(0, stream.size - 1), st.integers(1, 1500))
    def check(start, count):
        expected = stream[start : start + count].tolist()
        shown = span_text(built, "val", start, count, pieces=True)
        assert shown.split("|") == [dataset.processor.id_to_piece(token) for token in expected]
        text = span_text(built, "val", start, count, pieces=False)
        assert text.replace("<s>", "").replace("\n", "").replace(" ", "") == (
            dataset.processor.decode(expected).replace("\n", "").replace(" ", "")
        )

    check()


def test_the_command_decodes_the_start_of_validation_unless_told(built, capsys):
    assert main(["decode", str(built)]) == 0
    printed = capsys.readouterr().out
    assert printed == span_text(built, "val", 0, 200, pieces=False) + "\n"
    command = ["decode", str(built), "--split", "train", "--start", "3", "--count", "4"]
    assert main([*command, "--pieces"]) == 0
    assert capsys.readouterr().out == span_text(built, "train", 3, 4, pieces=True) + "\n"


def test_a_span_outside_of_the_split_is_refused_with_what_there_is(built, capsys):
    last = read_manifest(built).num_val_tokens - 1
    for start, count in ((-1, 5), (10**9, 5), (0, 0)):
        assert main(["decode", str(built), "--start", str(start), "--count", str(count)]) == 2
        assert f"has tokens 0 to {last}" in capsys.readouterr().err
