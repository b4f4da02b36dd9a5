"""Patience ends when it should: with the ranks' silence, and with the driver's."""

import threading
import time
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from sweep.node import liveness
from sweep.node.liveness import LONGEST_LOOK_S, PATIENT_PHASES, DeadManSwitch, HangWatch


def watch(now_s=0.0):
    return HangWatch(no_progress_s=60.0, slow_phase_s=900.0, now_s=now_s)


def looks_until_hung(phase, every_s=0.5):
    ranks, now_s = watch(), 0.0
    while not ranks.look(None, phase, now_s):
        now_s += every_s
    return now_s


def test_silence_is_borne_for_longer_in_slow_phases():
    assert looks_until_hung("train") == 60.5
    assert {looks_until_hung(phase) for phase in PATIENT_PHASES} == {900.5}


def test_who_speaks_before_every_look_is_never_hung():
    ranks = watch()
    assert not any(ranks.look(word, "train", 1e4 * word) for word in range(9))


@given(st.lists(st.floats(0, 1e6), max_size=50))
def test_time_in_which_nobody_looked_is_not_held_against_the_ranks(gaps_s):
    ranks, now_s = watch(), 0.0
    for gap_s in gaps_s:
        now_s += gap_s
        ranks.look(None, "train", now_s)
    assert ranks.stalled_s <= LONGEST_LOOK_S * len(gaps_s)
    assert ranks.stalled_s <= sum(gaps_s) + 1e-6


def test_a_dead_man_switch_waits_as_long_as_it_is_reset_in_time(monkeypatch):
    now_s, ended = [0.0], threading.Event()
    real_sleep = time.sleep
    clock = SimpleNamespace(monotonic=lambda: now_s[0], sleep=lambda _: real_sleep(0.001))
    monkeypatch.setattr(liveness, "time", clock)
    switch = DeadManSwitch(60.0, ended.set)
    for _ in range(10):
        now_s[0] += 59.0
        switch.reset()
        assert not ended.wait(0.005)
    now_s[0] += 61.0
    switch.reset()  # too late: the driver has given up
    assert ended.wait(10)
