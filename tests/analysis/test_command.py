"""Claims about ``python -m analysis``, the examples in docstrings, and this package's imports."""

import ast
import doctest
import importlib
from pathlib import Path

import pytest

import analysis
from analysis.__main__ import main
from analysis.figures import catalog
from sweep.store.files import open_files

PACKAGE = Path(analysis.__file__).parent
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("__"))


def run(command, folder):
    return main([command, "--sweep", folder.name, "--results", str(folder.parent)])


def test_summary_prints_the_table_and_writes_markdown(store, capsys):
    assert run("summary", store) == 0
    printed = capsys.readouterr().out
    assert "ASQU" in printed
    assert f"wrote {store / 'summary.md'}" in printed
    assert "| ASQU | 3 |" in (store / "summary.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", ["figures", "summary", "notebooks", "report"])
@pytest.mark.parametrize("name", ["", ".", "/"])
def test_a_sweep_without_a_name_is_asked_for_one(store, capsys, command, name):
    assert main([command, "--sweep", name, "--results", str(store.parent)]) == 2
    assert "give the name of a sweep" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["figures", "summary", "notebooks"])
def test_a_mistake_is_one_sentence_on_stderr_and_status_2(tmp_path, capsys, command):
    assert run(command, tmp_path / "nowhere") == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "make sweep" in told.err
    assert "Traceback" not in told.err


@pytest.mark.parametrize(
    ("command", "written"),
    [
        ("summary", "summary.md"),
        ("figures", "figures/quant_delta.svg"),
        pytest.param("notebooks", "notebooks/seed_stats.ipynb", marks=pytest.mark.slow),
    ],
)
def test_a_sweep_in_a_bucket_is_read_and_written_there(
    s3, store, capsys, monkeypatch, command, written
):
    monkeypatch.setattr(catalog, "FIGURES", {"quant_delta": catalog.FIGURES["quant_delta"]})
    results = f"s3://{s3.bucket()}/results"
    files = open_files(f"{results}/local")
    for name in ("cells.parquet", "sweep.json"):
        files.replace(name, (store / name).read_bytes())
    assert main([command, "--sweep", "local", "--results", results]) == 0
    assert f"wrote {results}/local/{written}" in capsys.readouterr().out
    assert len(files.read(written)) > 1000


def test_a_sweep_that_is_not_in_the_bucket_is_told_with_those_that_are(s3, store, capsys):
    results = f"s3://{s3.bucket()}/results"
    open_files(f"{results}/slopes").replace("cells.parquet", b"")
    assert main(["summary", "--sweep", "slope", "--results", results]) == 2
    assert "Sweeps in " + results + ": slopes." in capsys.readouterr().err


@pytest.mark.parametrize("name", MODULES)
def test_every_example_in_a_docstring_is_true(name):
    module = importlib.import_module(f"analysis.{name}")
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_analysis_imports_neither_torch_nor_ray_nor_the_inside_of_the_trainer(path):
    allowed = {
        "trainer.config.config_errors",
        "trainer.activations",
        "trainer.contract",
        "trainer.config",
    }
    allowed |= {
        "sweep",
        "sweep.store.files",
        "sweep.spec.grid",
        "sweep.driver.attempt_row",
        "sweep.store.schema",
        "sweep.spec.sweep_file",
    }
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            assert name.split(".")[0] not in {"torch", "ray"}
            if name.split(".")[0] in {"trainer", "sweep"}:
                assert name in allowed
