"""The store keeps every attempt once, whole, for ever, and reads what it can."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweep.cli.session import close_orphans
from sweep.provenance import Revision
from sweep.store.files import StoreError
from sweep.store.history import EndedAttempt, select_attempt
from sweep.store.schema import (
    COLUMNS,
    SCHEMA,
    SCHEMA_VERSION,
    STATES,
    TERMINAL_STATES,
    VERSION_KEY,
    dictionary_markdown,
    measures_markdown,
)
from sweep.store.store import AlreadyClosed, Attempt, Store
from tests.support.commands import ROOT
from tests.support.drivers import PROCESSES, race, row_of
from trainer.config.config_errors import ConfigError
from trainer.contract import LAYER_MEASURES, Report

CELL = "0123456789abcdef"
OTHER = "f" * 16
NOTE = {"driver": "test"}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "sweep")


def folder_of(store):
    return Path(store.place) / "attempts"


def add(store, state="succeeded", cell=CELL, **changes):
    attempt = store.announce(cell, store.numbers().get(cell, 0) + 1, NOTE)
    store.commit(attempt, row_of(attempt, state, **changes))
    return attempt


def test_what_is_committed_is_read_back_with_every_declared_type(shared):
    somewhere = Store(shared)
    add(somewhere, pre_quant_bpb=1.25, steps=7, fits_cap=True, reason=None)
    (read,) = somewhere.read().rows
    assert set(read) == set(SCHEMA.names)
    assert (read["pre_quant_bpb"], read["steps"], read["fits_cap"]) == (1.25, 7, True)
    assert read["ttt_bpb"] is None
    assert read["started_at"].tzinfo is not None


def test_the_highest_number_is_that_of_whatever_was_announced_or_closed(store):
    assert store.numbers() == {}
    for state in ("failed", "lost", "succeeded"):
        add(store, state)
    store.announce(OTHER, 12, NOTE)
    assert store.numbers() == {CELL: 3, OTHER: 12}
    assert [r["attempt"] for r in store.read().rows] == [1, 2, 3]


def test_of_two_processes_one_announces_an_attempt_and_one_closes_it(store):
    rounds = 25
    barrier, answers = PROCESSES.Barrier(2), PROCESSES.SimpleQueue()
    racers = [
        PROCESSES.Process(
            target=race, args=(store.place, rounds, barrier, answers, who), daemon=True
        )
        for who in ("left", "right")
    ]
    for racer in racers:
        racer.start()
    (one, *won_by_one), (other, *won_by_other) = answers.get(), answers.get()
    for racer in racers:
        racer.join()
    for first, second in zip(won_by_one, won_by_other, strict=True):
        assert [a + b for a, b in zip(first, second, strict=True)] == [1] * rounds
    rows = {row["cell_id"]: row["node"] for row in store.read().rows}
    closed_by = [one if won else other for won in won_by_one[1]]
    assert rows == {f"{number:016x}": who for number, who in enumerate(closed_by)}


def test_closing_twice_alike_is_closing_once(store):
    attempt = store.announce(CELL, 1, NOTE)
    row = row_of(attempt)
    store.commit(attempt, row)
    store.commit(attempt, row)
    assert len(store.read().rows) == 1


def test_an_answer_that_gets_lost_does_not_turn_a_winner_into_a_loser(place_on, s3):
    """The service stores the object, says that it failed, and refuses the second try by 412."""
    store, seen = Store(place_on("s3")), []

    def store_and_fail(environ, start_response):
        if environ["REQUEST_METHOD"] != "PUT" or environ["PATH_INFO"] in seen:
            return None
        seen.append(environ["PATH_INFO"])
        list(s3.application.application(environ, lambda *_: None))
        start_response("500 Internal Server Error", [("Content-Type", "application/xml")])
        return [b"<Error><Code>InternalError</Code><Message>again</Message></Error>"]

    s3.application.refuse = store_and_fail
    try:
        attempt = store.announce(CELL, 1, NOTE)
        assert attempt is not None
        store.commit(attempt, row_of(attempt))
    finally:
        s3.application.refuse = None
    assert len(seen) == 2
    assert len(store.read().rows) == 1


def test_an_announcement_that_failed_and_was_made_all_the_same_is_ours(place_on, s3):
    """Every answer to the put gets lost, and so does the look at what is there."""
    store = Store(place_on("s3"))

    def store_and_fail(environ, start_response):
        list(s3.application.application(environ, lambda *_: None))
        start_response("403 Forbidden", [("Content-Type", "application/xml")])
        return [b"<Error><Code>AccessDenied</Code><Message>not now</Message></Error>"]

    s3.application.refuse = store_and_fail
    try:
        with pytest.raises(StoreError, match="not now"):
            store.announce(CELL, 1, NOTE)
    finally:
        s3.application.refuse = None
    ((attempt, _),) = store.unfinished()
    assert Store(store.place).announce(CELL, 1, NOTE) is None
    assert store.announce(CELL, 1, NOTE) == attempt
    assert store.announce(CELL, 1, NOTE) is None


def test_an_answer_that_comes_after_its_attempt_was_closed_as_lost_is_kept_beside_it(store):
    attempt = store.announce(CELL, 1, NOTE)
    store.commit(attempt, row_of(attempt, "lost"))
    answer = row_of(attempt, evidence="attempts/1.parquet", driver="slow")
    with pytest.raises(AlreadyClosed):
        store.commit(attempt, answer)
    late = store.commit_late(attempt, answer)
    assert late == Attempt(CELL, 2, attempt.started_at)
    lost, kept = store.read().rows
    assert (lost["state"], kept["state"]) == ("lost", "succeeded")
    assert (kept["attempt"], kept["evidence"]) == (2, f"attempts/{CELL}-2.parquet")
    assert store.unfinished() == []
    assert store.read().cells()[0]["attempt"] == 2


def test_an_announced_attempt_is_unfinished_until_it_is_closed(store):
    attempt = store.announce(CELL, 1, {"driver": "me", "node": "n"})
    ((found, note),) = store.unfinished()
    assert (found, note) == (attempt, {"driver": "me", "node": "n"})
    assert attempt.started_at <= datetime.now(UTC)
    store.commit(attempt, row_of(attempt))
    assert store.unfinished() == []


STRANGE_STARTS = {
    "cut short": b"{",
    "binary": bytes(range(256)),
    "a list": b'["driver"]',
    "a number too long": b'{"generation": ' + b"9" * 5000 + b"}",
    "a number that no row holds": b'{"generation": ' + b"9" * 30 + b"}",
    "an object for a name": b'{"driver": {"name": "d"}, "node": ["n"]}',
    "a column more": b'{"identity": {"cell": "asqu__seed1", "flavour": "mint"}}',
    "a list for an identity": b'{"identity": ["asqu"]}',
    "another cell": b'{"identity": {"cell_id": "ffffffffffffffff"}}',
    "a time that is none": b'{"started_at": 12}',
    "a time of no zone": b'{"started_at": "2026-11-29T10:00:00"}',
}


@pytest.mark.parametrize("data", STRANGE_STARTS.values(), ids=STRANGE_STARTS)
def test_a_strange_start_file_is_named_kept_and_closed_as_any_other(store, data):
    attempt = store.announce(CELL, 1, NOTE)
    path = folder_of(store) / f"{attempt.stem}.start"
    path.write_bytes(data)
    assert close_orphans(store, "sweep", [], Revision(None, None)) == 1
    (row,) = store.read().rows
    assert (row["cell_id"], row["attempt"], row["state"]) == (CELL, 1, "lost")
    assert path.read_bytes() == data
    (sentence,) = store.strange
    assert str(path) in sentence


def test_a_start_file_that_names_no_driver_is_left_to_another_that_lives(store):
    """It may be that one's, of a newer version."""
    store.announce(CELL, 1, {})
    with Store(store.place).as_driver():
        assert store.orphans() == []
    assert len(store.orphans()) == 1


def test_a_name_that_no_attempt_can_have_is_passed_over(store):
    add(store)
    for number in ("0", "01", "9" * 30, "\u0663"):
        (folder_of(store) / f"{OTHER}-{number}.start").write_bytes(b"{}")
    assert store.numbers() == {CELL: 1}
    assert store.unfinished() == []
    assert len(store.read().unreadable) == 4


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "logs/../../x", "..", "logs", "logs//a", "logs/./a", "logs/a\0", ""]
)
def test_a_row_that_names_a_file_outside_the_store_is_refused(store, path):
    with pytest.raises(ConfigError, match="not inside that place"):
        store.read_file(path)


def test_a_torn_file_is_named_and_the_rest_is_read(store):
    add(store)
    name = f"attempts/{add(store, cell=OTHER).stem}.parquet"
    store.files.replace(name, store.files.read(name)[:-20])
    stored = store.read()
    assert [r["cell_id"] for r in stored.rows] == [CELL]
    assert len(stored.unreadable) == 1
    assert store.files.where(name) in stored.unreadable[0]


def foreign_table():
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"x": [1]}), sink)
    return sink.getvalue().to_pybytes()


FOREIGN = {
    "a note of a person": ("notes.txt", b"remember the milk"),
    "no Parquet": (f"{OTHER}-1.parquet", b"PAR1, says he"),
    "an empty file": (f"{OTHER}-2.parquet", b""),
    "a table of others": (f"{OTHER}-3.parquet", foreign_table()),
    "a copy under another number": (f"{CELL}-2.parquet", None),
    "a copy with a name of its own": (f"{CELL}-1 (copy).parquet", None),
}


def test_foreign_files_are_named_and_the_rest_is_read(store):
    own = (folder_of(store) / f"{add(store).stem}.parquet").read_bytes()
    for name, data in FOREIGN.values():
        (folder_of(store) / name).write_bytes(own if data is None else data)
    stored = store.read()
    assert [(r["cell_id"], r["attempt"]) for r in stored.rows] == [(CELL, 1)]
    assert len(stored.unreadable) == len(FOREIGN)
    for name, _ in FOREIGN.values():
        assert sum(name in sentence for sentence in stored.unreadable) == 1


def write_with_schema(store, schema):
    attempt = store.announce(CELL, 1, NOTE)
    values = row_of(attempt)
    arrays = [pa.array([values.get(field.name)], type=field.type) for field in schema]
    path = folder_of(store) / f"{attempt.stem}.parquet"
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), path)


def test_a_newer_schema_is_refused_and_named(store):
    write_with_schema(store, SCHEMA.with_metadata({VERSION_KEY: str(SCHEMA_VERSION + 1).encode()}))
    with pytest.raises(ConfigError, match=f"version {SCHEMA_VERSION + 1}.*up to {SCHEMA_VERSION}"):
        store.read()


def test_a_column_that_an_older_file_lacks_reads_as_null(store):
    write_with_schema(store, SCHEMA.remove(SCHEMA.get_field_index("ttt_bpb")))
    assert store.read().rows[0]["ttt_bpb"] is None


def test_an_unknown_column_is_refused_before_anything_is_written(store):
    attempt = store.announce(CELL, 1, NOTE)
    with pytest.raises(ValueError, match="bbp: no such column"):
        store.commit(attempt, row_of(attempt, bbp=1.0))
    assert store.read().rows == ()


@st.composite
def attempts(draw):
    drawn = draw(
        st.lists(
            st.tuples(st.sampled_from(STATES), st.booleans(), st.integers(0, 2), st.booleans()),
            min_size=1,
            max_size=7,
        )
    )
    return [ended(number, *values) for number, values in enumerate(drawn, start=1)]


def ended(number, state, tainted, generation, to_confirm):
    return EndedAttempt(
        attempt=number,
        state=state,
        tainted=tainted,
        reason=None,
        wall_s=1.0,
        ended_at_s=float(number),
        generation=generation,
        to_confirm=to_confirm if state == "diverged" else None,
    )


@given(attempts(), attempts())
def test_only_a_refresh_changes_an_answer(rows, more):
    """Whatever follows, unless it is a later generation, which counts once it has settled."""
    answer = select_attempt(rows)
    later = [replace(row, attempt=len(rows) + row.attempt) for row in more]
    changed = select_attempt(rows + later)
    if answer.is_answer and changed != answer:
        assert changed.generation > answer.generation
        assert changed.is_answer


@given(attempts())
def test_the_row_of_a_cell_is_the_first_answer_of_the_latest_generation_that_settled(rows):
    chosen = select_attempt(rows)
    results = [row for row in rows if row.state in TERMINAL_STATES]
    if not results:
        assert chosen == rows[-1]
        return
    candidates = [row for row in results if not row.tainted] or results
    latest = max(row.generation for row in candidates)
    assert chosen == next(row for row in candidates if row.generation == latest)


def test_a_divergence_that_an_earlier_version_wrote_gives_way_to_a_success_as_it_did_then():
    diverged, succeeded = (
        ended(1, "diverged", False, 0, None),
        ended(2, "succeeded", False, 0, None),
    )
    assert select_attempt([replace(diverged, to_confirm=False), succeeded]).attempt == 1
    assert select_attempt([replace(diverged, to_confirm=None), succeeded]).attempt == 2


def test_an_answer_that_another_attempt_contradicts_says_so_in_the_table_of_cells(store):
    add(store, "diverged", to_confirm=True, reason="loss is nan", node="a")
    add(store, "succeeded", pre_quant_bpb=1.0, node="b")
    (row,) = store.read().cells()
    assert (row["state"], row["attempt"]) == ("diverged", 1)
    assert row["reason"] == "loss is nan; attempt 2 on b succeeded, which changes nothing"
    assert store.read().replicates_table().num_rows == 0


def test_the_table_of_cells_has_one_row_per_wanted_cell(store):
    add(store, "failed")
    add(store, "succeeded", pre_quant_bpb=1.0)
    add(store, "succeeded", pre_quant_bpb=0.5)
    add(store, cell=OTHER)
    store.write_cells({CELL})
    data = store.files.read("cells.parquet")
    (read,) = pq.read_table(pa.BufferReader(data)).to_pylist()
    assert (read["attempt"], read["num_attempts"], read["pre_quant_bpb"]) == (2, 3, 1.0)


def test_a_cell_that_was_preempted_often_says_what_that_has_cost(store):
    for count in (1, 2, 3):
        add(store, "lost", failure="preemption", reason="its node was taken away")
        (row,) = store.read().cells()
        assert ("preempted 3 times, 0.0 h without an answer" in row["reason"]) is (count == 3)


def test_cells_come_in_the_order_of_the_sweep(store):
    cells = [f"{number:016x}" for number in range(5)]
    for position, cell in zip((3, 1, 4, 0, 2), cells, strict=True):
        add(store, cell=cell, order_position=position)
    assert [row["order_position"] for row in store.read().cells()] == [0, 1, 2, 3, 4]
    assert len(store.write_cells(cells[:2]).rows) == 5
    table = pq.read_table(Path(store.place) / "cells.parquet")
    assert table["order_position"].to_pylist() == [1, 3]


def test_a_store_without_attempts_has_an_empty_table(store):
    assert store.write_cells(set()).rows == ()
    assert pq.read_table(Path(store.place) / "cells.parquet").schema.equals(SCHEMA)


def test_more_files_than_are_read_at_once_are_all_read(store, monkeypatch):
    monkeypatch.setattr("sweep.store.store.BATCH", 3)
    cells = [f"{number:016x}" for number in range(8)]
    for cell in cells:
        add(store, cell=cell)
    assert [row["cell_id"] for row in store.read().rows] == cells


def test_a_sweep_that_never_ran_says_how_to_run_it(store):
    with pytest.raises(ConfigError, match="make sweep SWEEP=sweep"):
        store.read_sweep()
    store.write_sweep({"name": "sweep"})
    assert store.read_sweep() == {"name": "sweep"}
    store.files.replace("sweep.json", b"[")
    with pytest.raises(ConfigError, match=r"sweep\.json: no sweep wrote this"):
        store.read_sweep()


@pytest.mark.parametrize("results", ["results", "results/", "s3://bucket/prefix"])
def test_a_store_lies_in_the_results_under_the_name_of_its_sweep(s3, results):
    assert Store.of(results, "slopes").place == f"{results.rstrip('/')}/slopes"


def test_the_column_dictionary_is_the_schema():
    text = (ROOT / "results" / "README.md").read_text(encoding="utf-8")
    assert dictionary_markdown() in text, "write it anew: python -m sweep.store.schema"
    assert measures_markdown() in text, "write it anew: python -m sweep.store.schema"
    assert len({column.name for column in COLUMNS}) == len(COLUMNS)
    assert all(each.meaning for each in (*COLUMNS, *LAYER_MEASURES.values()))


def test_every_field_of_a_report_is_a_column():
    assert set(Report.model_fields) - {"contract_version", "spec_hash"} <= set(SCHEMA.names)


def test_what_repeats_the_row_of_a_cell_is_kept_beside_it(store):
    add(store, "failed")
    add(store, "succeeded", tainted=True, pre_quant_bpb=3.0)
    add(store, "succeeded", pre_quant_bpb=1.0)  # the cell's row
    add(store, "succeeded", pre_quant_bpb=0.5, why="a rerun")
    add(store, cell=OTHER)
    add(store, cell=OTHER)
    store.write_cells({CELL})
    table = pq.read_table(Path(store.place) / "replicates.parquet")
    assert table.schema.equals(SCHEMA)
    assert table["attempt"].to_pylist() == [2, 4]
    assert table["tainted"].to_pylist() == [True, False]


def test_what_a_refresh_replaced_is_no_replicate_of_what_came_after(store):
    add(store, "succeeded", generation=0)
    add(store, "succeeded", generation=1)
    store.write_cells({CELL})
    assert pq.read_table(Path(store.place) / "replicates.parquet").num_rows == 0
