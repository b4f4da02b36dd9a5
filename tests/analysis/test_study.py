"""Claims about a study: what is read, what is compared, and what a setting of it holds."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.study import Study, read_study
from sweep.store.schema import SCHEMA
from tests.analysis.conftest import KEYS, REFERENCE, make_study
from trainer.config.config_errors import ConfigError


def with_replicates(place, rows, pairing):
    """The reference and ASQU ran again; one of the reruns is tainted."""
    again = [
        {**row, "replicate": 1, "tainted": row["seed"] == 3, "node": "b"}
        for row in rows
        if row["slope"] == 0.5 or row["activation"] == "asqu"
    ]
    pq.write_table(pa.Table.from_pylist(again, schema=SCHEMA), place / "replicates.parquet")
    facts = {"name": "local", "reference": REFERENCE, "activations": KEYS}
    facts |= {} if pairing is None else {"pairing": pairing}  # older drivers did not write it
    (place / "sweep.json").write_text(json.dumps(facts), encoding="utf-8")
    return place


def test_where_nodes_are_blocks_scored_reruns_of_the_reference_are_compared(store_of, rows):
    study = read_study(with_replicates(store_of(rows), rows, "node"))
    assert set(study.reference_reruns["key"]) == {REFERENCE}
    assert sorted(study.reference_reruns["seed"]) == [1, 2]
    assert (len(study.cells), len(study.with_reruns)) == (36, 38)
    assert (study.blocking.pairing, study.blocking.anchor) == ("node", REFERENCE)


@pytest.mark.parametrize("pairing", ["seed", None])
def test_where_seeds_are_blocks_a_rerun_is_no_second_draw(store_of, rows, pairing):
    study = read_study(with_replicates(store_of(rows), rows, pairing))
    assert (study.blocking.pairing, study.blocking.anchor) == ("seed", None)
    assert study.reference_reruns.empty
    assert len(study.with_reruns) == 36


def test_a_setting_is_a_study_of_its_rows_small_budgets_first(rows):
    longer = [{**row, "budget_value": 1000.0} for row in rows]
    settings = make_study(longer + rows).settings
    assert list(settings) == ["local, 200 steps", "local, 1000 steps"]
    for name, study in settings.items():
        assert set(study.cells["setting"]) == {name}
        assert list(study.settings) == [name]


def test_rows_in_memory_have_no_files(cells):
    study = Study.of(cells, REFERENCE)
    assert study.sweep.keys[0] == "relu2"
    for read in (study.curves, study.layers):
        with pytest.raises(ConfigError, match="there is no place"):
            read()


def test_blocks_of_an_unknown_kind_are_refused(store_of, rows):
    with pytest.raises(ConfigError, match="pairing"):
        read_study(with_replicates(store_of(rows), rows, "rack"))
