"""Shards that were made elsewhere become a dataset as they are, or nothing is left behind."""

import hashlib

import pytest

from tests.support.tiny import VOCAB_SIZE, word_corpus
from trainer.config.config_errors import ConfigError
from trainer.data.__main__ import main
from trainer.data.building.adopt import adopt
from trainer.data.building.prepare import build_dataset
from trainer.data.manifest import open_dataset, read_manifest
from trainer.data.shards import load_stream, write_shard
from trainer.data.tokenizer import BOS_ID
from trainer.files import file_sha256

NAME = "fineweb10B_sp512"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A dataset that was built here; its tokens are what the tests have others export."""
    directory = tmp_path_factory.mktemp("built") / "stdlib-512"
    build_dataset(directory, "stdlib-512", VOCAB_SIZE, word_corpus())
    return directory


@pytest.fixture(scope="module")
def tokenizer(built):
    return built / "tokenizer.model"


@pytest.fixture
def shards(built, tmp_path):
    """A folder with the same tokens under published names, cut elsewhere, and nothing else."""
    folder = tmp_path / "data" / NAME
    folder.mkdir(parents=True)
    dataset = open_dataset(built, VOCAB_SIZE)
    for split, paths in (("train", dataset.train_paths), ("val", dataset.val_paths)):
        stream = load_stream(paths)
        for index, start in enumerate(range(0, stream.size, 1_234)):
            write_shard(folder / f"fineweb_{split}_{index:06d}.bin", stream[start : start + 1_234])
    return folder


def files_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# -- what is adopted


@pytest.mark.parametrize("chunk", [7, 1 << 20])
def test_counts_are_those_of_the_dataset_that_the_tokens_come_from(
    built, shards, tokenizer, monkeypatch, chunk
):
    """However the stream is cut into shards, and these into chunks."""
    monkeypatch.setattr("trainer.data.shard_counts.CHUNK_TOKENS", chunk)
    found, expected = adopt(shards, tokenizer).dataset.manifest, read_manifest(built)
    for key in (
        "train_bytes",
        "val_bytes",
        "num_train_tokens",
        "num_val_tokens",
        "num_train_documents",
        "num_val_documents",
        "tokenizer_sha256",
        "vocab_size",
    ):
        assert getattr(found, key) == getattr(expected, key), key


def test_an_adopted_dataset_opens_and_its_shards_are_untouched(shards, tokenizer):
    before = files_of(shards)
    prepared = adopt(shards, tokenizer)
    assert prepared.status == "adopted"
    dataset = open_dataset(shards, VOCAB_SIZE, hash_train=True)
    assert dataset == prepared.dataset
    assert dataset.manifest.dataset == NAME
    names = [path.name for path in (*dataset.train_paths, *dataset.val_paths)]
    assert names == sorted(before)
    after = files_of(shards)
    assert after.pop("manifest.json")
    assert after.pop("tokenizer.model") == tokenizer.read_bytes()
    assert after == before


def test_the_hash_of_the_text_is_that_of_names_and_contents_in_their_order(shards, tokenizer):
    manifest = adopt(shards, tokenizer).dataset.manifest
    lines = [
        f"{split} {path.name} {file_sha256(path)}\n"
        for split, pattern in (("validation", "*_val_*"), ("train", "*_train_*"))
        for path in sorted(shards.glob(pattern))
    ]
    assert manifest.corpus_sha256 == hashlib.sha256("".join(lines).encode()).hexdigest()


# -- doing it again


def test_adopting_again_changes_nothing(shards, tokenizer):
    adopt(shards, tokenizer)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in shards.iterdir()}
    for again in (tokenizer, shards / "tokenizer.model"):
        assert adopt(shards, again).status == "up to date"
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in shards.iterdir()}
    assert after == before


def test_a_manifest_of_other_shards_is_kept_and_what_differs_is_said(shards, tokenizer):
    adopt(shards, tokenizer)
    (shards / "fineweb_train_000002.bin").unlink()
    before = files_of(shards)
    with pytest.raises(ConfigError, match=r"another dataset.*corpus_sha256, train.*Move it away"):
        adopt(shards, tokenizer)
    with pytest.raises(ConfigError, match="its dataset, "):
        adopt(shards, tokenizer, "other")
    assert files_of(shards) == before


def test_a_foreign_manifest_is_in_the_way(shards, tokenizer):
    (shards / "manifest.json").write_text('{"version": "export"}')
    with pytest.raises(ConfigError, match=r"manifest\.json is in the way"):
        adopt(shards, tokenizer)
    assert not (shards / "tokenizer.model").exists()


# -- what is refused


def no_validation(folder):
    for path in folder.glob("*_val_*"):
        path.unlink()


def no_training(folder):
    for path in folder.glob("*_train_*"):
        path.unlink()


def nothing_to_predict(folder):
    no_validation(folder)
    write_shard(folder / "fineweb_val_000000.bin", [BOS_ID])


def large_token(folder):
    write_shard(folder / "fineweb_train_000001.bin", [BOS_ID, VOCAB_SIZE])


def truncated(folder):
    path = folder / "fineweb_train_000001.bin"
    path.write_bytes(path.read_bytes()[:-2])


def both_splits(folder):
    write_shard(folder / "a_train_val_0.bin", [BOS_ID, 5])


def odd_name(folder):
    write_shard(folder / "fine web_train_0.bin", [BOS_ID, 5])


def training_sidecar(folder):
    write_shard(folder / "fineweb_train_bytes_0.bin", [0, 5])


def other_tokenizer(folder):
    (folder / "tokenizer.model").write_bytes(b"another")


REFUSED = {
    no_validation: r"no validation shard: .* 0 \*_val_\*\.bin.*fineweb_val_000000\.bin",
    no_training: r"no training shard: found 0 files \*_train_\*\.bin",
    nothing_to_predict: "the validation shards hold nothing to predict",
    large_token: r"train_000001\.bin: found token 512, expected tokens below 512",
    truncated: r"train_000001\.bin: it is truncated.*fetch again",
    both_splits: r"a_train_val_0\.bin: not the name of a shard",
    training_sidecar: r"train_bytes_0\.bin: not the name of a shard.*only validation",
    odd_name: r"fine web_train_0\.bin: not the name of a shard",
    other_tokenizer: r"tokenizer\.model is another tokenizer than",
}


@pytest.mark.parametrize(
    ("damage", "message"), REFUSED.items(), ids=[each.__name__ for each in REFUSED]
)
def test_what_does_not_fit_is_refused_and_nothing_is_left(shards, tokenizer, damage, message):
    damage(shards)
    before = files_of(shards)
    with pytest.raises(ConfigError, match=message):
        adopt(shards, tokenizer)
    assert files_of(shards) == before


def test_a_tokenizer_that_is_none_is_refused(shards, tmp_path):
    (tmp_path / "no.model").write_bytes(b"no model")
    for path in (tmp_path / "no.model", tmp_path / "absent.model"):
        with pytest.raises(ConfigError, match=rf"{path.name}: "):
            adopt(shards, path)
    assert not (shards / "tokenizer.model").exists()


def test_a_name_that_no_recipe_or_only_a_built_dataset_can_have_is_refused(shards, tokenizer):
    """A dataset that is called stdlib-… may be replaced by a build."""
    for name in ("stdlib-512", "my data", "../up", ".hidden"):
        with pytest.raises(ConfigError, match=r"name of an adopted dataset.*--dataset"):
            adopt(shards, tokenizer, name)


def test_an_interrupted_write_leaves_nothing(shards, tokenizer, monkeypatch):
    def stop(*_args):
        raise KeyboardInterrupt

    before = files_of(shards)
    monkeypatch.setattr("trainer.data.building.adopt.write_manifest", stop)
    with pytest.raises(KeyboardInterrupt):
        adopt(shards, tokenizer)
    assert files_of(shards) == before


# -- the commands


def test_the_command_adopts_and_says_what_is_there(shards, tokenizer, capsys):
    command = ["adopt", str(shards), "--tokenizer", str(tokenizer)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    manifest = read_manifest(shards)
    assert f"{shards} was adopted" in printed
    assert f"{len(manifest.train)} shards, {manifest.num_train_documents:,} documents" in printed
    assert f"{manifest.val_bytes:,} bytes" in printed
    assert main([*command, "--dataset", NAME]) == 0
    assert f"{shards} is up to date" in capsys.readouterr().out


def test_the_command_answers_bad_input_with_status_2_and_a_sentence(tokenizer, tmp_path, capsys):
    assert main(["adopt", str(tmp_path / "nowhere"), "--tokenizer", str(tokenizer)]) == 2
    streams = capsys.readouterr()
    assert "no such folder" in streams.err
    assert not streams.out


def prepare_command(shards, *more):
    command = ["prepare", "--offline", "--recipe", "tiny", "--root", str(shards.parent)]
    return [*command, "--set", f"data.dataset={NAME}", *more]


def test_preparing_an_adopted_dataset_finds_it_and_never_replaces_it(shards, tokenizer, capsys):
    adopt(shards, tokenizer)
    before = files_of(shards)
    assert main(prepare_command(shards)) == 0
    assert f"{shards} is up to date" in capsys.readouterr().out
    assert main(prepare_command(shards, "--rebuild")) == 2
    assert "cannot be built here" in capsys.readouterr().err
    path = shards / "fineweb_val_000000.bin"
    path.write_bytes(path.read_bytes()[:-2])
    assert main(prepare_command(shards)) == 2
    assert "fetch again" in capsys.readouterr().err
    assert files_of(shards).keys() == before.keys()


def test_preparing_shards_that_nobody_adopted_says_how(shards, capsys):
    assert main(prepare_command(shards)) == 2
    assert f"`python -m trainer.data adopt {shards} --tokenizer FILE`" in capsys.readouterr().err
