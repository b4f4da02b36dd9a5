"""A file is there whole or not at all, and what prevents it is named."""

import errno
from pathlib import Path

import pytest

from tests.support.tiny import run_cell, tiny_spec
from trainer.contract import ARTIFACT_FILE, CURVE_FILE, PROGRESS_FILE, REPORT_FILE
from trainer.files import remove_temporaries, write_atomically


@pytest.fixture
def full_disk(monkeypatch):
    """From now on there is no room for files of that name: the kernel's own answer."""

    def fill(name):
        really = Path.open

        def opened(path, *arguments, **options):
            if path.name.startswith(f".{name}."):
                return really(Path("/dev/full"), "wb", buffering=0)
            return really(path, *arguments, **options)

        monkeypatch.setattr(Path, "open", opened)

    return fill


@pytest.mark.parametrize("name", [PROGRESS_FILE, CURVE_FILE, ARTIFACT_FILE, REPORT_FILE])
def test_a_full_disk_is_an_error_that_says_so_and_where(full_disk, data_dir, tmp_path, name):
    full_disk(name)
    with pytest.raises(OSError, match=rf"No space left on device: '.*{name}'") as caught:
        run_cell(tiny_spec(data_dir, budget="1steps"), tmp_path)
    assert caught.value.errno == errno.ENOSPC
    assert not (tmp_path / name).exists()
    assert not list(tmp_path.glob(".*"))


def test_an_error_leaves_what_was_there(full_disk, tmp_path):
    write_atomically(tmp_path / "a", b"first")
    full_disk("a")
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "a", b"second")
    assert (tmp_path / "a").read_bytes() == b"first"


def test_what_was_left_half_written_is_removed_and_nothing_else(tmp_path):
    for name in (".a.0123", ".a.4567", "a", ".b.0123", "a.0123"):
        (tmp_path / name).write_bytes(b"")
    remove_temporaries(tmp_path / "a")
    assert {path.name for path in tmp_path.iterdir()} == {"a", ".b.0123", "a.0123"}
    remove_temporaries(tmp_path / "no folder" / "a")
