"""Claims about the notebooks: both halves of a pair agree, no output is committed, all run."""

import jupytext
import nbformat
import pytest

from analysis.__main__ import main
from analysis.notebooks_run import NOTEBOOKS, with_parameters
from tests.analysis.conftest import write_layers, write_store
from trainer.strict import ConfigError

NAMES = ("mechanism", "quant_delta", "seed_stats")


def cells_of(notebook):
    return [(cell.cell_type, cell.source, cell.metadata.get("tags")) for cell in notebook.cells]


@pytest.fixture(scope="module")
def executed(tmp_path_factory, rows, layers):
    folder = tmp_path_factory.mktemp("executed") / "results" / "local"
    store = write_layers(write_store(folder, rows), layers)
    assert main(["notebooks", "--sweep", store.name, "--results", str(store.parent)]) == 0
    return {path.stem: nbformat.read(path, 4) for path in (store / "notebooks").glob("*.ipynb")}


def test_these_are_the_notebooks():
    assert sorted(path.stem for path in NOTEBOOKS.glob("*.py")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_both_halves_of_a_pair_say_the_same(name):
    script = jupytext.read(NOTEBOOKS / f"{name}.py")
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4)
    assert cells_of(script) == cells_of(notebook), "run: jupytext --sync analysis/notebooks/*.py"
    assert script.metadata["jupytext"]["formats"] == "ipynb,py:percent"


@pytest.mark.parametrize("name", NAMES)
def test_no_output_is_committed(name):
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)


def test_every_notebook_runs_and_shows_tables_and_figures(executed):
    assert set(executed) == set(NAMES)
    for notebook in executed.values():
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        kinds = {kind for output in outputs for kind in output.get("data", {})}
        assert {"image/png", "text/html"} <= kinds


def test_the_executed_notebook_says_the_verdict(executed):
    outputs = [
        output for cell in executed["seed_stats"].cells for output in cell.get("outputs", [])
    ]
    assert any("not resolved" in output.get("text", "") for output in outputs)


def test_the_executed_notebook_says_what_the_quantization_delta_goes_with(executed):
    outputs = [output for cell in executed["mechanism"].cells for output in cell.get("outputs", [])]
    text = " ".join(output.get("text", "") for output in outputs)
    assert "between 11 activations (95 % interval" in text


def test_parameters_are_injected_after_their_defaults_and_into_a_copy(store):
    notebook = jupytext.read(NOTEBOOKS / "quant_delta.py")
    before = cells_of(notebook)
    injected = with_parameters(notebook, store)
    tags = [cell.metadata.get("tags") for cell in injected.cells]
    assert tags.index(["injected-parameters"]) == tags.index(["parameters"]) + 1
    assert cells_of(notebook) == before


def test_a_notebook_without_parameters_is_refused(store):
    with pytest.raises(ConfigError, match="parameters"):
        with_parameters(nbformat.v4.new_notebook(), store)
