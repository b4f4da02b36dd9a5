"""What a driver writes of its plan is what the rows of that plan will be called."""

import pandas as pd
import pytest

from analysis.rows.names import with_names
from analysis.rows.sweep_description import read_description
from sweep.cli.session import write_description
from sweep.driver.attempt_row import identity_columns
from sweep.spec.sweep_file import RECORD_RULE, RecordRule
from sweep.store.files import open_files
from sweep.store.store import Store
from tests.support.grids import cells_of, sweep_spec
from trainer.config.config_errors import ConfigError


def test_the_plan_names_cells_as_their_rows_will(tmp_path):
    spec = sweep_spec(
        budgets=["4steps", "600s"],
        replicates=2,
        grid={"set": {"optim.matrix_lr": [0.02, 0.03], "model.num_layers": [2]}},
        activations=[
            {"name": "leaky_relu2", "slope": [0.5, 0.0]},
            {"name": "rrelu2", "low": 0.1, "high": 0.3},
            {"name": "asqu"},
        ],
    )
    cells = cells_of(spec)
    write_description(spec, Store(tmp_path), cells)
    grid = read_description(open_files(tmp_path)).grid()
    rows = with_names(pd.DataFrame([identity_columns(spec.name, cell) for cell in cells]))
    named = ["cell", "cell_id", "setting", "key", "label", "budget", "seed", "replicate"]
    assert len(grid) == 2 * 2 * 2 * 2 * 4
    pd.testing.assert_frame_equal(grid[named], rows[named], check_dtype=False)


def test_what_an_older_driver_did_not_write_is_absent(tmp_path):
    files = open_files(tmp_path)
    assert read_description(files).grid() is None
    for text in ('{"name": "a"}', '{"name": "a", "cells": [{"cell": "a", "values": {}}]}'):
        (tmp_path / "sweep.json").write_text(text, encoding="utf-8")
        told = read_description(files)
        assert (told.name, told.pairing, told.grid()) == ("a", "seed", None)
        assert told.record_rule == RECORD_RULE


def test_the_record_rule_is_kept_and_changes_no_cell(tmp_path):
    plain, other = sweep_spec(), sweep_spec(record_rule={"nats": 0.002, "p": 0.25})
    cells = cells_of(other)
    assert [cell.id for cell in cells] == [cell.id for cell in cells_of(plain)]
    write_description(other, Store(tmp_path), cells)
    assert read_description(open_files(tmp_path)).record_rule == RecordRule(nats=0.002, p=0.25)


@pytest.mark.parametrize("rule", [{"nats": -0.1}, {"p": 0.0}, {"p": 1.0}, {"level": 0.1}])
def test_a_record_rule_that_cannot_be_is_refused(rule):
    with pytest.raises(ConfigError, match="record_rule"):
        sweep_spec(record_rule=rule)
