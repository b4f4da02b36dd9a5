"""A dataset is whole and unchanged, or it is not opened."""

import json
import shutil
from pathlib import Path

import pytest

from tests.support.tiny import VOCAB_SIZE
from trainer.config.config_errors import ConfigError
from trainer.data.building.adopt import adopt
from trainer.data.byte_audit import open_audited
from trainer.data.manifest import open_dataset, read_manifest, write_manifest
from trainer.data.shards import write_shard
from trainer.files import file_sha256


@pytest.fixture
def copy(data_dir, tmp_path):
    return Path(shutil.copytree(data_dir, tmp_path / data_dir.name))


def test_a_whole_dataset_opens(data_dir):
    dataset = open_dataset(data_dir, VOCAB_SIZE, hash_train=True)
    assert all(path.is_file() for path in (*dataset.train_paths, *dataset.val_paths))
    assert dataset.byte_table.base_bytes.shape == (VOCAB_SIZE,)


def test_a_missing_folder_and_a_missing_manifest_say_how_to_build(tmp_path):
    for directory in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(ConfigError, match=r"make data RECIPE.*trainer\.data prepare") as caught:
            open_dataset(directory, VOCAB_SIZE)
        assert str(directory) in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", '{"version": "export"}', '{"dataset": 3}'])
def test_what_is_wrong_with_a_manifest_is_said_once_in_one_line(copy, text):
    """Such as the export's own manifest, which is another thing of that name."""
    (copy / "manifest.json").write_text(text)
    for use in (open_dataset, lambda folder: adopt(folder, folder / "tokenizer.model", "words")):
        with pytest.raises(ConfigError) as caught:
            use(copy)
        message = str(caught.value)
        assert "\n" not in message
        assert message.count(str(copy / "manifest.json")) == 1
        assert message.count("move it away") == 1


def test_a_manifest_of_before_byte_sidecars_is_read_as_it_was(copy):
    path = copy / "manifest.json"
    old = json.loads(path.read_text())
    assert old.pop("byte_sidecar") is None
    path.write_text(json.dumps(old | {"audited": 1}))
    assert read_manifest(copy).model_dump(mode="json", exclude={"byte_sidecar"}) == json.loads(
        path.read_text()
    )
    assert open_audited(copy).manifest.corpus_sha256 == old["corpus_sha256"]
    assert json.loads(path.read_text()) == old | {"byte_sidecar": None}


def test_a_tokenizer_that_does_not_fit_is_refused_with_both_numbers(data_dir):
    with pytest.raises(ConfigError, match=r"does not fit.*512 pieces.*vocab_size is 1024"):
        open_dataset(data_dir, 1024)


def test_the_tokenizer_of_another_dataset_is_refused(copy):
    tokenizer = copy / "tokenizer.model"
    # Field 99, which SentencePiece does not know: a model that loads and is not the same file.
    tokenizer.write_bytes(tokenizer.read_bytes() + b"\x9a\x06\x00")
    with pytest.raises(ConfigError, match=r"tokenizer\.model: found content .* expected"):
        open_dataset(copy, VOCAB_SIZE)


def test_a_shard_of_another_length_is_refused(copy):
    manifest = read_manifest(copy)
    path = copy / manifest.train[0].name
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ConfigError, match=rf"{path.name}: it is truncated.*make data"):
        open_dataset(copy, VOCAB_SIZE)
    write_shard(path, [1, 2, 3])
    number = manifest.train[0].num_tokens
    with pytest.raises(ConfigError, match=f"found 3 tokens, expected {number}"):
        open_dataset(copy, VOCAB_SIZE)


def test_a_changed_token_is_found_in_training_if_that_is_hashed(copy):
    manifest = read_manifest(copy)
    for shards, hash_train in ((manifest.train, True), (manifest.validation, False)):
        path = copy / shards[0].name
        whole = path.read_bytes()
        path.write_bytes(whole[:2000] + bytes([whole[2000] ^ 1]) + whole[2001:])
        with pytest.raises(ConfigError, match=f"{path.name}: found content"):
            open_dataset(copy, VOCAB_SIZE, hash_train=hash_train)
        path.write_bytes(whole)


def test_a_token_outside_the_vocabulary_is_refused(copy):
    manifest = read_manifest(copy)
    path = copy / manifest.validation[0].name
    write_shard(path, [1, VOCAB_SIZE])
    shard = manifest.validation[0].model_copy(update={"num_tokens": 2, "sha256": file_sha256(path)})
    write_manifest(copy, manifest.model_copy(update={"validation": (shard,)}))
    with pytest.raises(ConfigError, match=r"found token 512, expected tokens below .* 512"):
        open_dataset(copy, VOCAB_SIZE)
