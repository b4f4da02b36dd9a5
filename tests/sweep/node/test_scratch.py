"""An attempt's folder is its own, can be found by name, and goes when nobody needs it."""

import os
import subprocess
import sys
import time

import pytest

from sweep.node import scratch as scratch_module
from sweep.node.scratch import (
    LOG_TAIL_BYTES,
    append_agent_log,
    rank_log,
    read_abandoned_log,
    read_logs,
    scratch,
    scratch_root,
)
from tests.support.standin import STEM, scratch_under
from trainer.contract import PROGRESS_FILE

OTHER = "fedcba9876543210-2"


@pytest.fixture(autouse=True)
def root(monkeypatch, tmp_path):
    scratch_under(monkeypatch, tmp_path)
    return scratch_root()


def killed_while_it_held(stem, root):
    """Leaves what an agent leaves that is killed in the middle of an attempt."""
    code = f"""
import os, signal, tempfile
tempfile.tempdir = {str(root.parent)!r}
from sweep.node.scratch import append_agent_log, scratch
with scratch({stem!r}) as folder:
    (folder / "rank0.log").write_text("the last words\\n")
    (folder / "{PROGRESS_FILE}").write_text('{{"step": 7}}')
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], timeout=60)
    return root / stem


def test_a_folder_has_the_name_of_its_attempt_and_is_gone_afterwards(root):
    with scratch(STEM) as folder:
        assert folder == root / STEM
        assert list(folder.iterdir()) == []
        assert folder.stat().st_mode & 0o077 == 0
        (folder / "x").touch()
    assert list(root.iterdir()) == []


def test_what_a_killed_agent_left_is_read_once_and_marked(root):
    killed_while_it_held(STEM, root)
    left = read_abandoned_log(STEM)
    assert "the agent of this attempt has died" in left
    assert '{"step": 7}' in left
    assert left.endswith("the last words\n")
    assert read_abandoned_log(STEM) is None
    assert list(root.iterdir()) == []


def test_an_attempt_takes_no_other_ones_log(root):
    killed_while_it_held(f"{STEM}0", root)
    assert read_abandoned_log(STEM) is None
    assert read_abandoned_log(OTHER) is None
    assert (root / f"{STEM}0").exists()


def test_an_attempt_begins_afresh_where_a_killed_one_of_its_name_was(root):
    folder = killed_while_it_held(STEM, root)
    with scratch(STEM) as mine:
        assert mine == folder
        assert list(mine.iterdir()) == []


def test_two_attempts_of_one_name_do_not_meet(root):
    with scratch(STEM) as mine, scratch(STEM) as theirs:
        assert mine != theirs
        rank_log(mine, 0).write_text("mine\n")
        rank_log(theirs, 0).write_text("theirs\n")
        still = read_abandoned_log(STEM)
        assert "was given up and still runs" in still
        assert mine.exists()
        assert theirs.exists()
    assert list(root.iterdir()) == []


def test_what_was_left_a_day_ago_is_removed_unless_it_is_in_use(root):
    old, fresh = killed_while_it_held(STEM, root), killed_while_it_held(OTHER, root)
    yesterday = time.time() - scratch_module.OLD_S - 60
    with scratch("aaaaaaaaaaaaaaaa-1") as used:
        os.utime(used, (yesterday, yesterday))
        os.utime(old, (yesterday, yesterday))
        with scratch("bbbbbbbbbbbbbbbb-1"):
            assert not old.exists()
            assert fresh.exists()
            assert used.exists()


def test_a_place_that_another_user_made_is_not_used(monkeypatch, tmp_path):
    somebody = os.getuid() + 1
    (tmp_path / f"activation-sweep-{somebody}").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: somebody)
    with pytest.raises(PermissionError, match="belongs to somebody else"):
        scratch_root()


def test_a_place_that_leads_elsewhere_is_not_used(root, tmp_path):
    root.rmdir()
    root.symlink_to(tmp_path)
    with pytest.raises(PermissionError, match="belongs to somebody else"):
        scratch_root()


def test_the_logs_of_all_ranks_are_told_apart_and_cut_at_their_start(root):
    with scratch(STEM) as folder:
        rank_log(folder, 0).write_text("x" * (LOG_TAIL_BYTES + 5) + "the end")
        assert read_logs(folder).startswith("[the first 12 bytes are left out]\nxxx")
        rank_log(folder, 0).write_text("zero\n")
        assert read_logs(folder) == "zero\n"
        rank_log(folder, 10).write_text("ten\n")
        rank_log(folder, 9).write_text("nine\n")
        append_agent_log(folder, "something of note")
        assert read_logs(folder) == (
            "--- rank 0 ---\nzero\n\n--- rank 9 ---\nnine\n\n--- rank 10 ---\nten\n\n"
            "--- agent ---\nsomething of note\n"
        )
