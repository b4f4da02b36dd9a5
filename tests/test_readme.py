"""The README's commands do what it says, typed in its order, on the tiny sweep.

Not run here: cloning, and the test targets themselves. Not claimed: that the local sweep's numbers
are those in the README; they depend on the Python that ships the text.
"""

import re
import subprocess
import sys

import pytest

from sweep.store.store import Store
from tests.support.commands import ROOT, environment, rows
from tests.support.drivers import row_of

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
NOT_RUN = re.compile(r"^(git |cd |make (test|check|setup))")

PROJECT_FILES = [
    *("Makefile", "pyproject.toml", "constraints.txt", "constraints.py", ".venv"),
    *("trainer", "sweep", "analysis", "configs", "benchmarks"),
]


def commands() -> list[str]:
    """Every line of every ``sh`` block, comments removed, continued lines joined."""
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, flags=re.DOTALL)
    joined = "\n".join(blocks).replace("\\\n", " ")
    lines = [re.sub(r"\s+#.*", "", line).strip() for line in joined.splitlines()]
    return [line for line in lines if line and not NOT_RUN.match(line)]


def test_its_python_reads_a_sweep_without_ray_or_torch(tmp_path):
    store = Store(tmp_path / "results" / "local")
    store.write_sweep({"name": "local", "cells": [{"cell": "asqu__seed1", "cell_id": "0" * 16}]})
    attempt = store.announce("0" * 16, 1, {})
    store.commit(attempt, row_of(attempt, post_quant_sliding_bpb=3.5))
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    code += "\nimport sys; print({'ray', 'torch', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "{'succeeded': 1}\nasqu__seed1 succeeded 3.5\nset()\n"


def test_the_readme_shows_the_commands_that_matter():
    found = " ; ".join(commands())
    for command in ("make sweep", "make plan", "make report", "make rerun", "-m trainer"):
        assert command in found


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_command_of_the_readme_works_in_its_order(tmp_path):
    for name in PROJECT_FILES:  # what the commands write lands beside these, not in the project
        (tmp_path / name).symlink_to(ROOT / name)
    for command in commands():
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env=environment(SWEEP="tiny"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert (tmp_path / "one-cell" / "report.json").is_file()
    folder = tmp_path / "results" / "tiny"
    assert {row["state"] for row in rows(folder)} == {"succeeded"}
    assert len(rows(folder)) == 8
    for name in ("slope_bpb", "quant_delta", "artifact_bytes"):
        assert (folder / "figures" / f"{name}.png").stat().st_size > 10_000
        assert (folder / "figures" / f"{name}.svg").read_text().startswith("<?xml")
    notebooks = list((folder / "notebooks").glob("*.ipynb"))
    assert len(notebooks) == len(list((ROOT / "analysis" / "notebooks").glob("*.ipynb")))
    for path in notebooks:
        text = path.read_text(encoding="utf-8")
        assert "image/png" in text
        assert "text/html" in text
    for name in ("summary.md", "report.md", "report.html"):
        assert "ASQU" in (folder / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([^)#:]+)\)", TEXT))))
def test_every_link_of_the_readme_leads_somewhere(path):
    assert (ROOT / path).exists()


def test_make_help_lists_every_target():
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE)
    assert phony is not None
    listed = set(re.findall(r"make ([a-z-]+)", shown.stdout))
    assert listed >= set(phony[1].split()) - {"which"}
