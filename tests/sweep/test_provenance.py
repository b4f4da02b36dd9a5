"""A row says of which code it is: a checkout is dirty where code differs, and nowhere else."""

import subprocess

from sweep.provenance import NO_CODE, Revision, revision


def git(root, *arguments):
    command = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_a_checkout_is_dirty_where_code_differs_and_not_where_a_benchmark_kept_a_result(tmp_path):
    assert revision(tmp_path) == Revision(None, None)
    git(tmp_path, "init")
    code, kept = tmp_path / "code.py", tmp_path / NO_CODE / "kept.json"
    kept.parent.mkdir(parents=True)
    for file in (code, kept):
        file.write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert revision(tmp_path) == Revision(commit, False)
    kept.write_text("2")
    (kept.parent / "new.json").write_text("3")
    assert revision(tmp_path) == Revision(commit, False)
    code.write_text("4")
    assert revision(tmp_path) == Revision(commit, True)
