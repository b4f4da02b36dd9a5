"""A staged dataset is the source, byte for byte, or it is not there."""

import multiprocessing
import shutil
from pathlib import Path

import pytest

from tests.support.export import fetch
from trainer.config.config_errors import ConfigError
from trainer.data import stage as staging
from trainer.data.__main__ import main
from trainer.data.manifest import open_dataset, read_manifest
from trainer.data.stage import copy_to_cache, staged_folder


@pytest.fixture
def source(data_dir, tmp_path):
    """A copy of the tiny dataset, which a test may damage."""
    return shutil.copytree(data_dir, tmp_path / "source")


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def flags(source, *more):
    manifest = read_manifest(source)
    values = {
        "--data": source,
        "--dataset": manifest.dataset,
        "--vocab-size": manifest.vocab_size,
        "--corpus": manifest.corpus_sha256,
        "--tokenizer": manifest.tokenizer_sha256,
    }
    return ["stage", *(str(part) for pair in values.items() for part in pair), *map(str, more)]


def test_what_is_staged_is_the_source(source, tmp_path):
    staged = copy_to_cache(source, tmp_path / "cache")
    assert content(staged) == content(source)
    assert open_dataset(staged, 512).manifest == read_manifest(source)


def test_staging_again_touches_nothing(source, tmp_path):
    staged = copy_to_cache(source, tmp_path / "cache")
    before = {path.name: path.stat().st_mtime_ns for path in staged.iterdir()}
    assert copy_to_cache(source, tmp_path / "cache") == staged
    assert {path.name: path.stat().st_mtime_ns for path in staged.iterdir()} == before


def test_once_staged_the_source_is_not_read_but_for_its_manifest(source, tmp_path):
    staged = copy_to_cache(source, tmp_path / "cache")
    for path in source.glob("*.bin"):
        path.unlink()
    assert copy_to_cache(source, tmp_path / "cache") == staged


def test_another_content_lies_elsewhere(source, tmp_path):
    """Its place is named after what it is, so two corpora of one name do not meet."""
    manifest = read_manifest(source)
    other = manifest.model_copy(update={"corpus_sha256": "c" * 64})
    assert staged_folder(tmp_path, manifest) != staged_folder(tmp_path, other)


def test_a_file_that_is_not_what_the_manifest_says_is_named_and_nothing_is_staged(source, tmp_path):
    for pattern in ("*_val_*.bin", "*_train_*.bin", "tokenizer.model"):
        (path,) = source.glob(pattern)
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(ConfigError, match=rf"{path.name}: found content .* expected"):
            copy_to_cache(source, tmp_path / "cache")
        assert not staged_folder(tmp_path / "cache", read_manifest(source)).exists()
        path.write_bytes(whole)


def test_a_copy_that_was_cut_is_made_anew(source, tmp_path, monkeypatch):
    """After no file, one or two: what is left has no place, and the next copy is whole."""
    real = staging._copy_verified
    for number in (0, 1, 2):
        left = iter(range(number))

        def cut(*arguments, left=left):
            next(left)  # StopIteration at the last of them
            real(*arguments)

        monkeypatch.setattr(staging, "_copy_verified", cut)
        with pytest.raises(StopIteration):
            copy_to_cache(source, tmp_path / "cache")
        assert not staged_folder(tmp_path / "cache", read_manifest(source)).exists()
    monkeypatch.setattr(staging, "_copy_verified", real)
    assert content(copy_to_cache(source, tmp_path / "cache")) == content(source)


def test_a_damaged_copy_is_made_anew(source, tmp_path):
    staged = copy_to_cache(source, tmp_path / "cache")
    for name in ("manifest.json", "tokenizer.model", read_manifest(source).train[0].name):
        whole = (staged / name).read_bytes()
        for damaged in (whole[: len(whole) // 2], None):
            if damaged is None:
                (staged / name).unlink()
            else:
                (staged / name).write_bytes(damaged)
            assert copy_to_cache(source, tmp_path / "cache") == staged
            assert content(staged) == content(source)


def test_many_at_once_copy_once(source, tmp_path):
    """Four processes that start together give one folder, and none sees a part of it."""
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        found = pool.starmap(copy_to_cache, [(source, tmp_path / "cache")] * 4)
    assert len(set(found)) == 1
    assert content(found[0]) == content(source)
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.is_dir()] == [
        found[0].name
    ]


def test_too_little_room_is_said_before_anything_is_copied(source, tmp_path, monkeypatch):
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda path: full)
    with pytest.raises(ConfigError, match=r"GB are needed .* 0\.0 GB are free"):
        copy_to_cache(source, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*/"))


# -- the command


def test_the_command_prints_the_folder_to_read(source, tmp_path, capsys):
    assert main(flags(source)) == 0
    assert capsys.readouterr().out.strip() == str(source)
    assert main(flags(source, "--cache", tmp_path / "cache")) == 0
    staged = staged_folder(tmp_path / "cache", read_manifest(source))
    assert capsys.readouterr().out.strip() == str(staged)


def test_data_that_is_not_what_was_asked_for_is_refused(source, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for flag, value, said in (
        ("--corpus", "c" * 64, "the cell asks for corpus cccccccccccc"),
        ("--data", f"{tmp_path}/nowhere", f"{tmp_path}/nowhere: there is no such folder"),
        ("--data", f"{tmp_path}/empty", "no manifest.json in it"),
    ):
        arguments = flags(source)
        arguments[arguments.index(flag) + 1] = value
        assert main(arguments) == 2
        assert said in capsys.readouterr().err


def test_a_node_without_the_data_fetches_it_where_that_is_asked_for(server, root, tmp_path, capsys):
    """As many training shards as the driver has; what comes is what it has, in the cache."""
    there = fetch(root, 2).dataset.directory
    arguments = flags(there, "--train-shards", 2, "--cache", tmp_path / "cache")
    arguments[arguments.index("--data") + 1] = str(tmp_path / "other-node" / there.name)
    assert main(arguments) == 2
    assert "there is no such folder" in capsys.readouterr().err
    assert main([*arguments, "--missing", "fetch"]) == 0
    staged = Path(capsys.readouterr().out.strip().splitlines()[-1])
    assert staged.is_relative_to(tmp_path / "cache")
    assert content(staged) == content(there)
    assert main([*arguments, "--missing", "fetch"]) == 0  # and is there from then on
    assert Path(capsys.readouterr().out.strip().splitlines()[-1]) == staged


def test_data_that_nobody_publishes_cannot_be_fetched(source, tmp_path, capsys):
    arguments = flags(source, "--missing", "fetch")
    arguments[arguments.index("--data") + 1] = str(tmp_path / "gone")
    arguments[arguments.index("--dataset") + 1] = "my-own"
    assert main(arguments) == 2
    assert "'my-own' can be fetched from nowhere. Put it at this path" in capsys.readouterr().err
