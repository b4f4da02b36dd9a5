"""A dataset of the published export comes whole and verified, or what was there stays.

The server is a fake on this machine. What this does not show: that the real one answers alike.
"""

import json
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from tests.support.commands import ROOT, environment
from tests.support.export import (
    FIRST,
    FOLDER,
    MANIFEST,
    NAME,
    NUM_TRAIN,
    TOKENIZER,
    damaged,
    dataset_files,
    fetch,
    shard_bytes,
)
from tests.support.hub import COMMIT, Fault, library_asks
from tests.support.tiny import VOCAB_SIZE
from trainer.config.config_errors import ConfigError
from trainer.data.__main__ import main
from trainer.data.building.adopt import adopt
from trainer.data.download import KNOWN, DownloadRequest, download
from trainer.data.hub import REPO
from trainer.data.manifest import open_dataset, read_manifest

NOWHERE = "http://127.0.0.1:9"


def left_in(root):
    """What stands beside the dataset but for the lock."""
    return {path.name for path in root.iterdir()} - {NAME, f".{NAME}.lock"}


# -- what is fetched


def test_a_download_leaves_the_published_files_and_a_manifest_of_them(server, root):
    prepared = fetch(root)
    assert (prepared.status, prepared.note) == ("fetched", None)
    assert open_dataset(root / NAME, VOCAB_SIZE, hash_train=True) == prepared.dataset
    assert read_manifest(root / NAME).source == (
        f"FineWeb export, {REPO}, revision {COMMIT[:12]}, {NUM_TRAIN} of {NUM_TRAIN} training "
        f"shards"
    )
    found = dataset_files(root)
    assert found.pop("manifest.json")
    assert found.pop("tokenizer.model") == server.files[TOKENIZER]
    shards = {path for path in server.files if path.endswith(".bin")}
    assert found == {path.rpartition("/")[2]: server.files[path] for path in shards}
    assert not left_in(root)


def test_a_fetched_dataset_is_the_one_that_adopting_the_same_files_makes(server, root, tmp_path):
    """Up to the source that it names; adopting it again changes nothing."""
    fetched = fetch(root).dataset.manifest
    shutil.copytree(root / NAME, tmp_path / "copy", ignore=shutil.ignore_patterns("*.json"))
    adopted = adopt(tmp_path / "copy", root / NAME / "tokenizer.model", NAME).dataset.manifest
    assert adopted.model_copy(update={"source": fetched.source}) == fetched
    before = dataset_files(root)
    assert adopt(root / NAME, root / NAME / "tokenizer.model").status == "up to date"
    assert dataset_files(root) == before


def test_a_dataset_that_is_whole_needs_no_server(server, root):
    fetch(root)
    server.num_requests = 0
    for offline in (False, True):
        for train_shards in (None, NUM_TRAIN):
            assert fetch(root, train_shards, offline=offline).status == "up to date"
    assert server.num_requests == 0


def test_shards_that_are_there_without_a_manifest_are_kept_if_they_are_right(
    server, root, undisturbed
):
    (root / NAME).mkdir(parents=True)
    for name, change in ((FIRST, bytes), ("fineweb_train_000001.bin", damaged)):
        (root / NAME / name).write_bytes(change(server.files[f"{FOLDER}/{name}"]))
    fetch(root)
    assert FIRST not in server.served
    assert "fineweb_train_000001.bin" in server.served
    assert dataset_files(root) == undisturbed


# -- how many shards


def test_a_larger_number_adds_the_shards_that_it_lacks(server, root, undisturbed):
    two = fetch(root, 2).dataset.manifest
    assert [shard.name for shard in two.train] == [FIRST, "fineweb_train_000001.bin"]
    server.served.clear()
    three = fetch(root, 3).dataset.manifest
    assert [name for name in server.served if name.endswith(".bin")] == ["fineweb_train_000002.bin"]
    assert two.corpus_sha256 != three.corpus_sha256
    fetch(root, NUM_TRAIN)
    assert dataset_files(root) == undisturbed


def test_without_a_number_a_dataset_stays_as_it_is_and_a_smaller_one_is_refused(server, root):
    fetch(root, 2)
    before = dataset_files(root)
    assert len(fetch(root).dataset.manifest.train) == 2
    with pytest.raises(ConfigError, match=r"--train-shards 1: .* has 2, and results depend"):
        fetch(root, 1)
    assert dataset_files(root) == before


def test_without_a_number_the_first_eighty_are_fetched(server, root, monkeypatch):
    """An export may hold more; three stand for eighty here."""
    monkeypatch.setattr("trainer.data.download.TRAIN_SHARDS", 3)
    assert len(fetch(root).dataset.manifest.train) == 3


def test_a_number_that_cannot_be_is_refused(server, root):
    for number, message in ((0, "1 training shard or more"), (5, "has 4")):
        with pytest.raises(ConfigError, match=message):
            fetch(root, number)


def test_fewer_shards_than_an_interrupted_download_had_make_the_smaller_dataset(server, root):
    server.faults["fineweb_train_000003.bin"] = iter([Fault(status=500)])
    with pytest.raises(ConfigError, match="answers 500"):
        fetch(root)
    assert (
        fetch(root, 1).dataset.manifest.num_train_tokens
        == (len(server.files[f"{FOLDER}/{FIRST}"]) - 1024) // 2
    )
    assert not left_in(root)


# -- what goes wrong on the way


def test_a_download_that_failed_goes_on_with_the_files_that_it_lacks(server, root, undisturbed):
    last = "fineweb_val_000001.bin"
    server.faults[last] = iter([Fault(status=500)])
    with pytest.raises(ConfigError, match=r"answers 500"):
        fetch(root)
    assert not (root / NAME).exists()
    here = {path.name for path in root.rglob("*.bin")}
    assert here
    server.served.clear()
    fetch(root)
    assert not here & set(server.served)
    assert dataset_files(root) == undisturbed


def test_wrong_content_is_named_and_fetched_again_the_next_time(server, root, undisturbed):
    """Of the right size, so that only its hash tells."""
    content = server.files[f"{FOLDER}/{FIRST}"]
    server.faults[FIRST] = iter([Fault(content=damaged(content))])
    with pytest.raises(ConfigError, match=rf"{FIRST} was wrong: found content .* expected"):
        fetch(root)
    assert not (root / NAME).exists()
    fetch(root)
    assert dataset_files(root) == undisturbed


@pytest.mark.parametrize("step", range(1, 4))
def test_a_move_that_was_interrupted_leaves_no_dataset_or_the_old_one(
    server, root, undisturbed, monkeypatch, step
):
    """The process ends after some of the files are in their place."""
    smaller = fetch(root, 2).dataset
    left, replace = iter(range(step)), type(root).replace

    def dying(self, target):
        if next(left, None) is None:
            raise SystemExit
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(type(root), "replace", dying)
        with pytest.raises(SystemExit):
            fetch(root, NUM_TRAIN)
    assert open_dataset(root / NAME, VOCAB_SIZE, hash_train=True) == smaller
    fetch(root, NUM_TRAIN)
    assert dataset_files(root) == undisturbed


@pytest.mark.parametrize("name", [FIRST, "fineweb_val_000001.bin", "tokenizer.model"])
def test_a_dataset_of_which_a_file_is_lost_gets_it_back(server, root, undisturbed, name):
    fetch(root)
    (root / NAME / name).unlink()
    server.served.clear()
    assert fetch(root).status == "fetched"
    assert [each for each in server.served if each.endswith(".bin")] == [name] * (".bin" in name)
    assert dataset_files(root) == undisturbed


def test_a_damaged_dataset_of_other_shards_is_refused_rather_than_mixed(server, root):
    fetch(root)
    (root / NAME / FIRST).unlink()
    path = f"{FOLDER}/fineweb_train_000002.bin"
    tokens = np.frombuffer(server.files[path][1024:], np.uint16)
    server.files[path] = shard_bytes(root / "other.bin", tokens[:-1])
    before = dataset_files(root)
    with pytest.raises(ConfigError, match="do not mix"):
        fetch(root)
    assert dataset_files(root) == before


def test_no_room_names_what_is_needed_and_what_is_free(server, root, monkeypatch):
    needed = sum(len(content) for path, content in server.files.items() if path.endswith(".bin"))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=needed - 1))
    with pytest.raises(ConfigError, match=rf"\({needed:,} bytes\).*\({needed - 1:,} bytes\)"):
        fetch(root)
    (root / NAME).mkdir()
    (root / NAME / FIRST).write_bytes(server.files[f"{FOLDER}/{FIRST}"])
    assert fetch(root).status == "fetched"  # that much less is needed


# -- what is refused


def change_manifest(server, change):
    manifest = json.loads(server.files[MANIFEST])
    change(manifest)
    server.files[MANIFEST] = json.dumps(manifest).encode()


def test_a_count_that_the_exports_manifest_has_wrong_is_said(server, root):
    change_manifest(server, lambda each: each["datasets"][1]["stats"].update(tokens_val=12_345))
    assert "validation has 12,345 tokens" in fetch(root).note


def test_a_manifest_that_lists_nothing_is_done_without(server, root, undisturbed):
    change_manifest(server, dict.clear)
    fetch(root)
    assert dataset_files(root) == undisturbed


def test_a_manifest_that_is_none_is_an_error(server, root):
    server.files[MANIFEST] = b"<html>"
    with pytest.raises(ConfigError, match=r"manifest\.json.*no JSON object"):
        fetch(root)


def test_an_export_that_lacks_a_file_is_refused(server, root):
    for path in (f"{FOLDER}/fineweb_val_000001.bin", f"{FOLDER}/{FIRST}", TOKENIZER):
        content = server.files.pop(path)
        with pytest.raises(ConfigError, match=path.rpartition("/")[2]):
            fetch(root)
        server.files[path] = content


def test_an_unknown_variant_lists_those_that_there_are(server, root):
    """By the server's list, or by heart where no server answers."""
    unknown = DownloadRequest(dataset="fineweb10B_sp77", vocab_size=77, root=root)
    with pytest.raises(ConfigError, match=rf"fineweb10B_sp77.*no such dataset. It has {NAME}\."):
        download(unknown)
    with library_asks(NOWHERE), pytest.raises(ConfigError, match=", ".join(KNOWN)):
        download(unknown)
    assert not root.exists()


def test_a_tokenizer_of_another_size_is_refused_before_any_shard_comes(server, root):
    other = DownloadRequest(dataset=NAME, vocab_size=1024, root=root)
    with pytest.raises(ConfigError, match=r"512 pieces.*vocab_size is 1024"):
        download(other)
    assert not [name for name in server.served if name.endswith(".bin")]


def test_a_server_that_refuses_is_named_and_what_helps_is_said(server, root):
    for refusal, message in (
        ((401, None), r"refuses it \(401\).*HF_TOKEN"),
        ((403, "GatedRepo"), r"refuses it \(403\)"),
        ((404, "RepoNotFound"), r"no such file \(404\).*HF_ENDPOINT"),
        ((500, None), "answers 500. Try again later"),
    ):
        server.refusal = refusal
        with pytest.raises(ConfigError, match=message) as error:
            fetch(root)
        assert f"{server.endpoint}/datasets/{REPO}" in str(error.value)
        assert f"`python -m trainer.data adopt {root / NAME} --tokenizer FILE`" in str(error.value)
    assert not root.exists()


def test_without_a_network_the_server_and_what_is_damaged_are_named(server, root):
    with library_asks(NOWHERE), pytest.raises(ConfigError, match=r"127\.0\.0\.1:9/.*Check the net"):
        fetch(root)
    fetch(root)
    (root / NAME / FIRST).unlink()
    damage = rf"(?s){FIRST}: it cannot be read.*127\.0\.0\.1:9/"
    with library_asks(NOWHERE), pytest.raises(ConfigError, match=damage):
        fetch(root)


def test_offline_says_what_is_missing_and_asks_nobody(server, root):
    with pytest.raises(ConfigError, match=r"no manifest.*Without --offline"):
        fetch(root, offline=True)
    fetch(root, 2)
    server.num_requests = 0
    with pytest.raises(ConfigError, match="has 2 training shards"):
        fetch(root, 3, offline=True)
    (root / NAME / FIRST).unlink()
    with pytest.raises(ConfigError, match=rf"{FIRST}.*Without --offline"):
        fetch(root, offline=True)
    assert server.num_requests == 0


def test_options_of_other_datasets_are_refused(root, capsys):
    for arguments, message in (
        (("--train-shards", "2"), "--train-shards is for datasets of the FineWeb export"),
        (("--set", f"data.dataset={NAME}", "--rebuild"), "cannot be built here"),
        (("--set", f"data.dataset={NAME}", "--offline"), "Without --offline it is fetched"),
    ):
        assert main(["prepare", "--recipe", "tiny", "--root", str(root), *arguments]) == 2
        assert message in capsys.readouterr().err
    assert not root.exists()


# -- as a process of its own: its settings, its signals


def start(server, root, **variables):
    """The command, started; what it asks goes to ``server``, as it would to a mirror."""
    variables = {"HF_ENDPOINT": server.endpoint, "HF_HOME": f"{root}-home"} | variables
    variables |= {"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1", "NO_PROXY": "*", "OMP_NUM_THREADS": "1"}
    command = ["prepare", "--recipe", "tiny", "--set", f"data.dataset={NAME}", "--root", str(root)]
    return subprocess.Popen(
        [sys.executable, "-m", "trainer.data", *command],
        cwd=ROOT,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(server, root, **variables):
    with start(server, root, **variables) as process:
        output, errors = process.communicate(timeout=120)
    return process.returncode, output, errors


def test_the_server_is_the_one_that_the_environment_names_or_none(server, root, undisturbed):
    """Nothing but the answer is printed where there is no terminal."""
    code, output, errors = run(server, root, HF_HUB_OFFLINE="1")
    assert (code, output, server.num_requests) == (2, "", 0)
    assert "HF_HUB_OFFLINE forbids to ask" in errors
    code, output, errors = run(server, root)
    assert (code, errors) == (0, "")
    assert f"{root / NAME} was fetched" in output
    assert dataset_files(root) == undisturbed


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_a_process_that_was_ended_leaves_nothing_half_built(server, root, undisturbed, ending):
    """Also where the server has gone silent, which must not hold Ctrl-C up."""
    server.faults[FIRST] = iter([Fault(hold_after=600)])
    with start(server, root) as process:
        assert server.holding.wait(60)
        process.send_signal(ending)
        _, errors = process.communicate(timeout=60)
    if ending == signal.SIGINT:
        assert process.returncode == 130
        assert errors == "Interrupted. Run it again to go on.\n"
    assert not (root / NAME).exists()
    server.let_go.set()
    fetch(root)
    assert dataset_files(root) == undisturbed
    assert not left_in(root)


def test_two_processes_at_once_fetch_every_file_once(server, root, undisturbed):
    server.faults[FIRST] = iter([Fault(hold_after=600)])
    with start(server, root) as first:
        assert server.holding.wait(60)
        with start(server, root) as second:
            assert "waiting for another process" in second.stderr.readline()
            server.let_go.set()
            outputs = [process.communicate(timeout=120)[0] for process in (first, second)]
    assert "was fetched" in outputs[0]
    assert "is up to date" in outputs[1]
    shards = [name for name in server.served if name.endswith(".bin")]
    assert len(shards) == len(set(shards))
    assert dataset_files(root) == undisturbed
