"""A delivery counts only if its report is whole, of this very cell, and agrees with its files."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from sweep.driver.attempt_row import check_delivery
from sweep.driver.requirements import order_for
from sweep.provenance import Code
from sweep.store.store import Attempt
from tests.support.grids import cells_of, sweep_spec
from tests.support.reports import delivered

SWEEP = sweep_spec()
CELL = cells_of(SWEEP)[0]
ORDER = order_for(
    SWEEP, CELL, Attempt(CELL.id, 1, datetime.now(UTC)), Code("0" * 64, None), "results"
)

WRONG_REPORTS = {
    "NaN": {"pre_quant_bpb": float("nan")},
    "negative": {"ttt_bpb": -1.0},
    "a missing score": {"post_quant_bpb": None},
    "a wrong type": {"steps": "many"},
    "an unknown state": {"state": "excellent"},
    "an unknown key": {"bonus": 1},
    "another recipe": {"recipe_hash": "0" * 16},
    "other data": {"corpus_sha256": "0" * 64},
    "another question": {"spec_hash": "0" * 16},
    "fewer steps": {"steps": 3},
    "another stride": {"stride": 7},
    "a sum that is none": {"artifact_bytes": 5},
    "another artifact": {"model_bytes": 12345},
}
WRONG_FILES = {
    "no report": {"report": None},
    "no JSON": {"report": "state: fine"},
    "no curve": {"curve": None},
    "no layers": {"layers": None},
    "no artifact": {"artifact": None},
}


def test_a_whole_delivery_is_accepted():
    outcome = check_delivery(CELL, delivered(ORDER))
    assert (outcome.state, outcome.failure) == ("succeeded", None)
    assert outcome.report is not None


@pytest.mark.parametrize("what", [*WRONG_REPORTS, *WRONG_FILES])
def test_a_delivery_with_something_wrong_is_a_failure_of_the_cell(what):
    delivery = delivered(ORDER, **WRONG_REPORTS.get(what, {}))
    outcome = check_delivery(CELL, replace(delivery, **WRONG_FILES.get(what, {})))
    assert (outcome.state, outcome.failure, outcome.report) == ("failed", "cell", None)
    assert str(outcome.reason).startswith("the report is rejected: ")
