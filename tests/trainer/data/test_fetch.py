"""The published export comes as it was published, as much of it as is asked for.

The server is a fake on this machine. What this does not show: that the real one answers alike.
"""

import itertools
import shutil

import pytest

from tests.support.export import (
    FIRST,
    FOLDER,
    NAME,
    NUM_TRAIN,
    TOKENIZER,
    contents,
    damaged,
    fetch_from,
)
from tests.support.hub import COMMIT, Fault
from tests.support.tiny import VOCAB_SIZE
from trainer.config.config_errors import ConfigError
from trainer.data.building.adopt import adopt
from trainer.data.download.hub import REPO
from trainer.data.manifest import open_dataset, read_manifest

pytestmark = pytest.mark.usefixtures("library")


# -- what is fetched


def test_a_fetch_leaves_the_published_files_and_a_manifest_of_them(server, root):
    prepared = fetch_from(server.endpoint, root)
    assert prepared.status == "fetched"
    assert prepared.note is None
    assert open_dataset(root / NAME, VOCAB_SIZE, hash_train=True) == prepared.dataset
    found = contents(root)
    assert read_manifest(root / NAME).source == (
        f"FineWeb export, {REPO}, revision {COMMIT[:12]}, {NUM_TRAIN} of {NUM_TRAIN} training "
        f"shards"
    )
    assert found.pop("manifest.json")
    assert found.pop("tokenizer.model") == server.files[TOKENIZER]
    shards = {path for path in server.files if path.endswith(".bin")}
    assert found == {path.rpartition("/")[2]: server.files[path] for path in shards}


def test_a_fetched_dataset_is_the_one_that_adopting_the_same_files_makes(server, root, tmp_path):
    """Up to the source that it names; adopting it again changes nothing."""
    fetched = fetch_from(server.endpoint, root).dataset.manifest
    shutil.copytree(root / NAME, tmp_path / "copy", ignore=shutil.ignore_patterns("*.json"))
    adopted = adopt(tmp_path / "copy", root / NAME / "tokenizer.model", NAME).dataset.manifest
    differing = {key for key, value in fetched if value != getattr(adopted, key)}
    assert differing <= {"source", "audited"}
    before = contents(root)
    assert adopt(root / NAME, root / NAME / "tokenizer.model").status == "up to date"
    assert contents(root) == before


def test_every_file_is_asked_for_once_and_no_token_is_sent(server, root):
    fetch_from(server.endpoint, root)
    names = [name for name, _ in server.served()]
    assert sorted(names) == sorted(
        path.rpartition("/")[2] for path in server.files if path.endswith((".bin", ".model"))
    )
    assert not any(request.authorized for request in server.requests)


def test_files_are_not_compressed_on_the_way(server, root):
    """A range of a compressed file is no range of the file."""
    fetch_from(server.endpoint, root)
    files = [request for request in server.requests if request.path.startswith("/cdn/")]
    assert {request.encoding for request in files} == {"identity"}


def test_what_is_there_already_is_not_asked_for(server, root):
    """Shards without a manifest: those of a fetch that ended between the two, or of one's own."""
    (root / NAME).mkdir(parents=True)
    for name in (FIRST, "fineweb_val_000001.bin"):
        (root / NAME / name).write_bytes(server.files[f"{FOLDER}/{name}"])
    fetch_from(server.endpoint, root)
    assert not {FIRST, "fineweb_val_000001.bin"} & {name for name, _ in server.served()}


def test_a_dataset_that_is_whole_needs_no_server(server, root):
    fetch_from(server.endpoint, root)
    server.requests.clear()
    for offline in (False, True):
        for train_shards in (None, NUM_TRAIN):
            prepared = fetch_from(server.endpoint, root, train_shards, offline=offline)
            assert prepared.status == "up to date"
    assert not server.requests


def test_a_server_that_knows_only_gits_hashes_will_do(server, root, undisturbed):
    """As it does of files that are small, and of any on a mirror without Git LFS."""
    server.large_bytes = 10**9
    server.faults[FIRST] = iter([Fault(content=damaged(server.files[f"{FOLDER}/{FIRST}"]))])
    assert FIRST in fetch_from(server.endpoint, root).note
    assert contents(root) == undisturbed


# -- how many shards


def test_a_larger_number_adds_the_shards_that_it_lacks(server, root, undisturbed):
    two = fetch_from(server.endpoint, root, 2).dataset.manifest
    assert [shard.name for shard in two.train] == [FIRST, "fineweb_train_000001.bin"]
    server.requests.clear()
    three = fetch_from(server.endpoint, root, 3).dataset.manifest
    assert server.served() == [("fineweb_train_000002.bin", None)]
    assert len({two.corpus_sha256, three.corpus_sha256}) == 2
    fetch_from(server.endpoint, root, NUM_TRAIN)
    assert contents(root) == undisturbed


def test_without_a_number_a_dataset_stays_as_it_is(server, root):
    fetch_from(server.endpoint, root, 2)
    server.requests.clear()
    prepared = fetch_from(server.endpoint, root)
    assert len(prepared.dataset.manifest.train) == 2
    assert f"2 of {NUM_TRAIN} training shards" in prepared.dataset.manifest.source
    assert not server.requests


def test_without_a_number_the_first_eighty_are_fetched(server, root, monkeypatch):
    """An export may hold more; three stand for eighty here."""
    monkeypatch.setattr("trainer.data.download.fetch.TRAIN_SHARDS", 3)
    assert len(fetch_from(server.endpoint, root).dataset.manifest.train) == 3


def test_a_smaller_number_is_refused_and_changes_nothing(server, root):
    fetch_from(server.endpoint, root, 3)
    before = contents(root)
    with pytest.raises(ConfigError, match=r"--train-shards 2: .* has 3, and results depend"):
        fetch_from(server.endpoint, root, 2)
    assert contents(root) == before


@pytest.mark.parametrize(("number", "message"), [(0, "1 training shard or more"), (5, "has 4")])
def test_a_number_that_cannot_be_is_refused(server, root, number, message):
    with pytest.raises(ConfigError, match=message):
        fetch_from(server.endpoint, root, number)


def test_growing_an_interrupted_time_leaves_the_smaller_dataset_usable(server, root):
    smaller = fetch_from(server.endpoint, root, 2).dataset
    server.faults["fineweb_train_000003.bin"] = itertools.repeat(Fault(status=500))
    with pytest.raises(ConfigError, match="000003"):
        fetch_from(server.endpoint, root, 4)
    assert open_dataset(root / NAME, VOCAB_SIZE, hash_train=True) == smaller
