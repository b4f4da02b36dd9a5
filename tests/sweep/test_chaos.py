"""Break a sweep in every way, at random moments: it loses nothing and invents nothing.

What is done and what is looked at stands in docs/chaos.md. Not claimed: anything about machines
that are apart from each other, a disk or a network that fails, or GPUs; the nodes are processes of
this machine with an address of their own each.
"""

import signal
from collections import Counter
from dataclasses import replace

import pytest

from benchmarks import soak
from tests.support.chaos import DRIVER_SILENCE_S, GONE_S, SETTLE_S, Chaos
from tests.support.cluster import Cluster, is_driver, resume
from tests.support.commands import alive
from tests.support.faults import DECK, FAULTS, round_of
from tests.support.rounds import Outcome, survive
from tests.support.tiny import build_tiny_dataset

QUICK = (8, 7, 11, 12)  # seeds: an agent, a rank, a node and a driver are killed
SLOW = (0, 2, 3, 4, 6, 9, 10, 16, 31, 67)  # one of every other card, and of its kinds two
SOAKED = {"node hangs", "node out of memory", "node slow"}  # minutes each: by `make soak` alone


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    build_tiny_dataset(root)
    return root


@pytest.fixture(scope="module")
def cluster():
    with Cluster() as cluster:
        yield cluster


def test_as_many_rounds_as_a_deck_has_cards_see_every_kind_of_fault():
    for deck in range(20):
        rounds = [round_of(seed) for seed in range(len(DECK) * deck, len(DECK) * (deck + 1))]
        kinds = Counter(round_.fault for round_ in rounds)
        assert all(any(fault in card for fault in kinds) for card in DECK)
        assert {FAULTS[fault].victim for fault in kinds} >= {"rank", "agent", "raylet", "node"}
    played = {round_of(seed).fault for seed in (*QUICK, *SLOW)}
    assert played == set(FAULTS) - SOAKED
    assert all(played & set(card) for card in DECK)


def test_the_soak_plays_the_seeds_that_have_no_line(tmp_path):
    table = tmp_path / "soak.csv"
    assert soak.sweeps(range(40), soak.done(table)) == [
        list(range(18)),
        list(range(18, 36)),
        list(range(36, 40)),
    ]
    outcome = Outcome(
        seed=3, fault="x", at_s=1.0, happened="", gone_s=0.0, recovery_s=2.0, processes_left=0
    )
    soak.add(table, [outcome, replace(outcome, seed=4)])
    soak.add(table, [replace(outcome, seed=7)])
    assert soak.sweeps(range(3, 9), soak.done(table)) == [[5, 6, 8]]


@pytest.mark.timeout(1800)
def test_a_sweep_that_meets_one_fault_after_the_other_ends_as_if_undisturbed(
    cluster, data, tmp_path
):
    survive(cluster, tmp_path, data, QUICK, print)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_sweep_that_meets_every_other_fault_does_so_too(cluster, data, tmp_path):
    survive(cluster, tmp_path, data, SLOW, print)


@pytest.fixture
def small(cluster, data, tmp_path, request):
    """A sweep of some cells that has just been started."""
    replicates = getattr(request, "param", 5)
    chaos = Chaos(cluster, tmp_path, data, seed=1, replicates=replicates)
    yield chaos
    chaos.stop()


@pytest.mark.slow
@pytest.mark.parametrize("small", [10], indirect=True)
def test_two_drivers_of_one_sweep_share_it_and_make_no_attempt_twice(small):
    small.wait(lambda: [*small.store.glob("drivers/*")], SETTLE_S, "the first driver shows itself")
    second = small.boot_driver("--join")
    try:
        both = (small.driver, second)
        small.wait(lambda: not any(driver.is_up for driver in both), SETTLE_S, "both have ended")
        attempts = small.see_settled(both)
        assert [row["state"] for row in attempts].count("succeeded") == len(small.cells())
        assert len({row["driver"] for row in attempts}) == 2
    finally:
        second.kill()


@pytest.mark.slow
def test_a_driver_that_slept_while_another_went_on_falsifies_nothing(small):
    small.wait(small.at_work, SETTLE_S, "the first driver is at work")
    (sleeper,) = filter(is_driver, small.driver.processes())
    abandoned = small.ours()
    sleeper.send_signal(signal.SIGSTOP)
    second = small.boot_driver("--join")
    try:
        small.wait(
            lambda: not alive(abandoned),
            DRIVER_SILENCE_S + GONE_S,
            "its agents have ended themselves",
        )
        small.wait(lambda: len(small.working()) > 0, SETTLE_S, "the second driver is at work")
        resume(sleeper)
        both = (small.driver, second)
        small.wait(lambda: not any(driver.is_up for driver in both), SETTLE_S, "both have ended")
        small.see_settled(both)
    finally:
        second.kill()
