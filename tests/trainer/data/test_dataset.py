"""A dataset is whole and unchanged, or it is refused; building never leaves half of one."""

import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trainer.config.config_errors import ConfigError
from trainer.data.__main__ import main
from trainer.data.building.corpus import split_documents
from trainer.data.building.prepare import build_dataset, prepare
from trainer.data.manifest import open_dataset, read_manifest, write_manifest
from trainer.data.shards import load_stream, write_shard
from trainer.data.tokenizer import BOS_ID, Document, load_tokenizer
from trainer.files import file_sha256

NAME, VOCAB_SIZE = "stdlib-tiny", 400

RECIPE = f"""
data = {{ dataset = "{NAME}" }}
model = {{ vocab_size = {VOCAB_SIZE}, num_layers = 2, width = 32, num_heads = 2, num_kv_heads = 1, \
mlp_hidden = 64, rope_dims = 8 }}
train = {{ seq_len = 32, batch_tokens = 256, micro_steps = 8, warmup_steps = 0, \
warmdown_steps = 4 }}
optim = {{ matrix_lr = 0.02, embed_lr = 0.02, scalar_lr = 0.02 }}
averaging = {{ kind = "none" }}
quantization = {{ matrices = "int8_row", embeddings = "int8_row", passthrough_numel = 0, \
compressor = "zlib", preset = 9 }}
scoring = {{ seq_len = 32, stride = 16, batch_seqs = 4 }}
artifact = {{ code_bytes = 0 }}
"""


def small_corpus(source="made-up words"):
    """Documents of words drawn from a fixed seed, so that no Python version matters."""
    draw = random.Random(7).random
    syllables = [c + v for c in "bcdfghklmnprst" for v in ("a", "e", "i", "o", "u", "é")]
    words = [
        "".join(syllables[int(len(syllables) * draw())] for _ in range(1 + index % 3))
        for index in range(500)
    ]
    texts = [" ".join(words[int(500 * draw() ** 2)] for _ in range(400)) for _ in range(40)]
    texts += [f" begins with a space, ends with two\n\t{index}  " for index in range(20)]
    documents = [Document(f"doc-{index}", text) for index, text in enumerate(texts)]
    return split_documents(documents, 0.3, source=source)


@pytest.fixture(scope="module")
def corpus():
    return small_corpus()


@pytest.fixture(scope="module")
def built(tmp_path_factory, corpus):
    """One good dataset in shards of 5,000 tokens; tests that damage it work on a copy."""
    directory = tmp_path_factory.mktemp("data") / NAME
    build_dataset(directory, NAME, VOCAB_SIZE, corpus, shard_tokens=5_000)
    return directory


@pytest.fixture
def copy(built, tmp_path):
    return Path(shutil.copytree(built, tmp_path / NAME))


def contents(directory):
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


# -- what a build writes


def test_two_builds_are_byte_identical(built, corpus, tmp_path):
    build_dataset(tmp_path / NAME, NAME, VOCAB_SIZE, corpus, shard_tokens=5_000)
    assert contents(tmp_path / NAME) == contents(built)


def test_every_document_is_behind_a_bos_and_decodes_to_its_text(built, corpus):
    dataset = open_dataset(built, VOCAB_SIZE)
    processor = load_tokenizer(dataset.tokenizer_path)
    for paths, documents in (
        (dataset.train_paths, corpus.train),
        (dataset.val_paths, corpus.validation),
    ):
        stream = load_stream(paths)
        starts = np.flatnonzero(stream == BOS_ID)
        assert starts[0] == 0
        pieces = [part[1:].tolist() for part in np.split(stream, starts[1:])]
        assert [processor.decode(part) for part in pieces] == [each.text for each in documents]


def test_shards_hold_at_most_their_number_of_tokens_and_sort_in_their_order(built):
    manifest = read_manifest(built)
    names = [shard.name for shard in manifest.train]
    assert names[:2] == [f"{NAME}_train_000000.bin", f"{NAME}_train_000001.bin"]
    assert names == sorted(names)
    assert max(shard.num_tokens for shard in manifest.train) == 5_000
    assert manifest.num_train_tokens == load_stream([built / name for name in names]).size


def test_the_manifests_bytes_are_counted_by_the_table_and_are_those_of_the_text(built, corpus):
    dataset = open_dataset(built, VOCAB_SIZE)
    stream = load_stream(dataset.val_paths)
    counted = dataset.byte_table.count(stream[:-1], stream[1:]).sum()
    assert counted == dataset.manifest.val_bytes
    assert counted == sum(len(each.text.encode()) for each in corpus.validation)


def test_a_tokenizer_that_loses_text_is_not_used(monkeypatch, corpus, tmp_path):
    monkeypatch.setattr(Document, "num_bytes", 1)
    with pytest.raises(ConfigError, match=r"tokens stand for .* bytes and their documents have"):
        prepare(NAME, VOCAB_SIZE, tmp_path, corpus)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_corpus_without_one_of_its_splits_is_refused(corpus, tmp_path, split):
    with pytest.raises(ConfigError, match=f"no document for {split}"):
        prepare(NAME, VOCAB_SIZE, tmp_path, replace(corpus, **{split: ()}))


# -- what opening refuses


def test_a_whole_dataset_opens(built):
    dataset = open_dataset(built, VOCAB_SIZE, hash_train=True)
    assert dataset.tokenizer_path.is_file()
    assert all(path.is_file() for path in (*dataset.train_paths, *dataset.val_paths))
    assert dataset.byte_table.base_bytes.shape == (VOCAB_SIZE,)


def test_a_missing_folder_and_a_missing_manifest_say_how_to_build(tmp_path):
    for directory in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(ConfigError, match=r"make data RECIPE.*trainer\.data prepare") as caught:
            open_dataset(directory, VOCAB_SIZE)
        assert str(directory) in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", '{"dataset": "x"}', "\x00"])
def test_a_manifest_that_is_none_is_named(copy, text):
    (copy / "manifest.json").write_text(text)
    with pytest.raises(ConfigError, match=r"manifest\.json"):
        open_dataset(copy, VOCAB_SIZE)


def test_a_tokenizer_that_does_not_fit_is_refused_with_both_numbers(built):
    with pytest.raises(ConfigError, match=r"does not fit.*400 pieces.*vocab_size is 1024"):
        open_dataset(built, 1024)


def test_the_tokenizer_of_another_dataset_is_refused(copy):
    tokenizer = copy / "tokenizer.model"
    # Field 99, which SentencePiece does not know: a model that loads and is not the same file.
    tokenizer.write_bytes(tokenizer.read_bytes() + b"\x9a\x06\x00")
    with pytest.raises(ConfigError, match=r"tokenizer\.model: found content .* expected"):
        open_dataset(copy, VOCAB_SIZE)


def test_a_truncated_shard_is_refused(copy):
    path = copy / f"{NAME}_train_000001.bin"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ConfigError, match=r"train_000001\.bin: it is truncated.*make data"):
        open_dataset(copy, VOCAB_SIZE)


def test_a_whole_shard_with_another_number_of_tokens_is_refused(copy):
    write_shard(copy / f"{NAME}_train_000000.bin", [1, 2, 3])
    with pytest.raises(ConfigError, match="found 3 tokens, expected 5000"):
        open_dataset(copy, VOCAB_SIZE)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_changed_token_is_found(copy, split):
    path = copy / f"{NAME}_{split}_000000.bin"
    content = bytearray(path.read_bytes())
    content[2000] ^= 1
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="found content"):
        open_dataset(copy, VOCAB_SIZE, hash_train=True)


def test_a_token_outside_the_vocabulary_is_refused(copy):
    manifest = read_manifest(copy)
    path = copy / manifest.validation[0].name
    write_shard(path, [1, VOCAB_SIZE])
    shard = manifest.validation[0].model_copy(update={"num_tokens": 2, "sha256": file_sha256(path)})
    write_manifest(copy, manifest.model_copy(update={"validation": (shard,)}))
    with pytest.raises(ConfigError, match=r"found token 400, expected tokens below .* 400"):
        open_dataset(copy, VOCAB_SIZE)


# -- what preparing does


def test_preparing_twice_builds_once(corpus, tmp_path):
    assert prepare(NAME, VOCAB_SIZE, tmp_path, corpus).status == "built"
    before = contents(tmp_path / NAME)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / NAME).iterdir()}
    assert prepare(NAME, VOCAB_SIZE, tmp_path, corpus).status == "up to date"
    assert contents(tmp_path / NAME) == before
    assert {path: path.stat().st_mtime_ns for path in times} == times


@pytest.mark.parametrize(
    "interruption", [KeyboardInterrupt, OSError], ids=lambda each: each.__name__
)
@pytest.mark.parametrize("moment", ["encode_documents", "write_shard", "write_manifest"])
def test_an_interrupted_build_leaves_nothing(monkeypatch, corpus, tmp_path, moment, interruption):
    def stop(*_args):
        raise interruption

    monkeypatch.setattr(f"trainer.data.building.prepare.{moment}", stop)
    with pytest.raises(interruption):
        prepare(NAME, VOCAB_SIZE, tmp_path, corpus)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_rebuild_leaves_the_old_dataset(monkeypatch, corpus, copy):
    before = contents(copy)

    def stop(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr("trainer.data.building.prepare.write_manifest", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare(NAME, VOCAB_SIZE, copy.parent, corpus, rebuild=True)
    assert contents(copy) == before


def test_of_two_builds_at_once_the_first_stays_and_both_succeed(monkeypatch, corpus, tmp_path):
    def build_while_another_finishes(directory, *args):
        build_dataset(directory, *args)
        build_dataset(tmp_path / NAME, *args)

    monkeypatch.setattr("trainer.data.building.prepare.build_dataset", build_while_another_finishes)
    assert prepare(NAME, VOCAB_SIZE, tmp_path, corpus).status == "up to date"
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_a_dataset_of_another_text_is_kept_and_said_so(corpus, copy):
    before = contents(copy)
    other = split_documents([*corpus.train, *corpus.validation], 0.6, source="another Python")
    prepared = prepare(NAME, VOCAB_SIZE, copy.parent, other)
    assert prepared.status == "kept"
    assert "made-up words" in prepared.note
    assert "another Python" in prepared.note
    assert contents(copy) == before
    rebuilt = prepare(NAME, VOCAB_SIZE, copy.parent, other, rebuild=True)
    assert rebuilt.status == "built"
    assert rebuilt.dataset.manifest.corpus_sha256 == other.sha256
    assert [path.name for path in copy.parent.iterdir()] == [NAME]


@pytest.mark.parametrize("name", ["manifest.json", "tokenizer.model", f"{NAME}_train_000000.bin"])
def test_a_damaged_dataset_is_rebuilt_and_said_so(corpus, copy, name):
    (copy / name).unlink()
    prepared = prepare(NAME, VOCAB_SIZE, copy.parent, corpus)
    assert prepared.status == "built"
    assert "could not be used" in prepared.note
    assert [path.name for path in copy.parent.iterdir()] == [NAME]


def test_a_single_changed_training_token_is_rebuilt_too(corpus, copy):
    path = copy / f"{NAME}_train_000000.bin"
    content = bytearray(path.read_bytes())
    content[2000] ^= 1
    path.write_bytes(content)
    assert prepare(NAME, VOCAB_SIZE, copy.parent, corpus).status == "built"


def test_a_folder_with_someone_elses_file_is_not_replaced(corpus, tmp_path):
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "thesis.txt").write_text("years of work")
    for rebuild in (False, True):
        with pytest.raises(ConfigError, match=r"cannot be replaced: found thesis\.txt"):
            prepare(NAME, VOCAB_SIZE, tmp_path, corpus, rebuild=rebuild)
    assert (tmp_path / NAME / "thesis.txt").read_text() == "years of work"


def test_a_dataset_with_another_vocabulary_is_not_replaced_unasked(corpus, copy):
    with pytest.raises(ConfigError, match=r"vocabulary of 400.*vocab_size is 450.*stdlib-450"):
        prepare(NAME, 450, copy.parent, corpus)
    assert prepare(NAME, 450, copy.parent, corpus, rebuild=True).status == "built"


def test_a_dataset_that_cannot_be_built_here_says_what_can(corpus, tmp_path):
    with pytest.raises(ConfigError, match=r"'fineweb10B'.*stdlib-1024.*FineWeb.*data adopt"):
        prepare("fineweb10B", VOCAB_SIZE, tmp_path, corpus)


# -- the command


@pytest.fixture
def command(monkeypatch, tmp_path):
    monkeypatch.setattr("trainer.data.commands.prepare.stdlib_corpus", small_corpus)
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(RECIPE)
    return ["prepare", "--recipe", str(recipe), "--root", str(tmp_path / "data")]


def test_the_command_builds_then_finds_the_data_up_to_date(command, capsys):
    assert main(command) == 0
    assert "was built" in capsys.readouterr().out
    assert main(command) == 0
    assert "is up to date" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.dataset=fineweb", "cannot be built here"),
        ("model.vocab_size=200", "too small"),
        ("data.datset=x", "Did you mean 'dataset'"),
    ],
)
def test_the_command_answers_bad_input_with_status_2_and_a_sentence(
    command, capsys, override, message
):
    assert main([*command, "--set", override]) == 2
    streams = capsys.readouterr()
    assert message in streams.err
    assert not streams.out


def test_the_command_answers_a_root_that_is_a_file_with_status_2(command, capsys, tmp_path):
    (tmp_path / "data").write_text("not a folder")
    assert main(command) == 2
    assert "--root" in capsys.readouterr().err


def test_the_command_runs_as_a_module():
    asked = [sys.executable, "-m", "trainer.data", "prepare", "--help"]
    answer = subprocess.run(asked, capture_output=True, text=True, check=True)
    assert "--recipe" in answer.stdout
