"""Claims about the notebooks: both halves of a pair agree, and their outputs are those of the rows.

A test executes them again on the same rows and compares every word and number; of images nothing.
"""

import re

import jupytext
import nbformat
import pytest

from analysis.conclusions.choice import choices
from analysis.conclusions.stage_interaction import stage_sentences
from analysis.report.answers import answer, shown_words
from analysis.run_notebooks import EXAMPLE, NOTEBOOKS, committed, with_parameters
from analysis.study import read_study
from trainer.config.config_errors import ConfigError

NAMES = ("mechanism", "published", "quant_delta", "seed_stats", "slopes")
WRITE_AGAIN = "python -m analysis.run_notebooks"


def cells_of(notebook):
    return [(cell.cell_type, cell.source, cell.metadata.get("tags")) for cell in notebook.cells]


def kept(name):
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4)


def outputs_of(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def texts_of(notebook):
    """What the cells printed and the tables that they show, without images."""
    shown = [{"text": o.get("text", ""), **o.get("data", {})} for o in outputs_of(notebook)]
    return [{kind: text for kind, text in one.items() if "image" not in kind} for one in shown]


def test_these_are_the_notebooks():
    assert sorted(path.stem for path in NOTEBOOKS.glob("*.py")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_both_halves_of_a_pair_say_the_same(name):
    script = jupytext.read(NOTEBOOKS / f"{name}.py")
    assert cells_of(script) == cells_of(kept(name)), WRITE_AGAIN
    assert script.metadata["jupytext"]["formats"] == "ipynb,py:percent"


@pytest.mark.parametrize("name", NAMES)
def test_a_committed_notebook_shows_tables_and_figures_and_is_small(name):
    assert (NOTEBOOKS / f"{name}.ipynb").stat().st_size < 300_000
    kinds = {kind for output in outputs_of(kept(name)) for kind in output.get("data", {})}
    assert {"image/png", "text/html"} <= kinds
    for texts in texts_of(kept(name)):
        heads = re.findall(r"<thead>\s*<tr.*?</tr>", texts.get("text/html", ""), re.DOTALL)
        assert all(head.count("<th>") <= 1 + 8 for head in heads)  # the index, and eight columns


@pytest.mark.parametrize("name", NAMES)
def test_a_committed_notebook_tells_nothing_of_the_machine_or_the_time(name):
    notebook = kept(name)
    assert not any(output.get("name") == "stderr" for output in outputs_of(notebook))
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count is None for cell in code)
    assert {key for cell in code for key in cell.metadata} <= {"tags"}
    assert set(notebook.metadata) == {"jupytext", "kernelspec"}
    assert not re.search(r"/(home|root|tmp|work|Users)/", str(texts_of(notebook)))


def test_the_committed_verdicts_are_those_of_the_functions_that_the_report_prints():
    study = read_study(EXAMPLE)
    first = texts_of(kept("seed_stats"))[0]["text"]
    assert shown_words(answer(study), None) in first, WRITE_AGAIN
    assert all(choice.sentence() in first for choice in choices(study).values()), WRITE_AGAIN
    told = texts_of(kept("quant_delta"))[0]["text"].splitlines()
    assert told == stage_sentences(study), WRITE_AGAIN


@pytest.mark.parametrize(
    "name",
    [
        "quant_delta",
        *(pytest.param(n, marks=pytest.mark.slow) for n in NAMES if n != "quant_delta"),
    ],
)
def test_a_notebook_executed_again_shows_the_same_words_and_numbers(name):
    assert texts_of(committed(NOTEBOOKS / f"{name}.py")) == texts_of(kept(name)), WRITE_AGAIN


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
