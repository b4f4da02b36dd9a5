"""A folder and a bucket keep the same promises: a file is whole, and a name goes to one writer."""

import errno
import os
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest

from sweep.store.files import RemoteFiles, StoreError, open_files
from sweep.store.files.local import ABANDONED_S
from tests.support.commands import ROOT
from tests.support.s3 import forget_clients
from trainer.config.config_errors import ConfigError


def test_a_name_is_given_once_and_its_content_stays(shared):
    files = open_files(shared)
    assert files.create("attempts/a", b"one")
    assert not files.create("attempts/a", b"other")
    assert files.read("attempts/a") == b"one"


def test_a_replaced_file_has_its_new_content(shared):
    files = open_files(shared)
    for data in (b"a longer one", b"short", b""):
        files.replace("cells.parquet", data)
        assert files.read("cells.parquet") == data


def test_a_folder_lists_its_files_in_order_and_nothing_else(shared):
    files = open_files(shared)
    for name in ("a/2", "a/10", "a/1", "a/deeper/3", "b/4", "5"):
        files.replace(name, b"x")
    assert files.names("a") == ["1", "10", "2"]
    assert files.names("") == ["5"]
    assert files.folders() == ["a", "b"]
    assert files.names("c") == []


def test_what_is_not_there_is_missing_and_can_be_removed(shared):
    files = open_files(shared)
    assert not files.exists("a/1")
    for ask in (files.read, files.modified_at):
        with pytest.raises(FileNotFoundError):
            ask("a/1")
    files.remove("a/1")
    files.replace("a/1", b"x")
    assert files.exists("a/1")
    files.remove("a/1")
    assert not files.exists("a/1")


def test_the_place_says_when_a_file_was_written(shared):
    files = open_files(shared)
    files.replace("a", b"x")
    # S3 tells whole seconds; the file system's clock may lag by a tick of the kernel.
    assert timedelta(seconds=-1) < datetime.now(UTC) - files.modified_at("a") < timedelta(seconds=5)


def test_a_place_is_told_as_it_was_typed(shared):
    files = open_files(shared)
    assert files.place == shared
    assert files.where("a/b") == f"{shared}/a/b"


@pytest.mark.parametrize("typed", ["ftp://host/x", "s3:/bucket/x", "http://host/x"])
def test_a_place_that_cannot_hold_results_is_refused(typed):
    with pytest.raises(ConfigError, match="s3://BUCKET/PREFIX"):
        open_files(typed)


def test_nothing_but_the_file_is_left(tmp_path):
    files = open_files(tmp_path)
    files.create("a/b", b"x")
    files.create("a/b", b"y")
    files.replace("a/b", b"z")
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "b"]


def without_links(source, target):
    raise OSError(errno.EPERM, "Operation not permitted")


def test_where_links_are_unknown_a_name_is_given_once_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", without_links)
    test_a_name_is_given_once_and_its_content_stays(tmp_path)
    assert [path.name for path in (tmp_path / "attempts").iterdir()] == ["a"]


def test_where_links_are_unknown_a_failed_write_gives_the_name_back(tmp_path, monkeypatch):
    files, sync, calls = open_files(tmp_path), os.fsync, []

    def full_at_second(descriptor):
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "link", without_links)
    monkeypatch.setattr(os, "fsync", full_at_second)
    with pytest.raises(StoreError, match="No space left"):
        files.create("a", b"x")
    assert files.names("") == []
    assert files.create("a", b"x")


def test_only_old_temporaries_are_tidied_away(tmp_path):
    kept = [".a.parquet.0123abcd", ".hidden", "b.parquet"]
    for name in (*kept, ".old.parquet.89abcdef", ".older"):
        (tmp_path / "attempts").mkdir(exist_ok=True)
        (tmp_path / "attempts" / name).write_bytes(b"PAR1")
    for name in (".old.parquet.89abcdef", ".older", "b.parquet"):
        then_s = time.time() - ABANDONED_S - 1
        os.utime(tmp_path / "attempts" / name, (then_s, then_s))
    files = open_files(tmp_path)
    files.remove_temporaries()
    assert {p.name for p in (tmp_path / "attempts").iterdir()} == {*kept, ".older"}


@pytest.fixture
def misbehave(s3):
    """Set what the service does instead of answering."""

    def be(refuse):
        s3.application.refuse = refuse

    yield be
    s3.application.refuse = None


def answer(start_response, status, code):
    start_response(status, [("Content-Type", "application/xml")])
    return [f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()]


def test_a_conflict_of_two_puts_is_asked_again(place_on, misbehave):
    files, puts = open_files(place_on("s3")), []

    def conflict_twice(environ, start_response):
        puts.append(environ["REQUEST_METHOD"])
        if len(puts) <= 2:
            return answer(start_response, "409 Conflict", "ConditionalRequestConflict")
        return None

    misbehave(conflict_twice)
    assert files.create("a", b"x")
    assert puts == ["PUT", "PUT", "PUT"]


def test_a_service_that_only_says_412_is_understood(place_on, misbehave):
    files = open_files(place_on("s3"))
    misbehave(lambda _, start: answer(start, "412 Precondition Failed", "PreconditionFailed"))
    assert not files.create("a", b"x")


@pytest.mark.parametrize("name", ["create", "replace"])
def test_a_missing_bucket_is_named(s3, name):
    with pytest.raises(StoreError, match=r"s3://no-such-bucket/x/a.*no such bucket.*RESULTS="):
        getattr(open_files("s3://no-such-bucket/x"), name)("a", b"x")


def test_reading_from_a_missing_bucket_is_not_an_empty_answer(s3):
    files = open_files("s3://no-such-bucket/x")
    for ask in (files.read, files.names):
        with pytest.raises(StoreError, match="no such bucket"):
            ask("a")


def test_a_service_that_denies_is_an_error_about_credentials(place_on, misbehave):
    files = open_files(place_on("s3"))
    misbehave(lambda _, start: answer(start, "403 Forbidden", "AccessDenied"))
    for ask in (files.read, files.names, lambda name: files.create(name, b"")):
        with pytest.raises(StoreError, match=r"AccessDenied.*credentials"):
            ask("a")


def test_a_service_that_never_answers_is_given_up_in_time(s3, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        forget_clients()
        with pytest.raises(StoreError, match="no answer in time"):
            RemoteFiles("s3://bucket/x", deadline_s=0.5).read("a")
    forget_clients()


WITHOUT = """
import sys
sys.modules[sys.argv[1]] = None
from sweep.store.files import StoreError, open_files
try:
    open_files(sys.argv[2])
except StoreError as error:
    print(error)
"""


@pytest.mark.parametrize(("scheme", "package"), [("s3", "s3fs"), ("gs", "gcsfs")])
def test_a_missing_package_is_named(scheme, package):
    command = [sys.executable, "-c", WITHOUT, package, f"{scheme}://bucket/x"]
    told = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert f"pip install {package}" in told
