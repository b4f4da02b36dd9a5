"""Rewritten text is scored by the bytes of its original, which a sidecar holds, or is refused.

The rewriting is made up here: a capital letter becomes a mark for private use and the small one.
"""

import random
import re
import shutil

import numpy as np
import pytest

from tests.support.tiny import RANK_0, tiny_spec
from trainer.cell import validation_stream
from trainer.config.config_errors import ConfigError
from trainer.data.__main__ import main
from trainer.data.building.adopt import adopt
from trainer.data.manifest import open_dataset
from trainer.data.shards import load_stream, write_shard
from trainer.data.stage import copy_to_cache
from trainer.data.tokenizer import BOS_ID, SPACE_MARK, parse_tokenizer, train_tokenizer

VOCAB_SIZE = 512
MARK = "\ue001"


def some_text(seed):
    draw = random.Random(seed)
    words = ["".join(draw.choices("abcdefgh", k=draw.randint(2, 6))) for _ in range(80)]
    return " ".join(word.title() if draw.random() < 0.2 else word for word in words)


TEXTS = [some_text(seed) for seed in range(120)]
VAL = TEXTS[:40]


def rewrite(text):
    return re.sub("[A-Z]", lambda found: MARK + found[0].lower(), text)


@pytest.fixture(scope="module")
def model():
    return train_tokenizer(map(rewrite, TEXTS), VOCAB_SIZE)


def stream_of(model, texts):
    """Tokens, and how many bytes of the original each stands for: a mark stands for none."""
    processor = parse_tokenizer(model)
    tokens, counts = [], []
    for text in texts:
        ids = processor.encode(rewrite(text))
        pieces = [processor.id_to_piece(token).replace(MARK, "") for token in ids]
        pieces[0] = pieces[0].removeprefix(SPACE_MARK)
        tokens += [BOS_ID, *ids]
        counts += [0, *map(len, pieces)]
    return np.array(tokens, np.uint16), np.array(counts, np.uint16)


@pytest.fixture(scope="module")
def made(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "caps"
    folder.mkdir()
    (folder.parent / "caps.model").write_bytes(model)
    write_shard(folder / "caps_train_000000.bin", stream_of(model, TEXTS[40:])[0])
    for array, name in zip(stream_of(model, VAL), ("val", "val_bytes"), strict=True):
        write_shard(folder / f"caps_{name}_000000.bin", array[:300])
        write_shard(folder / f"caps_{name}_000001.bin", array[300:])
    return folder


@pytest.fixture
def folder(made, tmp_path):
    shutil.copy(made.parent / "caps.model", tmp_path)
    return shutil.copytree(made, tmp_path / "caps")


def adopted(folder):
    return adopt(folder, folder.parent / "caps.model").dataset


def test_the_bytes_are_those_of_the_original_and_the_sidecar_is_no_tokens(folder, capsys):
    manifest = adopted(folder).manifest
    assert manifest.val_bytes == sum(len(text.encode()) for text in VAL)
    assert [each.name for each in manifest.byte_sidecar] == [
        f"caps_val_bytes_00000{number}.bin" for number in (0, 1)
    ]
    assert len(manifest.validation) == 2
    assert manifest.num_val_documents == len(VAL)
    dataset = open_dataset(folder, VOCAB_SIZE)
    tokens = load_stream(dataset.val_paths)
    by_table = dataset.byte_table.count(tokens[:-1], tokens[1:])
    assert by_table.sum() > 1.05 * manifest.val_bytes
    for num_tokens in (2, 301, tokens.size):
        found = dataset.val_target_bytes(tokens[:num_tokens])
        counts = load_stream(dataset.sidecar_paths)
        assert found.tolist() == counts[1:num_tokens].tolist()
    assert main(["inspect", str(folder)]) == 0
    assert "those of the original are in the byte sidecar" in capsys.readouterr().out


def test_scores_divide_by_the_bytes_of_the_sidecar(folder):
    dataset = adopted(folder)
    stream = validation_stream(tiny_spec(folder), dataset, RANK_0)
    counts = load_stream(dataset.sidecar_paths)
    assert stream.num_targets > 300
    assert stream.target_bytes.tolist() == counts[1 : stream.num_targets + 1].tolist()


def test_a_sidecar_is_part_of_the_content_and_is_staged(folder, tmp_path):
    manifest = adopted(folder).manifest
    staged = copy_to_cache(folder, tmp_path / "cache")
    assert open_dataset(staged, VOCAB_SIZE).manifest == manifest
    path = folder / "caps_val_bytes_000000.bin"
    counts = np.array(load_stream([path]))
    counts[[5, 6]] += np.array([1, -1], np.int64).astype(np.uint16)
    write_shard(path, counts)
    with pytest.raises(ConfigError, match=r"val_bytes_000000\.bin: found content"):
        open_dataset(folder, VOCAB_SIZE)
    with pytest.raises(ConfigError, match="its corpus_sha256, byte_sidecar would change"):
        adopted(folder)


def test_rewritten_text_without_its_sidecar_is_refused(folder):
    for path in folder.glob("*_val_bytes_*"):
        path.unlink()
    with pytest.raises(ConfigError, match=r"characters for private use.*\*_val_bytes_\*\.bin"):
        adopted(folder)
    assert not (folder / "manifest.json").exists()


def shorter(counts):
    return counts[:-1]


def one_place_on(counts):
    return np.roll(counts, 1)


def negative(counts):
    changed = counts.copy()
    changed[7] = 2**16 - 1
    return changed


def all_zero(counts):
    return np.zeros_like(counts)


WRONG = {
    shorter: r"shards of \[300, \d+\] counts, expected \[300, \d+\]",
    one_place_on: "which is a control piece, expected 0",
    negative: r"bytes in document 0, expected about the",
    all_zero: "expected 60% or more, each count in its place",
}


@pytest.mark.parametrize("change", WRONG, ids=[each.__name__ for each in WRONG])
def test_a_sidecar_of_other_tokens_is_refused(folder, change):
    paths = sorted(folder.glob("*_val_bytes_*"))
    changed = change(np.array(load_stream(paths)))
    write_shard(paths[0], changed[:300])
    write_shard(paths[1], changed[300:])
    with pytest.raises(ConfigError, match=WRONG[change]):
        adopted(folder)
    assert not (folder / "manifest.json").exists()


def test_counts_of_the_rewritten_text_are_refused(folder):
    """Such as the byte table's own, which count the marks."""
    dataset = adopted(folder)
    tokens = load_stream(dataset.val_paths)
    counts = [0, *dataset.byte_table.count(tokens[:-1], tokens[1:])]
    (folder / "manifest.json").unlink()
    write_shard(folder / "caps_val_bytes_000000.bin", counts[:300])
    write_shard(folder / "caps_val_bytes_000001.bin", counts[300:])
    with pytest.raises(ConfigError, match=r"counts [\d,]+ bytes, and the text has [\d,]+ without"):
        adopted(folder)


def test_counts_that_are_off_by_one_within_documents_are_refused(folder, model):
    """Where each BOS still has its 0."""
    tokens, counts = stream_of(model, VAL)
    parts = np.split(counts, np.flatnonzero(tokens == BOS_ID))[1:]
    moved = np.concatenate([np.append(each[:1], np.roll(each[1:], 1)) for each in parts])
    write_shard(folder / "caps_val_bytes_000000.bin", moved[:300])
    write_shard(folder / "caps_val_bytes_000001.bin", moved[300:])
    with pytest.raises(ConfigError, match="each count in its place"):
        adopted(folder)
