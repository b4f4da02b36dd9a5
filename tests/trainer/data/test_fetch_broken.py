"""Whatever breaks on the way, a dataset comes whole and verified in the end, or not at all."""

import itertools
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.export import (
    FIRST,
    FOLDER,
    NAME,
    NUM_TRAIN,
    NUM_VAL,
    TOKENIZER,
    assert_nothing_looks_whole,
    contents,
    damaged,
    fetch_from,
)
from tests.support.hub import FakeHub, Fault
from trainer.config.config_errors import ConfigError
from trainer.data.download.hub import Hub, StoppedError, _CountedFile

pytestmark = pytest.mark.usefixtures("library")


# -- interruptions


def test_a_cut_connection_is_continued_where_it_was_cut(server, root, undisturbed):
    server.faults[FIRST] = iter([Fault(cut_after=650), Fault(cut_after=1_000)])
    assert fetch_from(server.endpoint, root).note is None
    starts = [start for name, start in server.served() if name == FIRST]
    assert starts == [None, 600, 1_600]  # in pieces of 200 bytes
    assert contents(root) == undisturbed


class Killed(BaseException):
    """Stands for the end of the process: nothing that handles exceptions handles it."""


def stop_after(monkeypatch, num_writes):
    """End the fetch in the midst of it, at a write of any of its threads."""
    counter, write = itertools.count(1), _CountedFile.write

    def dying(self, data):
        if next(counter) >= num_writes:
            raise Killed
        return write(self, data)

    monkeypatch.setattr(_CountedFile, "write", dying)


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(stops=st.lists(st.integers(1, 90), min_size=1, max_size=4))
def test_a_fetch_that_was_stopped_and_run_again_equals_one_that_was_not(
    published, undisturbed, tmp_path_factory, stops
):
    root = tmp_path_factory.mktemp("stopped")
    with FakeHub(dict(published)).running() as hub:
        for num_writes in stops:
            with pytest.MonkeyPatch.context() as patch:
                stop_after(patch, num_writes)
                try:
                    fetch_from(hub.endpoint, root)
                except Killed:
                    assert_nothing_looks_whole(published, root)
        fetch_from(hub.endpoint, root)
        assert contents(root) == undisturbed


def test_what_came_before_a_stop_is_not_asked_for_again(server, root, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 30)
        with pytest.raises(Killed):
            fetch_from(server.endpoint, root)
    kept = {name: len(content) for name, content in contents(root).items() if ".part" in name}
    whole = [name for name in contents(root) if name.startswith("fineweb")]
    assert sum(kept.values()) + len(whole) > 0
    server.requests.clear()
    fetch_from(server.endpoint, root)
    asked = dict(server.served())
    assert not set(whole) & set(asked)
    for name, size in kept.items():
        shard = name.removeprefix(".fetch/").partition(".bin")[0] + ".bin"
        assert asked[shard] == (size or None)


def test_nothing_is_written_once_it_is_to_stop(server, tmp_path):
    """A thread that waits for a silent server wakes up later, when another may hold the lock."""
    stop = threading.Event()
    stop.set()
    hub = Hub(server.endpoint)
    file = hub.find(f"{FOLDER}/{FIRST}")
    with pytest.raises(StoppedError):
        hub.download(file, tmp_path / "partial", lambda _: None, stop)
    assert (tmp_path / "partial").read_bytes() == b""


def test_a_server_that_knows_no_ranges_gives_the_whole_file_again(server, root, undisturbed):
    server.ignores_ranges = True
    server.faults[FIRST] = iter([Fault(cut_after=650)])
    fetch_from(server.endpoint, root)
    assert contents(root) == undisturbed


def test_a_shard_that_another_revision_changed_is_not_continued_with_its_bytes(server, root):
    """What has come of the old one is kept apart by its hash, and goes when all is there."""
    path = f"{FOLDER}/{FIRST}"
    new = server.files[path]
    server.files[path] = damaged(new)
    server.faults[FIRST] = itertools.chain(
        [Fault(cut_after=650)], itertools.repeat(Fault(status=500))
    )
    with pytest.raises(ConfigError, match=f"{FIRST} could not be fetched"):
        fetch_from(server.endpoint, root)
    server.files[path], server.faults[FIRST] = new, iter(())
    server.requests.clear()
    fetch_from(server.endpoint, root)
    assert (FIRST, None) in server.served()
    assert (root / NAME / FIRST).read_bytes() == new
    assert not (root / NAME / ".fetch").exists()


def test_two_fetches_at_once_fetch_every_file_once(server, root, undisturbed, capfd):
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(fetch_from(server.endpoint, root).status))
        for _ in range(2)
    ]
    server.faults[FIRST] = iter([Fault(hold_after=600)])
    for thread in threads:
        thread.start()
    assert server.holding.wait(20)
    server.let_go.set()
    for thread in threads:
        thread.join()
    assert sorted(answers) == ["fetched", "up to date"]
    names = [name for name, start in server.served() if start is None and name.endswith(".bin")]
    assert len(names) == len(set(names)) == NUM_TRAIN + NUM_VAL
    assert contents(root) == undisturbed
    assert "waiting for another process" in capfd.readouterr().err


# -- wrong content


def wrong(content):
    return Fault(content=damaged(content))


def short(content):
    return Fault(content=content[:-200])


def long(content):
    return Fault(content=content + b"more")


def failing(_content):
    return Fault(status=503)


@pytest.mark.parametrize("fault", [wrong, short, long, failing])
def test_a_shard_that_comes_wrong_is_named_and_fetched_again(server, root, undisturbed, fault):
    path = f"{FOLDER}/{FIRST}"
    server.faults[FIRST] = iter([fault(server.files[path])])
    assert FIRST in fetch_from(server.endpoint, root).note
    assert contents(root) == undisturbed


@pytest.mark.parametrize("fault", [wrong, short, long, failing])
def test_a_shard_that_keeps_coming_wrong_is_an_error_that_names_it(server, root, fault):
    content = server.files[f"{FOLDER}/{FIRST}"]
    server.faults[FIRST] = itertools.repeat(fault(content))
    with pytest.raises(ConfigError, match=rf"{FIRST}.*HF_ENDPOINT|{FIRST}.*Try again later"):
        fetch_from(server.endpoint, root)
    assert_nothing_looks_whole(server.files, root)
    assert FIRST not in contents(root)
    server.faults[FIRST] = iter(())
    assert fetch_from(server.endpoint, root).status == "fetched"


@pytest.mark.parametrize("change", [damaged, lambda content: content[:-2], lambda _: b""])
def test_a_wrong_shard_that_was_there_is_named_and_fetched_again(server, root, undisturbed, change):
    (root / NAME).mkdir(parents=True)
    (root / NAME / FIRST).write_bytes(change(server.files[f"{FOLDER}/{FIRST}"]))
    assert f"fetched again: {FIRST} was" in fetch_from(server.endpoint, root).note
    assert contents(root) == undisturbed


@pytest.mark.parametrize("name", [FIRST, "fineweb_val_000001.bin", "tokenizer.model"])
def test_a_dataset_of_which_a_file_is_lost_gets_it_back(server, root, undisturbed, name):
    fetch_from(server.endpoint, root)
    (root / NAME / name).unlink()
    server.requests.clear()
    assert fetch_from(server.endpoint, root).status == "fetched"
    assert len(server.served()) == 1
    assert contents(root) == undisturbed


def test_a_damaged_dataset_of_other_shards_is_refused_rather_than_mixed(server, root):
    fetch_from(server.endpoint, root)
    (root / NAME / FIRST).unlink()
    path = f"{FOLDER}/fineweb_train_000002.bin"
    server.files[path] = damaged(server.files[path])
    before = contents(root)
    with pytest.raises(ConfigError, match="do not mix"):
        fetch_from(server.endpoint, root)
    assert contents(root) == before


def test_a_wrong_tokenizer_is_asked_for_twice_and_then_an_error(server, root, undisturbed):
    name = "fineweb_512_bpe.model"
    fault = wrong(server.files[TOKENIZER])
    server.faults[name] = iter([fault])
    fetch_from(server.endpoint, root)
    assert contents(root) == undisturbed
    server.faults[name] = itertools.repeat(fault)
    with pytest.raises(ConfigError, match=f"{name}.*is not what that server says"):
        fetch_from(server.endpoint, root.with_name("again"))
