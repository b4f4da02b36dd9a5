"""The dataset of a corpus is built once, whole, or what was there stays."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from tests.support.tiny import word_corpus
from tests.support.tokenizers import tokenizer
from trainer.config.config_errors import ConfigError
from trainer.data.__main__ import main
from trainer.data.building import prepare
from trainer.data.building.corpus import split_documents
from trainer.data.building.documents import Document
from trainer.data.building.prepare import build_dataset, prepare_stdlib
from trainer.data.manifest import open_dataset, read_manifest
from trainer.data.shards import load_stream
from trainer.data.tokenizer import BOS_ID

NAME, VOCAB_SIZE = "stdlib-tiny", 400


@pytest.fixture(scope="module")
def corpus():
    """Words, and what is rare in them: documents that begin and end with spaces."""
    words = word_corpus()
    texts = [f" begins with a space, ends with two\n\t{index} é " for index in range(20)]
    documents = [Document("", text) for text in texts]
    return split_documents([*words.train, *words.validation, *documents], 0.3, source=words.source)


@pytest.fixture(scope="module")
def built(tmp_path_factory, corpus):
    """One good dataset in shards of 5,000 tokens."""
    directory = tmp_path_factory.mktemp("data") / NAME
    build_dataset(directory, NAME, VOCAB_SIZE, corpus, shard_tokens=5_000)
    return directory


def files_of(directory):
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


# -- what a build writes


def test_every_document_is_behind_a_bos_and_decodes_to_its_text(built, corpus):
    dataset = open_dataset(built, VOCAB_SIZE)
    for paths, documents in (
        (dataset.train_paths, corpus.train),
        (dataset.val_paths, corpus.validation),
    ):
        stream = load_stream(paths)
        starts = np.flatnonzero(stream == BOS_ID)
        assert starts[0] == 0
        pieces = [part[1:].tolist() for part in np.split(stream, starts[1:])]
        texts = [dataset.processor.decode(part) for part in pieces]
        assert texts == [each.text for each in documents]


def test_the_manifest_states_the_corpus_and_its_bytes(built, corpus):
    manifest = read_manifest(built)
    assert manifest.corpus_sha256 == corpus.sha256
    assert manifest.train_bytes == sum(len(each.text.encode()) for each in corpus.train)
    assert manifest.val_bytes == sum(len(each.text.encode()) for each in corpus.validation)
    assert manifest.val_raw_bytes is None
    assert max(shard.num_tokens for shard in manifest.train) == 5_000


def test_a_tokenizer_that_loses_text_is_not_used(monkeypatch, corpus, tmp_path):
    """Such as one that normalises white space."""
    model = tokenizer("as published").serialized_model_proto()
    monkeypatch.setattr(prepare, "train_tokenizer", lambda *_arguments: model)
    with pytest.raises(ConfigError, match=r"tokens stand for .* bytes and their documents have"):
        prepare_stdlib(NAME, VOCAB_SIZE, tmp_path, corpus)
    assert not list(tmp_path.iterdir())


def test_a_corpus_without_one_of_its_splits_is_refused(corpus, tmp_path):
    for split in ("train", "validation"):
        with pytest.raises(ConfigError, match=f"no document for {split}"):
            prepare_stdlib(NAME, VOCAB_SIZE, tmp_path, replace(corpus, **{split: ()}))


# -- what preparing does


def test_preparing_twice_builds_once(corpus, tmp_path):
    assert prepare_stdlib(NAME, VOCAB_SIZE, tmp_path, corpus).status == "built"
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / NAME).iterdir()}
    assert prepare_stdlib(NAME, VOCAB_SIZE, tmp_path, corpus).status == "up to date"
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / NAME).iterdir()} == before


@pytest.fixture
def there(corpus, tmp_path):
    prepare_stdlib(NAME, VOCAB_SIZE, tmp_path, corpus)
    return tmp_path / NAME


@pytest.mark.parametrize("moment", ["write_atomically", "ShardWriter.append", "write_manifest"])
def test_an_interrupted_build_leaves_what_was_there(monkeypatch, corpus, there, moment):
    def stop(*_args):
        raise KeyboardInterrupt

    before = files_of(there)
    monkeypatch.setattr(f"trainer.data.building.writer.{moment}", stop)
    for name in (NAME, "stdlib-new"):
        with pytest.raises(KeyboardInterrupt):
            prepare_stdlib(name, VOCAB_SIZE, there.parent, corpus, rebuild=True)
    assert files_of(there) == before
    assert [path.name for path in there.parent.iterdir()] == [NAME]


def test_of_two_builds_at_once_the_first_stays_and_both_succeed(monkeypatch, corpus, tmp_path):
    def build_while_another_finishes(directory, *arguments):
        build_dataset(directory, *arguments)
        build_dataset(tmp_path / NAME, *arguments)

    monkeypatch.setattr(prepare, "build_dataset", build_while_another_finishes)
    assert prepare_stdlib(NAME, VOCAB_SIZE, tmp_path, corpus).status == "up to date"
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_a_dataset_of_another_text_is_kept_and_said_so(corpus, there):
    before = files_of(there)
    other = split_documents([*corpus.train, *corpus.validation], 0.6, source="another Python")
    prepared = prepare_stdlib(NAME, VOCAB_SIZE, there.parent, other)
    assert prepared.status == "kept"
    assert "made-up words" in prepared.note
    assert "another Python" in prepared.note
    assert files_of(there) == before
    rebuilt = prepare_stdlib(NAME, VOCAB_SIZE, there.parent, other, rebuild=True)
    assert rebuilt.status == "built"
    assert rebuilt.dataset.manifest.corpus_sha256 == other.sha256
    assert [path.name for path in there.parent.iterdir()] == [NAME]


def test_a_damaged_dataset_is_rebuilt_and_said_so(corpus, there):
    before = files_of(there)
    for name in before:
        (there / name).unlink()
        prepared = prepare_stdlib(NAME, VOCAB_SIZE, there.parent, corpus)
        assert prepared.status == "built"
        assert "could not be used" in prepared.note
        assert files_of(there) == before
    path = there / f"{NAME}_train_000000.bin"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")  # a token of training
    assert prepare_stdlib(NAME, VOCAB_SIZE, there.parent, corpus).status == "built"


def test_a_folder_with_someone_elses_file_is_not_replaced(corpus, tmp_path):
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "thesis.txt").write_text("years of work")
    for rebuild in (False, True):
        with pytest.raises(ConfigError, match=r"cannot be replaced: found thesis\.txt"):
            prepare_stdlib(NAME, VOCAB_SIZE, tmp_path, corpus, rebuild=rebuild)
    assert (tmp_path / NAME / "thesis.txt").read_text() == "years of work"


def test_a_dataset_with_another_vocabulary_is_not_replaced_unasked(corpus, there):
    with pytest.raises(ConfigError, match=r"vocabulary of 400.*vocab_size is 450.*stdlib-450"):
        prepare_stdlib(NAME, 450, there.parent, corpus)
    assert prepare_stdlib(NAME, 450, there.parent, corpus, rebuild=True).status == "built"


# -- the command


@pytest.fixture
def command(monkeypatch, tmp_path, corpus):
    monkeypatch.setattr("trainer.data.__main__.stdlib_corpus", lambda: corpus)
    return ["prepare", "--recipe", "tiny", "--root", str(tmp_path / "data")]


def test_the_command_builds_then_finds_the_data_up_to_date(command, capsys):
    assert main(command) == 0
    assert "was built" in capsys.readouterr().out
    assert main(command) == 0
    assert "is up to date" in capsys.readouterr().out


def test_the_command_answers_bad_input_with_status_2_and_a_sentence(command, capsys, tmp_path):
    for override, message in (
        ("data.dataset=fineweb", r"cannot be built here. What can be: stdlib-NAME"),
        ("model.vocab_size=200", "too small"),
        ("data.datset=x", "Did you mean 'dataset'"),
    ):
        assert main([*command, "--set", override]) == 2
        streams = capsys.readouterr()
        assert message in streams.err
        assert not streams.out
    (tmp_path / "file").write_text("not a folder")
    assert main([*command, "--root", str(tmp_path / "file")]) == 2
    assert f"{tmp_path / 'file'}" in capsys.readouterr().err


def test_the_command_runs_as_a_module_without_torch():
    code = "import sys, trainer.data.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    asked = [sys.executable, "-m", "trainer.data", "prepare", "--help"]
    answer = subprocess.run(asked, capture_output=True, text=True, check=True)
    assert "--recipe" in answer.stdout
