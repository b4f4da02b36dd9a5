"""Claims about reading a sweep's folder: names, gaps, versions, and what a user is told."""

import pandas as pd
import pyarrow.parquet as pq
import pytest

from analysis.rows.read import load_cells, load_sweep, settings, succeeded, sweep_place
from sweep.store.schema import SCHEMA
from tests.analysis.conftest import make_frame, make_row
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


def test_further_axes_become_columns_and_part_of_the_setting():
    nested = make_row("asqu", None, 1, set_json='{"optim": {"lr": 0.02}, "ema": true}')
    plain = make_row("asqu", None, 1, set_json=None)
    frame = make_frame([nested, plain])
    assert frame["set.optim.lr"].tolist()[0] == 0.02
    assert pd.isna(frame["set.optim.lr"].tolist()[1])
    assert settings(frame) == ["local, 200 steps", "local, 200 steps, ema = True, optim.lr = 0.02"]


def test_settings_come_with_small_budgets_first():
    budgets = [make_row("asqu", None, 1, budget_value=value) for value in (1000.0, 200.0)]
    assert settings(make_frame(budgets)) == ["local, 200 steps", "local, 1000 steps"]


def test_a_tainted_success_is_not_an_answer():
    rows = [make_row("asqu", None, 1, tainted=True), make_row("asqu", None, 2, tainted=None)]
    assert succeeded(make_frame(rows))["seed"].tolist() == [2]


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


def test_a_column_of_another_type_is_refused_by_name(store_of, rows):
    path = store_of(rows) / "cells.parquet"
    table = pq.read_table(path)
    at = table.column_names.index("seed")
    changed = table.set_column(at, "seed", [["one"] * table.num_rows])
    pq.write_table(changed, path)
    with pytest.raises(ConfigError, match="column seed is not int64"):
        load_cells(path.parent)


def test_an_activation_is_known_by_all_of_its_parameters(rows):
    """Rows of older versions tell the slope alone."""
    asqu = next(row for row in rows if row["activation"] == "asqu")
    leaky = next(row for row in rows if row["slope"] == 0.5)
    given = ['{"init":0}', '{"init":0.25}', "{}"]
    frame = make_frame([*(asqu | {"params_json": text} for text in given), leaky])
    assert list(frame["key"]) == ["asqu-init0", "asqu-init0.25", "asqu", "leaky_relu2-s0.5"]
    assert list(frame["label"]) == ["ASQU init 0", "ASQU init 0.25", "ASQU", "LeakyReLU² 0.5"]
    layers = {"activation": "leaky_relu2_layers", "params_json": '{"slopes":[0.3,0.6]}'}
    row = make_frame([asqu | layers]).iloc[0]
    assert row["key"] == "leaky_relu2_layers-s0.3to0.6-f92f4c0c"
    assert row["label"] == "LeakyReLU² by layer 0.3to0.6-f92f4c0c"
