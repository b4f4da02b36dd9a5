"""Claims about what a partial sweep says of itself: every cell is accounted for, once."""

import json

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.rows.completeness import cell_status, completeness_sentences
from analysis.rows.read import Sweep, load_cells, load_sweep
from sweep.store.schema import STATES
from tests.analysis.conftest import KEYS, REFERENCE, lost, make_frame, make_rows

SWEEP = Sweep(name="local", reference=REFERENCE, keys=KEYS, num_cells=36)
FATES = ("gone", "tainted", *STATES)


def fated(fates):
    """The rows of a sweep whose cells ended so."""
    rows = []
    for row, fate in zip(make_rows(), fates, strict=True):
        if fate == "tainted":
            rows.append(row | {"tainted": True})
        elif fate != "gone":
            rows.append(row if fate == "succeeded" else lost(row, fate, "why"))
    return rows


@settings(max_examples=10)
@given(st.lists(st.sampled_from(FATES), min_size=36, max_size=36))
def test_every_cell_is_counted_once_whatever_became_of_it(fates):
    rows = fated(fates)
    if not rows:
        return
    frame = make_frame(rows)
    counts = cell_status(frame, SWEEP)["status"].value_counts()
    assert counts.sum() - counts.get("not run", 0) == len(rows)
    for status, fate in (("scored", "succeeded"), ("tainted", "tainted"), ("diverged", "diverged")):
        assert counts.get(status, 0) == fates.count(fate)
    missing = 36 - fates.count("succeeded")
    told = completeness_sentences(frame, SWEEP)
    assert bool(told) == bool(missing)
    if missing:
        assert f"{missing} cell{'s' if missing > 1 else ''} of 36" in told[0]


def test_the_order_of_the_rows_changes_no_sentence(rows_with_losses):
    one = completeness_sentences(make_frame(rows_with_losses), SWEEP)
    other = completeness_sentences(make_frame(rows_with_losses[::-1]), SWEEP)
    assert one == other
    assert one == [
        "Without a score: 2 cells of 36 (1 diverged, 1 failed).",
        "Seed 2 has 11 of 12 cells; without a score: LeakyReLU² 0.8.",
        "Seed 3 has 11 of 12 cells; without a score: LeakyReLU² 0.3.",
    ]


def test_a_reference_that_lacks_a_seed_is_said_to_pair_with_nothing_there(rows):
    kept = [row for row in rows if row["slope"] != 0.5 or row["seed"] == 1]
    (told,) = (s for s in completeness_sentences(make_frame(kept), SWEEP) if "reference" in s)
    assert told == (
        "The reference has no score under seeds 2 and 3, so nothing is paired with it there."
    )


def test_a_success_without_a_score_that_others_have_is_named(rows):
    frame = make_frame([rows[0] | {"ttt_bpb": None}, *rows[1:]])
    (sentence,) = completeness_sentences(frame, SWEEP)
    assert "test-time training, sliding in 1 cell" in sentence
    assert "relu2_seed1_200steps" in sentence


@pytest.fixture
def described(store_of, rows):
    """A store that knows its plan: 36 cells, and 12 of a second budget that none has run of."""

    def write(kept):
        folder = store_of(kept)
        longer = [row | {"budget_value": 400.0, "cell_id": row["cell_id"] + "-400"} for row in rows]
        cells = [
            {
                **{"cell": row["cell"], "cell_id": row["cell_id"], "set_json": "{}"},
                "params_json": json.dumps({} if row["slope"] is None else {"slope": row["slope"]}),
                "values": {**row, "block": ""},
            }
            for row in [*rows, *longer[:12]]
        ]
        facts = {"name": "local", "reference": REFERENCE, "activations": KEYS, "num_cells": 48}
        text = json.dumps({**facts, "cells": cells})
        (folder / "sweep.json").write_text(text, encoding="utf-8")
        frame = load_cells(folder)
        return frame, load_sweep(folder, frame)

    return write


def test_the_plan_tells_of_seeds_and_budgets_of_which_nothing_has_run(described, rows):
    frame, sweep = described([row for row in rows if row["seed"] != 3])
    assert completeness_sentences(frame, sweep) == [
        "Without a score: 24 cells of 48 (24 not run yet).",
        "local, 200 steps: Seed 3 has none of its 12 cells.",
        "local, 400 steps: none of its 12 cells has a score.",
    ]


def test_the_plan_names_activations_that_have_no_row_as_people_read_them(described, rows):
    frame, sweep = described([row for row in rows if row["slope"] is None])
    status = cell_status(frame, sweep)
    assert set(status["label"]) >= {"ReLU²", "LeakyReLU² 0.5", "ASQU"}
    assert pd.isna(status["status"]).sum() == 0
    assert any(
        "The reference, LeakyReLU² 0.5, has none" in s
        for s in (completeness_sentences(frame, sweep))
    )
