"""Claims about what lies beside the rows: curves, layers, replicates, and tainted successes."""

import math

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.rows.attempt_files import load_curves, load_layers
from analysis.rows.read import including_tainted, is_scored, load_cells, load_replicates
from sweep.store.files import open_files
from sweep.store.schema import SCHEMA
from tests.analysis.conftest import lost, make_frame
from trainer.config.config_errors import ConfigError
from trainer.contract import CURVE_COLUMNS, LAYER_COLUMNS

OF_CELL = ["cell_id", "key", "label", "setting", "seed", "replicate"]


def curve(*losses):
    steps = list(range(1, len(losses) + 1))
    columns = {"step": steps, "tokens": [64 * step for step in steps], "train_loss": losses}
    absent = pa.array([None] * len(losses), pa.float64())
    return pa.table({name: columns.get(name, absent) for name in CURVE_COLUMNS})


def layers(*values):
    return pa.table(
        {
            **{"kind": ["activation"] * len(values), "name": ["mlp"] * len(values)},
            **{"layer": list(range(len(values))), "measure": ["density"] * len(values)},
            "value": pa.array(values, pa.float64()),
        }
    )


def keep(folder, kind, name, table):
    (folder / kind).mkdir(exist_ok=True)
    pq.write_table(table, folder / kind / name)


@pytest.fixture
def folder(store_of, rows):
    """Three cells; the second has neither curve nor layers, the third is at its second attempt."""
    folder = store_of([*rows[:2], rows[2] | {"attempt": 2}])
    for name, loss in (("relu2-1-1", 3.0), ("leaky_relu2-s0.1-1-2", 4.0)):
        keep(folder, "curves", f"{name}.parquet", curve(loss, loss - 1))
        keep(folder, "layers", f"{name}.parquet", layers(0.1, None))
    keep(folder, "curves", "leaky_relu2-s0.1-1-1.parquet", curve(9.0))  # an earlier attempt
    return folder


def test_curves_are_those_of_the_attempts_that_count_with_the_names_of_their_cells(folder):
    curves = load_curves(folder, load_cells(folder))
    assert list(curves.columns) == [*OF_CELL, *CURVE_COLUMNS]
    assert list(curves["cell_id"]) == ["relu2-1"] * 2 + ["leaky_relu2-s0.1-1"] * 2
    assert list(curves["label"]) == ["ReLU²"] * 2 + ["LeakyReLU² 0.1"] * 2
    assert list(curves["step"]) == [1, 2, 1, 2]
    assert list(curves["train_loss"]) == [3.0, 2.0, 4.0, 3.0]
    assert curves["val_bpb"].isna().all()


def test_a_measure_that_is_not_defined_stays_absent(folder):
    found = load_layers(folder, load_cells(folder))
    assert list(found.columns) == [*OF_CELL, *LAYER_COLUMNS]
    assert found["layer"].dtype == pd.Int64Dtype()
    assert found["value"].isna().tolist() == [False, True, False, True]


@pytest.mark.parametrize(
    ("load", "rest"), [(load_curves, CURVE_COLUMNS), (load_layers, LAYER_COLUMNS)]
)
def test_without_files_there_are_the_columns_and_no_row(store, load, rest):
    found = load(store, load_cells(store))
    assert list(found.columns) == [*OF_CELL, *rest]
    assert len(found) == 0
    assert (found["seed"] == 1).sum() == 0  # typed: a comparison works


def test_from_a_bucket_the_same_is_read_many_files_at_a_time(s3, folder):
    place = f"s3://{s3.bucket()}/results/local"
    files = open_files(place)
    assert files.readers > 1
    for path in folder.rglob("*.*"):
        files.replace(path.relative_to(folder).as_posix(), path.read_bytes())
    cells = load_cells(place)
    for load in (load_curves, load_layers):
        pd.testing.assert_frame_equal(load(place, cells), load(folder, load_cells(folder)))


def test_a_curve_of_a_diverged_cell_may_end_in_what_is_no_number(store_of, rows):
    folder = store_of([lost(rows[0], "diverged", "step 2")])
    keep(folder, "curves", "relu2-1-1.parquet", curve(3.0, math.inf))
    assert load_curves(folder, load_cells(folder))["train_loss"].iloc[1] == math.inf


def test_a_file_that_cannot_be_used_is_named(folder):
    one = layers(0.1)
    for kind, table, told in (
        ("curves", curve(3.0, math.nan), "row 1: train_loss is nan"),
        ("curves", pa.table({"loss": [1.0]}), "no column step"),
        ("layers", one.set_column(4, "value", pa.array(["much"])), "value is not double"),
        ("layers", layers(math.inf), "row 0: value is inf"),
        (
            "layers",
            one.set_column(1, "name", pa.array([None], pa.string())),
            "column name has a row without a value",
        ),
        ("curves", None, "not a Parquet"),
    ):
        load = load_curves if kind == "curves" else load_layers
        if table is None:
            (folder / kind / "relu2-1-1.parquet").write_text("curve", encoding="utf-8")
        else:
            keep(folder, kind, "relu2-1-1.parquet", table)
        with pytest.raises(ConfigError, match=rf"relu2-1-1\.parquet.*{told}.*move it away"):
            load(folder, load_cells(folder))


def test_replicates_are_read_like_cells(folder, rows):
    again = [rows[0] | {"attempt": 2, "node": "b"}, rows[0] | {"attempt": 3, "tainted": True}]
    pq.write_table(pa.Table.from_pylist(again, schema=SCHEMA), folder / "replicates.parquet")
    found = load_replicates(folder)
    assert list(found["key"]) == ["relu2", "relu2"]
    assert list(found["attempt"]) == [2, 3]
    assert list(is_scored(found)) == [True, False]
    assert set(found.columns) == set(load_cells(folder).columns)


def test_where_no_replicates_were_kept_there_are_none(store):
    found = load_replicates(store)
    assert len(found) == 0
    assert set(found.columns) == set(load_cells(store).columns)


def test_including_tainted_counts_tainted_successes_and_nothing_else(rows):
    frame = make_frame(
        [
            *(rows[0], rows[1] | {"tainted": True}, rows[2] | {"tainted": None}),
            lost(rows[3], "failed", "why") | {"tainted": True},
        ]
    )
    before = frame.copy(deep=True)
    found = including_tainted(frame)
    assert list(is_scored(frame)) == [True, False, True, False]
    assert list(is_scored(found)) == [True, True, True, False]
    assert list(found["was_tainted"]) == [False, True, False, True]
    pd.testing.assert_frame_equal(frame, before)
