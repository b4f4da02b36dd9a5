"""Claims about the notebooks: both halves of a pair agree, no output is committed, all run."""

import jupytext
import nbformat
import pytest

from analysis.run_notebooks import NOTEBOOKS, executed, with_parameters
from tests.analysis.conftest import write_layers, write_store
from trainer.config.config_errors import ConfigError

NAMES = ("mechanism", "published", "quant_delta", "seed_stats", "slopes")


def cells_of(notebook):
    return [(cell.cell_type, cell.source, cell.metadata.get("tags")) for cell in notebook.cells]


@pytest.fixture(scope="module")
def place(tmp_path_factory, rows, layers):
    folder = tmp_path_factory.mktemp("executed") / "results" / "local"
    return write_layers(write_store(folder, rows), layers)


def shown(notebook):
    """What the cells of a notebook printed, and of which kinds their other outputs are."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    return " ".join(output.get("text", "") for output in outputs), kinds


def test_these_are_the_notebooks():
    assert sorted(path.stem for path in NOTEBOOKS.glob("*.py")) == sorted(NAMES)


def test_both_halves_of_a_pair_say_the_same_and_no_output_is_committed():
    for name in NAMES:
        script = jupytext.read(NOTEBOOKS / f"{name}.py")
        notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4)
        assert cells_of(script) == cells_of(notebook), "jupytext --sync analysis/notebooks/*.py"
        assert script.metadata["jupytext"]["formats"] == "ipynb,py:percent"
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert not any(cell.outputs or cell.execution_count for cell in code)


SAID = {
    "mechanism": "Between 11 activations, with density of mlp",
    "published": "No published run of local has this score.",
    "quant_delta": "ASQU is lowest at every stage (pre-quant, contiguous;",
    "seed_stats": "not resolved",
    "slopes": "the best slope lies in",
}


def test_a_notebook_runs_and_shows_tables_figures_and_sentences(place):
    text, kinds = shown(executed(NOTEBOOKS / "quant_delta.py", place))
    assert {"image/png", "text/html"} <= kinds
    assert SAID["quant_delta"] in text


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
