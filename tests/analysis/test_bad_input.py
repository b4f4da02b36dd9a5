"""Whatever lies in a sweep's folder, every command answers with a sentence: never a traceback.

That the sentences of partial sweeps are complete is claimed in test_completeness.py.
"""

import json

import jupytext
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure

from analysis.__main__ import main
from analysis.figures.catalog import as_png
from analysis.rows.completeness import completeness_sentences
from analysis.rows.read import load_cells, load_sweep
from analysis.run_notebooks import NOTEBOOKS, with_parameters
from sweep.store.schema import SCHEMA, VERSION_KEY
from tests.analysis.conftest import lost

pytestmark = pytest.mark.usefixtures("few_draws")

COMMANDS = ("figures", "leaders", "notebooks", "report", "summary")


def run(command, folder):
    more = {"leaders": ["--seeds", "2", "--out", str(folder.parent / "next.toml")]}
    place = ["--sweep", folder.name, "--results", str(folder.parent)]
    return main([command, *place, *more.get(command, [])])


def first_row(**changes):
    """A sweep with one value changed in its first row."""
    return lambda rows, folder: write(folder, [rows[0] | changes, *rows[1:]])


def every_row(change):
    return lambda rows, folder: write(folder, [change(row) for row in rows])


def metadata(version):
    def spoil(rows, folder):
        path = write(folder, rows)
        pq.write_table(pq.read_table(path).replace_schema_metadata({VERSION_KEY: version}), path)

    return spoil


def content(data):
    return lambda rows, folder: (folder / "cells.parquet").write_bytes(data)


def described(text):
    def spoil(rows, folder):
        write(folder, rows)
        (folder / "sweep.json").write_bytes(text)

    return spoil


def write(folder, rows):
    path = folder / "cells.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path)
    return path


def a_folder(rows, folder):
    (folder / "cells.parquet").mkdir()


def truncated(rows, folder):
    path = write(folder, rows)
    path.write_bytes(path.read_bytes()[:-3000])


def damaged(rows, folder):
    """Bytes of a column's data are turned over; the footer is whole."""
    path = write(folder, rows)
    data = bytearray(path.read_bytes())
    data[4:2000] = bytes(255 - byte for byte in data[4:2000])
    path.write_bytes(data)


# What is done to a sweep, and what the one sentence must say of it.
REFUSED = {
    "no store": (lambda rows, folder: folder.rmdir(), ["no such file", "make sweep"]),
    "an empty store": (lambda rows, folder: write(folder, []), ["no cell yet"]),
    "all failed": (every_row(lambda row: lost(row, "failed", "exit 1")), ["36 failed"]),
    "all diverged": (every_row(lambda row: lost(row, "diverged", "step 3")), ["36 diverged"]),
    "all tainted": (every_row(lambda row: row | {"tainted": True}), ["36 tainted"]),
    "a NaN": (
        first_row(post_quant_bpb=float("nan")),
        ["cell relu2_seed1_200steps", "post_quant_bpb is nan", "null"],
    ),
    "an infinity": (first_row(ttt_bpb=float("inf")), ["relu2_seed1_200steps", "ttt_bpb is inf"]),
    "a score of zero": (first_row(ttt_bpb=0.0), ["relu2_seed1_200steps", "ttt_bpb is 0"]),
    "an unknown state": (first_row(state="done"), ["state is 'done'", "succeeded"]),
    "an unknown budget": (first_row(budget_kind="epochs"), ["'epochs'", "steps, seconds"]),
    "no seed": (first_row(seed=None), ["relu2_seed1_200steps", "seed is absent"]),
    "no name": (first_row(cell=None), ["in row 0", "cell is absent"]),
    "axes that are no object": (first_row(set_json="[1]"), ["set_json", "an object: [1]"]),
    "parameters that are no JSON": (first_row(params_json="{"), ["params_json: Invalid JSON"]),
    "parameters that are no numbers": (
        first_row(params_json='{"slope": "half"}'),
        ["params_json.slope", "valid number"],
    ),
    "a newer version": (metadata(b"99"), ["schema version 99", "Update"]),
    "no version": (metadata(b""), ["no schema version"]),
    "a row twice": (lambda rows, folder: write(folder, [*rows, rows[0]]), ["relu2_seed1_200steps"]),
    "a cell twice": (
        lambda rows, folder: write(folder, [*rows, rows[0] | {"cell_id": "another"}]),
        ["another and relu2-1", "ReLU², seed 1, replicate 0"],
    ),
    "two recipes of one name": (
        first_row(recipe_hash="aaaa"),
        ["2 values of the recipe", "recipe_hash = ", "aaaa (as in relu2_seed1_200steps)"],
    ),
    "a published row": (
        first_row(source="published"),
        ["relu2_seed1_200steps", "published and not measured here"],
    ),
    "two texts": (first_row(corpus_sha256="cccc"), ["2 texts", "cccc"]),
    "two tokenizers": (first_row(tokenizer_sha256="dddd"), ["2 tokenizers", "dddd"]),
    "two validation texts": (first_row(val_bytes=59_000), ["59000", "60000"]),
    "two counts of tokens": (first_row(val_tokens=19_000), ["val_tokens = 19000", "20000"]),
    "two windows": (first_row(window=256), ["window = 256 (as in relu2_seed1_200steps) and 128"]),
    "two strides": (first_row(stride=64), ["stride = 64 (as in relu2_seed1_200steps) and 32"]),
    "a folder": (a_folder, ["cells.parquet", "directory"]),
    "a CSV": (content(b"cell,seed\nrelu2,1\n"), ["not a Parquet file"]),
    "no bytes": (content(b""), ["not a Parquet file"]),
    "half a file": (truncated, ["not a Parquet file"]),
    "turned bytes": (damaged, ["not a Parquet file"]),
    "a description that is no JSON": (described(b"{"), ["sweep.json", "Invalid JSON"]),
    "a description that is no text": (described(b"\xff\xfe\x00"), ["sweep.json", "Invalid JSON"]),
    "a description that is a list": (described(b"[1]"), ["sweep.json", "an object"]),
    "activations that are no list": (described(b'{"activations": 3}'), ["activations is 3"]),
    "a count that is no number": (described(b'{"num_cells": "many"}'), ['num_cells is "many"']),
    "cells that cannot be read": (
        described(b'{"cells": [{"set_json": "{}", "values": {}}]}'),
        ["cells.0.cell is", "Field required", "make sweep"],
    ),
    "a reference that is none": (
        described(b'{"reference": "leaky_relu2-s0.55"}'),
        ["Did you mean 'leaky_relu2-s0.5'"],
    ),
}


def refused(case, rows, folder):
    """A folder that no command may use, and what must be said of it."""
    spoil, told = REFUSED[case]
    folder.mkdir(parents=True)
    alike = {"recipe_hash": "bbbb", "corpus_sha256": "bbbb", "tokenizer_sha256": "bbbb"}
    spoil([row | alike for row in rows], folder)
    return folder, told


def assert_refused(command, folder, told, capsys):
    assert run(command, folder) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    assert said.err.count("\n") == 1
    for words in told:
        assert words in said.err


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_one_sentence_and_status_2(rows, tmp_path, capsys, case):
    assert_refused("summary", *refused(case, rows, tmp_path / "results" / "local"), capsys)


def test_every_command_refuses_alike(rows, tmp_path, capsys):
    for case in ("no store", "all failed", "a NaN", "two strides", "a description that is a list"):
        for command in COMMANDS:
            place = tmp_path / f"{command} {case}" / "local"
            assert_refused(command, *refused(case, rows, place), capsys)


@pytest.mark.slow
def test_a_plan_stands_beside_results_that_cannot_be_used_and_says_why(rows, tmp_path, capsys):
    for case in ("no store", "all failed", "a NaN", "half a file"):
        folder, told = refused(case, rows, tmp_path / case / "local")
        assert run("power", folder) == 0
        said = capsys.readouterr()
        assert "as planned" in said.out
        for words in told if case in ("a NaN", "half a file") else []:
            assert words in said.out


def half(rows):
    keep = np.random.default_rng(3).permutation(len(rows)) < len(rows) // 2
    return [row for row, kept in zip(rows, keep, strict=True) if kept]


SHOWN = {
    "half of the cells": half,
    "one seed": lambda rows: [row for row in rows if row["seed"] == 2],
    "one seed and a bit": lambda rows: [row for row in rows if row["seed"] == 1] + rows[-3:],
    "one activation": lambda rows: [row for row in rows if row["activation"] == "asqu"],
    "one cell": lambda rows: rows[:1],
    "no reference": lambda rows: [row for row in rows if row["slope"] != 0.5],
    "a reference that failed": lambda rows: [
        lost(row, "oom", "out of memory") if row["slope"] == 0.5 else row for row in rows
    ],
    "an activation of a newer checkout": lambda rows: [
        row | {"activation": "mish", "params_json": '{"gain":2.0}'}
        if row["activation"] == "asqu"
        else row
        for row in rows
    ],
    "no scores but one": lambda rows: [
        row | {"ttt_bpb": None, "pre_quant_bpb": None, "post_quant_bpb": None} for row in rows
    ],
    "two budgets": lambda rows: [
        *rows,
        *(row | {"cell_id": row["cell_id"] + "l", "budget_value": 400.0} for row in rows[:7]),
    ],
}


def test_half_a_sweep_is_summarized(store_of, rows, capsys):
    assert run("summary", store_of(half(rows))) == 0
    said = capsys.readouterr()
    assert "wrote " in said.out
    assert said.err == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    ["one cell", "no reference", "an activation of a newer checkout"],
)
def test_what_is_there_is_shown(store_of, rows, capsys, case):
    """A report draws every figure; by themselves they are drawn of the smallest sweep alone."""
    folder = store_of(SHOWN[case](rows))
    for command in ("summary", "report", *(["figures"] if case == "one cell" else [])):
        assert run(command, folder) == 0
        said = capsys.readouterr()
        assert "wrote " in said.out
        assert said.err == ""


@pytest.mark.parametrize("case", SHOWN)
def test_a_second_stage_is_written_or_one_sentence_says_why_not(store_of, rows, capsys, case):
    folder = store_of(SHOWN[case](rows))
    status = run("leaders", folder)
    said = capsys.readouterr()
    assert (status == 0) == (folder.parent / "next.toml").exists() == ("wrote " in said.out)
    assert status == 0 or (status == 2 and said.out == "" and said.err.count("\n") == 1)


def shown(value):
    """What a notebook would show of ``value``, drawn here."""
    return as_png(value) if isinstance(value, Figure) else value


@pytest.mark.slow
def test_the_code_of_notebooks_runs_on_a_partial_sweep(store_of, rows, monkeypatch):
    """Here, where all is imported; each in its own kernel is tested on whole sweeps."""
    monkeypatch.setattr("IPython.display.display", shown)
    folder = store_of(half(SHOWN["no reference"](rows)))
    for path in NOTEBOOKS.glob("*.py"):
        cells = with_parameters(jupytext.read(path), folder).cells
        code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
        with pd.option_context("display.float_format", None, "display.width", None):
            exec(compile(code.replace("%matplotlib inline", ""), str(path), "exec"), {})


def test_a_description_of_an_older_driver_is_enough(store_of, rows):
    folder = store_of(rows[:12])
    facts = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
    facts["cells"] = [{"cell": row["cell"], "cell_id": row["cell_id"]} for row in rows]
    (folder / "sweep.json").write_text(json.dumps(facts), encoding="utf-8")
    frame = load_cells(folder)
    told = completeness_sentences(frame, load_sweep(folder, frame))
    assert told[0] == "Without a score: 24 cells of 36 (24 not run yet)."
