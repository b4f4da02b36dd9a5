"""Claims about reading a sweep's folder: names, gaps, versions, and what a user is told."""

import json

import pandas as pd
import pyarrow.parquet as pq
import pytest

from analysis.rows.read import load_cells, load_sweep, settings, succeeded, sweep_place
from sweep.store.schema import SCHEMA, VERSION_KEY
from trainer.config.config_errors import ConfigError


def test_every_column_of_the_schema_is_read_and_every_cell_has_its_names(store):
    cells = load_cells(store)
    assert set(SCHEMA.names) <= set(cells.columns)
    assert len(cells) == 36
    names = dict(zip(cells["key"], cells["label"], strict=True))
    assert names["relu2"] == "ReLU²"
    assert names["leaky_relu2-s0"] == "LeakyReLU² 0.0"
    assert names["leaky_relu2-s0.5"] == "LeakyReLU² 0.5"
    assert names["asqu"] == "ASQU"
    assert set(cells["setting"]) == {"local, 200 steps"}


def test_a_column_that_an_older_file_lacks_reads_as_null(store_of, rows):
    folder = store_of(rows)
    table = pq.read_table(folder / "cells.parquet")
    pq.write_table(table.drop_columns(["ttt_bpb", "fits_cap"]), folder / "cells.parquet")
    cells = load_cells(folder)
    assert cells["ttt_bpb"].isna().all()
    assert cells["fits_cap"].isna().all()


def test_an_absent_integer_stays_an_absent_integer(cells_with_losses):
    assert cells_with_losses["artifact_bytes"].dtype == pd.Int64Dtype()
    assert cells_with_losses["artifact_bytes"].isna().sum() == 2


def test_further_axes_become_columns_and_part_of_the_setting(frame_of, row_of):
    nested = row_of("asqu", None, 1, set_json='{"optim": {"lr": 0.02}, "ema": true}')
    plain = row_of("asqu", None, 1, set_json=None)
    frame = frame_of([nested, plain])
    assert frame["set.optim.lr"].tolist()[0] == 0.02
    assert pd.isna(frame["set.optim.lr"].tolist()[1])
    assert settings(frame) == ["local, 200 steps", "local, 200 steps, ema = True, optim.lr = 0.02"]


def test_settings_come_with_small_budgets_first(frame_of, row_of):
    budgets = [row_of("asqu", None, 1, budget_value=value) for value in (1000.0, 200.0)]
    assert settings(frame_of(budgets)) == ["local, 200 steps", "local, 1000 steps"]


def test_a_tainted_success_is_not_an_answer(frame_of, row_of):
    rows = [row_of("asqu", None, 1, tainted=True), row_of("asqu", None, 2, tainted=None)]
    assert succeeded(frame_of(rows))["seed"].tolist() == [2]


def test_without_a_sweep_file_the_reference_is_inferred(store_of, rows):
    folder = store_of(rows, facts=False)
    sweep = load_sweep(folder, load_cells(folder))
    assert sweep.reference == "leaky_relu2-s0.5"
    assert sweep.keys[0] == "relu2"
    assert sweep.keys[-1] == "asqu"
    assert sweep.num_cells is None


def test_without_slope_one_half_the_inferred_reference_is_relu2(store_of, rows):
    folder = store_of([row for row in rows if row["slope"] != 0.5], facts=False)
    assert load_sweep(folder, load_cells(folder)).reference == "relu2"


@pytest.mark.parametrize("given", ["configs/sweeps/slopes.toml", "slopes.toml", "slopes"])
def test_a_sweep_is_named_by_its_name_or_by_its_file(tmp_path, given):
    assert sweep_place(tmp_path, given) == str(tmp_path / "slopes")


def test_a_missing_store_names_its_cure_and_the_nearest_sweep(store):
    with pytest.raises(ConfigError, match=r"make sweep.*Did you mean 'local'") as told:
        load_cells(store.parent / "locale")
    assert "locale" in str(told.value)


def test_a_newer_schema_version_is_refused(store_of, rows):
    path = store_of(rows) / "cells.parquet"
    pq.write_table(pq.read_table(path).replace_schema_metadata({VERSION_KEY: b"99"}), path)
    with pytest.raises(ConfigError, match="schema version 99"):
        load_cells(path.parent)


def test_a_file_without_a_version_is_refused(store_of, rows):
    path = store_of(rows) / "cells.parquet"
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
    with pytest.raises(ConfigError, match="no schema version"):
        load_cells(path.parent)


def test_a_column_of_another_type_is_refused_by_name(store_of, rows):
    path = store_of(rows) / "cells.parquet"
    table = pq.read_table(path)
    at = table.column_names.index("seed")
    changed = table.set_column(at, "seed", [["one"] * table.num_rows])
    pq.write_table(changed, path)
    with pytest.raises(ConfigError, match="column seed is not int64"):
        load_cells(path.parent)


def test_what_is_not_parquet_is_refused(tmp_path):
    (tmp_path / "cells.parquet").write_text("cells", encoding="utf-8")
    with pytest.raises(ConfigError, match="not a Parquet file"):
        load_cells(tmp_path)


def test_an_empty_store_is_refused(store_of):
    with pytest.raises(ConfigError, match="no cell yet"):
        load_cells(store_of([]))


def test_a_sweep_without_success_says_how_its_cells_ended(frame_of, row_of):
    rows = [row_of("asqu", None, seed, state="diverged") for seed in (1, 2)]
    with pytest.raises(ConfigError, match="2 diverged"):
        succeeded(frame_of(rows))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "not JSON"),
        ("[1]", "holds list"),
        (json.dumps({"reference": "leaky_relu2-s0.55"}), "Did you mean 'leaky_relu2-s0.5'"),
    ],
)
def test_a_sweep_file_that_cannot_be_used_is_refused(store_of, rows, text, told):
    folder = store_of(rows)
    (folder / "sweep.json").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=told):
        load_sweep(folder, load_cells(folder))


def test_axes_that_are_not_json_name_their_cell(frame_of, row_of):
    with pytest.raises(ConfigError, match="asqu_seed1_200steps: set_json is not JSON"):
        frame_of([row_of("asqu", None, 1, set_json="{")])


def test_an_activation_is_known_by_all_of_its_parameters(frame_of, rows):
    """Rows of older versions tell the slope alone."""
    asqu = next(row for row in rows if row["activation"] == "asqu")
    leaky = next(row for row in rows if row["slope"] == 0.5)
    given = ['{"init":0}', '{"init":0.25}', "{}"]
    frame = frame_of([*(asqu | {"params_json": text} for text in given), leaky])
    assert list(frame["key"]) == ["asqu-init0", "asqu-init0.25", "asqu", "leaky_relu2-s0.5"]
    assert list(frame["label"]) == ["ASQU init 0", "ASQU init 0.25", "ASQU", "LeakyReLU² 0.5"]
