"""Claims about ``python -m analysis`` and the examples in docstrings."""

import doctest
import importlib
from pathlib import Path

import pytest

import analysis
from analysis.__main__ import main
from analysis.figures import catalog
from analysis.figures.catalog import FIGURES
from sweep.store.files import open_files

pytestmark = pytest.mark.usefixtures("few_draws")

PACKAGE = Path(analysis.__file__).parent


def run(command, folder, *options):
    return main([command, "--sweep", folder.name, "--results", str(folder.parent), *options])


def test_summary_prints_the_table_and_writes_markdown(store, capsys):
    assert run("summary", store) == 0
    printed = capsys.readouterr().out
    assert "ASQU" in printed
    assert f"wrote {store / 'summary.md'}" in printed
    assert "| ASQU | 3 |" in (store / "summary.md").read_text(encoding="utf-8")


def test_a_summary_with_figures_names_their_files_and_then_shows_the_table(
    store, monkeypatch, capsys
):
    monkeypatch.setattr(catalog, "FIGURES", {"artifact_bytes": FIGURES["artifact_bytes"]})
    assert run("summary", store, "--figures") == 0
    drawn, _, table = capsys.readouterr().out.partition("activation ")
    figure = store / "figures" / "artifact_bytes"
    assert drawn.startswith(f"wrote {figure}.png\nwrote {figure}.svg\n")
    assert table.endswith(f"wrote {store / 'summary.md'}\n")


def test_a_sweep_without_a_name_is_asked_for_one(store, capsys):
    for command in ("figures", "summary", "notebooks", "report"):
        for name in ("", ".", "/"):
            assert main([command, "--sweep", name, "--results", str(store.parent)]) == 2
            assert "give the name of a sweep" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "written"),
    [
        ("summary", "summary.md"),
        ("figures", "figures/quant_delta.svg"),
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


def test_every_example_in_a_docstring_is_true():
    for path in PACKAGE.rglob("*.py"):
        if "notebooks" not in path.parts and path.stem != "__main__":
            name = ".".join(("analysis", *path.relative_to(PACKAGE).with_suffix("").parts))
            assert doctest.testmod(importlib.import_module(name)).failed == 0, name
