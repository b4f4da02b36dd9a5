"""What cannot be fetched is refused with a sentence that names it and says what helps."""

import json
from types import SimpleNamespace

import pytest

from tests.support.export import FIRST, FOLDER, MANIFEST, NAME, contents, fetch_from
from tests.support.hub import sha256
from trainer.config.config_errors import ConfigError
from trainer.data.download.fetch import fetch
from trainer.data.download.hub import REPO, Hub
from trainer.data.download.wanted import Wanted

pytestmark = pytest.mark.usefixtures("library")


def change_manifest(server, change):
    manifest = json.loads(server.files[MANIFEST])
    change(manifest)
    server.files[MANIFEST] = json.dumps(manifest).encode()


def test_hashes_of_the_manifest_are_held_against_the_files(server, root):
    content = server.files[f"{FOLDER}/{FIRST}"]
    change_manifest(
        server,
        lambda manifest: manifest["datasets"][1].update(
            files=[{"path": f"datasets/{NAME}/{FIRST}", "sha256": sha256(content)}]
        ),
    )
    fetch_from(server.endpoint, root)
    change_manifest(
        server,
        lambda manifest: manifest["datasets"][1].update(files={FIRST: sha256(b"another")}),
    )
    with pytest.raises(ConfigError, match=rf"{FIRST}: the export's manifest says"):
        fetch_from(server.endpoint, root.with_name("again"))


def test_a_count_that_the_manifest_has_wrong_is_said(server, root):
    def change(manifest):
        manifest["datasets"][1]["stats"]["tokens_val"] = 12_345

    change_manifest(server, change)
    assert "validation has 12,345 tokens" in fetch_from(server.endpoint, root).note


# -- what is refused


def test_no_room_names_what_is_needed_and_what_is_free(server, root, monkeypatch):
    needed = sum(len(content) for path, content in server.files.items() if path.endswith(".bin"))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=needed - 1))
    with pytest.raises(ConfigError, match=rf"\({needed:,} bytes\).*\({needed - 1:,} bytes\)"):
        fetch_from(server.endpoint, root)
    assert not [name for name in contents(root) if name.endswith(".bin")]
    (root / NAME / FIRST).write_bytes(server.files[f"{FOLDER}/{FIRST}"])
    assert fetch_from(server.endpoint, root).status == "fetched"  # that much less is needed


@pytest.mark.parametrize("listed", [True, False])
def test_an_unknown_variant_lists_those_that_are_known(server, root, listed):
    """By the export's manifest, or by heart where no server answers."""
    wanted = Wanted(dataset="fineweb10B_sp77", vocab_size=77, root=root)
    expected = f"It has {NAME}." if listed else f"{NAME}, fineweb10B_sp1024"
    endpoint = server.endpoint if listed else "http://127.0.0.1:9"
    with pytest.raises(ConfigError, match=rf"fineweb10B_sp77.*no such dataset.*{expected}"):
        fetch(wanted, Hub(endpoint))
    assert not root.exists()


def test_a_manifest_that_lists_nothing_is_done_without(server, root, undisturbed):
    def change(manifest):
        manifest.clear()

    change_manifest(server, change)
    fetch_from(server.endpoint, root)
    assert contents(root) == undisturbed


def test_a_manifest_that_is_none_is_an_error(server, root):
    server.files[MANIFEST] = b"<html>"
    with pytest.raises(ConfigError, match=r"manifest\.json.*no JSON object"):
        fetch_from(server.endpoint, root)


@pytest.mark.parametrize("name", ["fineweb_val_000001.bin", "fineweb_train_000001.bin"])
def test_an_export_that_lacks_a_shard_is_refused(server, root, name):
    del server.files[f"{FOLDER}/{name}"]
    with pytest.raises(ConfigError, match=rf"not complete.*{name}"):
        fetch_from(server.endpoint, root)


def test_a_tokenizer_of_another_size_is_refused_before_any_shard_comes(server, root):
    wanted = Wanted(dataset=NAME, vocab_size=1024, root=root)
    with pytest.raises(ConfigError, match=r"512 pieces.*model\.vocab_size is 1024"):
        fetch(wanted, Hub(server.endpoint))
    assert not contents(root)


REFUSALS = {
    (401, None): r"refuses it \(401\).*HF_TOKEN",
    (403, "GatedRepo"): r"refuses it \(403\)",
    (404, "RepoNotFound"): r"no such file \(404\).*HF_ENDPOINT",
    (500, None): "answers 500. Try again later",
}


@pytest.mark.parametrize(("refusal", "message"), REFUSALS.items())
def test_a_server_that_refuses_is_named_and_what_helps_is_said(server, root, refusal, message):
    server.refusal = refusal
    with pytest.raises(ConfigError, match=message) as error:
        fetch_from(server.endpoint, root)
    assert f"{server.endpoint}/datasets/{REPO}" in str(error.value)
    assert f"`python -m trainer.data adopt {root / NAME} --tokenizer FILE`" in str(error.value)
    assert not root.exists()


def test_a_server_that_is_not_there_is_named(root):
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1:9/.*Check the network"):
        fetch_from("http://127.0.0.1:9", root)


def test_a_damaged_dataset_is_named_where_nothing_can_be_fetched(server, root):
    fetch_from(server.endpoint, root)
    (root / NAME / FIRST).unlink()
    with pytest.raises(ConfigError, match=rf"(?s){FIRST}: it cannot be read.*127\.0\.0\.1:9/"):
        fetch_from("http://127.0.0.1:9", root)


def test_the_librarys_own_switch_forbids_to_ask(server, root, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE"):
        fetch_from(server.endpoint, root)
    assert not server.requests


def test_offline_says_what_is_missing_and_asks_nobody(server, root):
    with pytest.raises(ConfigError, match=r"no manifest.*Without --offline"):
        fetch_from(server.endpoint, root, offline=True)
    fetch_from(server.endpoint, root, 2)
    server.requests.clear()
    with pytest.raises(ConfigError, match="has 2 training shards"):
        fetch_from(server.endpoint, root, 3, offline=True)
    (root / NAME / FIRST).unlink()
    with pytest.raises(ConfigError, match=rf"{FIRST}.*Without --offline"):
        fetch_from(server.endpoint, root, offline=True)
    assert not server.requests
