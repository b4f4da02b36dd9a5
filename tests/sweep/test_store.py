"""The store keeps every attempt once, whole, for ever, and reads what it can."""

import json
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweep.schema import (
    COLUMNS,
    SCHEMA,
    SCHEMA_VERSION,
    STATES,
    TERMINAL_STATES,
    VERSION_KEY,
    dictionary_markdown,
)
from sweep.store import Store, believed
from trainer.contract import Report
from trainer.strict import ConfigError

CELL = "0123456789abcdef"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "sweep")
    with store.locked():
        yield store


def row(attempt, state="succeeded", **changes):
    values = {
        "cell": "asqu__seed1",
        "cell_id": attempt.cell_id,
        "attempt": attempt.number,
        "order_position": 0,
        "state": state,
        "tainted": False,
        "started_at": attempt.started_at,
        "ended_at": attempt.started_at + timedelta(seconds=5),
    }
    return values | changes


def add(store, state="succeeded", cell=CELL, **changes):
    attempt = store.announce(cell, {"driver": "test"})
    store.commit(attempt, row(attempt, state, **changes))
    return attempt


def test_what_is_committed_is_read_back_with_every_declared_type(store):
    add(store, pre_quant_bpb=1.25, steps=7, fits_cap=True, reason=None)
    (read,) = store.read().rows
    assert set(read) == set(SCHEMA.names)
    assert (read["pre_quant_bpb"], read["steps"], read["fits_cap"]) == (1.25, 7, True)
    assert read["ttt_bpb"] is None
    assert read["started_at"].tzinfo is not None


def test_attempts_are_numbered_from_one_and_never_reused(store):
    assert [add(store, state).number for state in ("failed", "lost", "succeeded")] == [1, 2, 3]
    assert [r["attempt"] for r in store.read().rows] == [1, 2, 3]


def test_an_attempt_is_announced_by_one_driver_only(store):
    taken, barrier = [], threading.Barrier(8)

    def announce():
        barrier.wait()
        taken.append(store.announce(CELL, {}).number)

    threads = [threading.Thread(target=announce) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(1, 9))


def test_a_closed_attempt_is_never_changed(store):
    attempt = add(store)
    with pytest.raises(FileExistsError):
        store.commit(attempt, row(attempt, "failed"))
    assert store.read().rows[0]["state"] == "succeeded"


def test_an_announced_attempt_is_unfinished_until_it_is_closed(store):
    attempt = store.announce(CELL, {"driver": "me"})
    ((found, note),) = store.unfinished()
    assert (found, note) == (attempt, {"driver": "me"})
    store.commit(attempt, row(attempt))
    assert store.unfinished() == []


def test_a_start_file_cut_short_is_still_an_unfinished_attempt(store):
    attempt = store.announce(CELL, {"driver": "me"})
    (store.folder / "attempts" / f"{attempt.stem}.start").write_text("{")
    ((found, note),) = store.unfinished()
    assert (found.cell_id, found.number, note) == (CELL, 1, {})


def test_a_torn_file_is_named_and_the_rest_is_read(store):
    add(store)
    torn = add(store, cell="f" * 16)
    path = store.folder / "attempts" / f"{torn.stem}.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    contents = store.read()
    assert [r["cell_id"] for r in contents.rows] == [CELL]
    assert len(contents.torn) == 1
    assert path.name in contents.torn[0]


def test_half_written_files_are_not_seen(store):
    add(store)
    (store.folder / "attempts" / f".{CELL}-2.parquet.12ab").write_bytes(b"PAR1")
    assert len(store.read().rows) == 1
    assert store.read().torn == ()


def test_a_write_that_fails_leaves_nothing_behind(store, monkeypatch):
    attempt = store.announce(CELL, {})

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        store.commit(attempt, row(attempt))
    assert [p.name for p in (store.folder / "attempts").iterdir()] == [f"{attempt.stem}.start"]


def write_with_schema(store, schema):
    attempt = store.announce(CELL, {})
    values = row(attempt)
    arrays = [pa.array([values.get(field.name)], type=field.type) for field in schema]
    path = store.folder / "attempts" / f"{attempt.stem}.parquet"
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), path)


def test_a_newer_schema_is_refused_and_named(store):
    write_with_schema(store, SCHEMA.with_metadata({VERSION_KEY: str(SCHEMA_VERSION + 1).encode()}))
    with pytest.raises(ConfigError, match=f"version {SCHEMA_VERSION + 1}.*up to {SCHEMA_VERSION}"):
        store.read()


def test_a_column_that_an_older_file_lacks_reads_as_null(store):
    write_with_schema(store, SCHEMA.remove(SCHEMA.get_field_index("ttt_bpb")))
    assert store.read().rows[0]["ttt_bpb"] is None


def test_an_unknown_column_is_refused_before_anything_is_written(store):
    attempt = store.announce(CELL, {})
    with pytest.raises(ValueError, match="bbp: no such column"):
        store.commit(attempt, row(attempt, bbp=1.0))
    assert store.read().rows == ()


ROWS = st.lists(
    st.builds(
        lambda state, tainted: {"state": state, "tainted": tainted},
        st.sampled_from(STATES),
        st.booleans(),
    ),
    min_size=1,
    max_size=6,
)


@given(ROWS, st.randoms())
def test_a_cells_row_is_its_first_untainted_success_whatever_follows(rows, random):
    numbered = [{**r, "attempt": i} for i, r in enumerate(rows, start=1)]
    shuffled = random.sample(numbered, len(numbered))
    chosen = believed(shuffled)
    good = [r for r in numbered if r["state"] == "succeeded" and not r["tainted"]]
    if good:
        assert chosen == good[0]
        assert believed([*shuffled, {**good[0], "attempt": 99}]) == good[0]
    elif not any(r["state"] in TERMINAL_STATES for r in numbered):
        assert chosen == numbered[-1]


def test_the_table_of_cells_has_one_row_per_wanted_cell(store):
    add(store, "failed")
    add(store, "succeeded", pre_quant_bpb=1.0)
    add(store, "succeeded", pre_quant_bpb=0.5)
    add(store, cell="f" * 16)
    store.write_cells({CELL})
    (read,) = pq.read_table(store.folder / "cells.parquet").to_pylist()
    assert (read["attempt"], read["num_attempts"], read["pre_quant_bpb"]) == (2, 3, 1.0)


def test_a_second_driver_is_told_who_is_running(store):
    with (
        pytest.raises(ConfigError, match=f"process {os.getpid()} on .*RESULTS="),
        Store(store.folder).locked(),
    ):
        pytest.fail("two drivers held one lock")
    assert store.is_locked()


def test_a_folder_that_cannot_hold_results_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(ConfigError, match="results cannot be kept there"),
        Store(tmp_path / "file" / "sweep").locked(),
    ):
        pytest.fail("locked a folder that is not there")


def test_a_sweep_that_never_ran_says_how_to_run_it(tmp_path):
    with pytest.raises(ConfigError, match="make sweep SWEEP=nothing"):
        Store(tmp_path / "nothing").read_sweep()


def test_the_start_file_says_when(store):
    attempt = store.announce(CELL, {"node": "n"})
    note = json.loads((store.folder / "attempts" / f"{attempt.stem}.start").read_text())
    assert datetime.fromisoformat(note["started_at"]) == attempt.started_at
    assert attempt.started_at <= datetime.now(UTC)


def test_the_column_dictionary_is_the_schema():
    text = (ROOT / "results" / "README.md").read_text(encoding="utf-8")
    assert dictionary_markdown() in text, "write it anew: python -m sweep.schema"
    assert len({column.name for column in COLUMNS}) == len(COLUMNS)
    assert all(column.meaning for column in COLUMNS)


def test_every_field_of_a_report_is_a_column():
    assert set(Report.model_fields) - {"contract_version", "spec_hash"} <= set(SCHEMA.names)


def test_the_columns_that_others_build_on_are_there():
    promised = {
        "sweep",
        "cell",
        "cell_id",
        "recipe",
        "activation",
        "slope",
        "neg_beta",
        "beta_mean",
        "beta_std",
        "seed",
        "replicate",
        "budget_kind",
        "budget_value",
        "order_position",
        "block",
        "state",
        "reason",
        "tainted",
        "taint_reason",
        "attempt",
        "num_attempts",
        "steps",
        "tokens",
        "train_s",
        "step_ms_p50",
        "step_ms_p99",
        "val_tokens",
        "val_bytes",
        "window",
        "stride",
        "pre_quant_loss",
        "pre_quant_bpb",
        "pre_quant_sliding_bpb",
        "post_quant_loss",
        "post_quant_bpb",
        "post_quant_sliding_bpb",
        "ttt_bpb",
        "floored_rows",
        "num_params",
        "model_bytes",
        "code_bytes",
        "trainer_source_bytes",
        "artifact_bytes",
        "fits_cap",
        "world_size",
        "device",
        "dtype",
        "attention_backend",
        "mlp_backend",
        "node",
        "peak_memory_bytes",
        "setup_s",
        "score_s",
        "ttt_s",
        "pack_s",
        "corpus_sha256",
        "tokenizer_sha256",
        "recipe_hash",
        "trainer_hash",
        "revision",
        "dirty",
        "python",
        "torch",
        "ray",
        "started_at",
        "ended_at",
        "source",
        "evidence",
        "config_json",
    }
    assert promised <= set(SCHEMA.names)
