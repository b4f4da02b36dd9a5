"""An attempt is tainted by what its node did, never by what its activation did.

Not claimed: that the signals themselves know nothing of the activation. Heat does a little; see
docs/preflight.md.
"""

import math
import random
from datetime import datetime

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from sweep.spec.sweep_file import Timing
from sweep.store.schema import COLUMNS
from sweep.timing.taint import taint

LIMITS = Timing()

# All that a verdict may depend on. A column that is added to the schema is none of them until
# somebody writes it here.
OF_THE_ROW = {
    "budget_kind",
    "node",
    "device_name",
    "world_size",
    "torch",
    "gpu_uuids",
    "throttled_fraction",
    "foreign_fraction",
    "probe_before_ms",
    "probe_after_ms",
    "allreduce_before_ms",
}
OF_THE_HISTORY = {
    "tainted",
    "node",
    "device_name",
    "world_size",
    "torch",
    "gpu_uuids",
    "probe_before_ms",
    "allreduce_before_ms",
}

SOME = {
    pa.string(): ["", "a", "asqu"],
    pa.int64(): [-(2**40), 0, 1, 2**40],
    pa.float64(): [math.nan, -1e9, 0.0, 1.05, 1e9],
    pa.bool_(): [False, True],
}
TIMES = [datetime(2026, 1, 1), datetime(2026, 12, 31)]


def anything(names):
    """Some value of its type, or none, for each of the columns ``names``."""
    columns = [column for column in COLUMNS if column.name in names]

    def deal(seed):
        draw = random.Random(seed)
        return {c.name: draw.choice([None, *SOME.get(c.type, TIMES)]) for c in columns}

    return st.integers(0, 2**32).map(deal)


EVERY = {column.name for column in COLUMNS}
MS = st.floats(1.0, 1.1)  # about the limit of 3 %
FRACTION = st.none() | st.sampled_from([0.0, 0.005, 0.01, 0.02, 1.0])
HARDWARE = {
    "node": st.sampled_from(["a", "b"]),
    "device_name": st.just("H100"),
    "world_size": st.just(8),
    "torch": st.just("2.13"),
    "gpu_uuids": st.sampled_from([None, "GPU-1,GPU-2", "GPU-3,GPU-4"]),
    "probe_before_ms": st.none() | MS,
    "allreduce_before_ms": st.none() | MS,
}
ROW = st.fixed_dictionaries(
    HARDWARE
    | {
        "budget_kind": st.sampled_from(["seconds", "seconds", "steps"]),
        "throttled_fraction": FRACTION,
        "foreign_fraction": FRACTION,
        "probe_after_ms": st.none() | MS,
    }
)
HISTORY = st.lists(
    st.fixed_dictionaries(HARDWARE | {"tainted": st.sampled_from([False, False, True, None])}),
    max_size=6,
)


HEALTHY = {
    "budget_kind": "seconds",
    "tainted": False,
    "node": "a",
    "device_name": "H100",
    "world_size": 8,
    "torch": "2.13",
    "gpu_uuids": "GPU-1",
    "throttled_fraction": 0.0,
    "foreign_fraction": 0.0,
    "probe_before_ms": 2.0,
    "probe_after_ms": 2.0,
    "allreduce_before_ms": 1.0,
}


def timed(**changes):
    return HEALTHY | changes


def test_the_allow_lists_are_columns():
    assert OF_THE_ROW | OF_THE_HISTORY <= EVERY


@settings(max_examples=100)
@given(st.data(), ROW, HISTORY)
def test_no_other_column_changes_the_verdict(data, row, history):
    expected = taint(row, history, LIMITS)
    noise = data.draw(anything(EVERY - OF_THE_ROW))
    past = data.draw(anything(EVERY - OF_THE_HISTORY))
    assert taint(noise | row, [past | r for r in history], LIMITS) == expected


# Without gpu_uuids an attempt is compared with those that have none either.
@given(ROW, HISTORY, st.sampled_from(sorted(OF_THE_ROW - {"gpu_uuids"})))
def test_what_is_missing_never_taints(row, history, name):
    if taint(row, history, LIMITS) is None:
        assert taint(row | {name: None}, history, LIMITS) is None
        assert taint({k: v for k, v in row.items() if k != name}, history, LIMITS) is None


def test_a_healthy_attempt_is_clean():
    assert taint(timed(), [timed()] * 5, LIMITS) is None


DISTURBED = {
    "throttled_fraction": (0.02, "slowed"),
    "foreign_fraction": (0.001, "others"),
    "probe_after_ms": (2.07, "after"),
    "probe_before_ms": (2.07, "median of 3"),
    "allreduce_before_ms": (1.04, "all-reduce"),
}


def test_each_signal_taints_by_itself_and_says_what_was_seen():
    for name, (value, words) in DISTURBED.items():
        reason = taint(timed(**{name: value}), [timed()] * LIMITS.history, LIMITS)
        assert words in (reason or ""), name
        steps = timed(**{name: value}, budget_kind="steps")
        assert taint(steps, [timed()] * LIMITS.history, LIMITS) is None, name


def test_a_fraction_at_its_limit_is_within_it():
    at_limit = timed(throttled_fraction=LIMITS.throttled, foreign_fraction=LIMITS.foreign)
    assert taint(at_limit, [], LIMITS) is None


OTHERS = [
    {"node": "b"},
    {"device_name": "A100"},
    {"gpu_uuids": "GPU-2"},
    {"world_size": 4},
    {"torch": "2.14"},
    {"tainted": True},
    {"probe_before_ms": None},
]


def test_only_clean_attempts_on_the_same_hardware_are_a_nodes_history():
    slow = timed(probe_before_ms=9.0, probe_after_ms=9.0)
    assert taint(slow, [timed()] * 3, LIMITS) is not None
    for other in OTHERS:
        assert taint(slow, [timed()] * 2 + [timed(**other)] * 5, LIMITS) is None, other


def test_a_node_that_has_become_slow_does_not_become_its_own_measure():
    """Its slow attempts are tainted, so the median stays that of its better days."""
    history = [timed()] * 3
    for _ in range(20):
        row = timed(probe_before_ms=2.5, probe_after_ms=2.5)
        reason = taint(row, history, LIMITS)
        assert reason is not None
        history.append(row | {"tainted": True})
