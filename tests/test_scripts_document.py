"""The worked example of docs/scripts.md does what it says, from draft to submission."""

import json
import re
import shutil
import subprocess

import pytest

from tests.support.commands import ROOT, environment, rows

TEXT = (ROOT / "docs" / "scripts.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", TEXT, flags=re.DOTALL)
PROJECT_FOLDERS = ("trainer", "sweep", "analysis", "configs", "docs")
PROJECT_FILES = ("Makefile", "pyproject.toml", "constraints.txt", "constraints.py")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_script_goes_from_draft_to_submission_as_the_document_says(tmp_path):
    for name in PROJECT_FOLDERS:  # a copy, for the example writes a recipe and a sweep
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in PROJECT_FILES:
        shutil.copy2(ROOT / name, tmp_path / name)
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    for block in BLOCKS:
        done = subprocess.run(
            ["bash", "-ec", block],
            cwd=tmp_path,
            env=environment(PYTHONPATH=str(tmp_path)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    folder = tmp_path / "results" / "golf-slopes"
    assert [row["state"] for row in rows(folder)] == ["succeeded"] * 6
    assert (folder / "report.html").is_file()
    record = tmp_path / "records" / "golf"
    said = json.loads((record / "submission.json").read_text())
    assert sorted(said["seeds"]) == [42, 1337, 2025]
    assert "negative_slope=0)" in (record / "train_gpt.py").read_text()
    assert not (ROOT / "configs" / "recipes" / "golf.toml").exists()
