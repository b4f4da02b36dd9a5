"""The dataset of a corpus is built once, whole, or what was there stays."""

import subprocess
import sys
from dataclasses import replace

import pytest

from tests.support.tiny import word_corpus
from tests.support.tokenizers import tokenizer
from trainer.config.config_errors import ConfigError
from trainer.data.__main__ import main
from trainer.data.building import prepare
from trainer.data.building.corpus import split_documents
from trainer.data.building.documents import Document
from trainer.data.building.prepare import build_dataset, prepare_stdlib
from trainer.data.manifest import read_manifest

NAME, VOCAB_SIZE = "stdlib-tiny", 400


@pytest.fixture(scope="module")
def corpus():
    """Words, and what is rare in them: documents that begin and end with spaces."""
    words = word_corpus()
    texts = [f" begins with a space, ends with two\n\t{index} é " for index in range(20)]
    documents = [Document("", text) for text in texts]
    return split_documents([*words.train, *words.validation, *documents], 0.3, source=words.source)


def files_of(directory):
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


# -- what is not built


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
    assert read_manifest(tmp_path / NAME).val_raw_bytes is None  # the tokenizer loses nothing
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / NAME).iterdir()}
    assert prepare_stdlib(NAME, VOCAB_SIZE, tmp_path, corpus).status == "up to date"
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / NAME).iterdir()} == before


@pytest.fixture
def there(corpus, tmp_path):
    prepare_stdlib(NAME, VOCAB_SIZE, tmp_path, corpus)
    return tmp_path / NAME


def test_an_interrupted_build_leaves_what_was_there(monkeypatch, corpus, there):
    def stop(*_args):
        raise KeyboardInterrupt

    before = files_of(there)
    monkeypatch.setattr("trainer.data.building.writer.write_manifest", stop)
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


def test_a_folder_with_someone_elses_file_is_not_replaced(corpus, tmp_path):
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match=r"cannot be replaced: found thesis\.txt"):
        prepare_stdlib(NAME, VOCAB_SIZE, tmp_path, corpus, rebuild=True)


def test_a_damaged_dataset_is_rebuilt_and_said_so(corpus, there):
    before = files_of(there)
    for name in ("tokenizer.model", f"{NAME}_val_000000.bin"):
        (there / name).unlink()
        prepared = prepare_stdlib(NAME, VOCAB_SIZE, there.parent, corpus)
        assert prepared.status == "built"
        assert "could not be used" in prepared.note
        assert files_of(there) == before
    path = there / f"{NAME}_train_000000.bin"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")  # a token of training
    assert prepare_stdlib(NAME, VOCAB_SIZE, there.parent, corpus).status == "built"


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
