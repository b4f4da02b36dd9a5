"""Sweeps on one cluster get their shares, and nobody gives back what nobody can use."""

from concurrent.futures import Future
from types import SimpleNamespace as Namespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweep.cluster import board
from sweep.cluster.board import EVERY_S, EXPIRES_S, Board, BoardReader
from sweep.cluster.sharing import Claim, Division, divide, readable_claims, targets

FOUR = dict.fromkeys("abcd", 8)  # nodes of eight GPUs


def claim(driver, **changes):
    values = {
        "driver": driver,
        "name": f"sweep of {driver}",
        "share": 1.0,
        "started_at": 0.0,
        "unit": "GPU",
        "size": 8,
        "held": {},
        "given": {},
        "wants": 10,
        "waits": False,
        "usable": frozenset(FOUR),
    }
    return Claim(**(values | changes))


def holding(driver, nodes, **changes):
    return claim(driver, held=dict.fromkeys(nodes, 1), **changes)


CLAIMS = st.lists(
    st.builds(
        lambda share, size, wants, started_at: {
            "share": share,
            "size": size,
            "wants": wants,
            "started_at": started_at,
        },
        st.sampled_from([0.5, 1.0, 2.0, 3.0, 1000.0]),
        st.sampled_from([1, 2, 8]),
        st.integers(0, 12),
        st.floats(0, 3),
    ),
    min_size=1,
    max_size=5,
).map(lambda rows: [claim(f"driver {i}", **row) for i, row in enumerate(rows)])


@given(CLAIMS, st.integers(0, 60), st.randoms())
def test_targets_fill_what_there_is_and_no_more(claims, total, random):
    found = targets(claims, total)
    left = total - sum(found[each.driver] * each.size for each in claims)
    assert left >= 0
    assert all(found[each.driver] <= each.wants for each in claims)
    assert all(found[c.driver] == c.wants or c.size > left for c in claims)
    random.shuffle(claims)
    assert targets(claims, total) == found  # whoever computes them


@given(CLAIMS, st.integers(0, 60))
def test_a_larger_total_takes_a_lease_from_nobody_where_all_leases_are_alike(claims, total):
    claims = [each.model_copy(update={"size": 8}) for each in claims]
    small, large = targets(claims, total), targets(claims, total + 8)
    assert all(small[driver] <= large[driver] for driver in small)


@given(CLAIMS, st.integers(0, 60))
def test_of_two_that_want_more_none_is_more_than_a_lease_away_from_its_share(claims, total):
    """|n_i / share_i − n_j / share_j| ≤ (1 / share_i + 1 / share_j) / 2, in leases n."""
    claims = [each.model_copy(update={"size": 1}) for each in claims]
    found = targets(claims, total)
    open_ = [each for each in claims if found[each.driver] < each.wants]
    for one in open_:
        for other in open_:
            apart = found[one.driver] / one.share - found[other.driver] / other.share
            assert apart <= (1 / one.share + 1 / other.share) / 2 + 1e-12
            if one.share > other.share:
                assert found[one.driver] >= found[other.driver]


def test_a_large_share_is_a_priority_and_the_first_to_start_has_what_cannot_be_halved():
    first, second = claim("a", started_at=1.0), claim("b", started_at=2.0)
    assert targets([second, first], 3 * 8) == {"a": 2, "b": 1}
    assert targets([second, first], 8) == {"a": 1, "b": 0}
    urgent = claim("b", started_at=2.0, share=1000.0, wants=3)
    assert targets([urgent, first], 4 * 8) == {"a": 1, "b": 3}


def test_who_waits_gets_its_share_and_is_told_from_whom():
    first, second = holding("a", "abcd"), claim("b", waits=True)
    gives = divide(first, [second], FOUR)
    assert gives == Division(
        limit=2,
        surplus=2,
        nodes=frozenset("abcd"),  # whichever ends first
        sentence="gives back 2 of 4 leases as cells end, to sweep of b (holds 0)",
    )
    waits = divide(second, [first], FOUR)
    assert (waits.limit, waits.surplus, waits.is_kept_waiting) == (None, 0, True)
    assert "0 of 2 leases so far" in waits.sentence
    assert "by sweep of a (holds 4)" in waits.sentence


@pytest.mark.parametrize(
    "second",
    [
        claim("b"),  # it has not waited long enough to know
        claim("b", waits=True, wants=0),
        claim("b", waits=True, usable=frozenset("xy")),  # foreign nodes, or those it avoids
        claim("b", waits=True, unit="CPU"),
        holding("b", "xyzw", waits=True),
    ],
)
def test_where_nobody_is_deprived_nobody_gives(second):
    found = divide(holding("a", "abcd"), [second], FOUR)
    assert (found.limit, found.surplus) == (None, 0)


def test_only_nodes_that_the_deprived_can_use_are_given_back():
    second = claim("b", waits=True, usable=frozenset("d"))
    found = divide(holding("a", "abcd"), [second], FOUR)
    assert (found.limit, found.nodes) == (2, frozenset("d"))
    satisfied = holding("b", "d", waits=True, usable=frozenset("d"))
    assert divide(holding("a", "abc"), [satisfied], FOUR).limit is None


def test_what_is_on_its_way_belongs_to_the_total_until_somebody_holds_it():
    second, given_ = claim("b", waits=True), {"c": 1, "d": 1}
    found = divide(holding("a", "ab", given=given_), [second], FOUR)
    assert (found.limit, found.surplus) == (2, 0)  # and does not take them back
    third = claim("c", waits=True, started_at=1.0)
    found = divide(second, [holding("a", "ab", given=given_), third], FOUR)
    assert (found.limit, found.sentence[-10:]) == (1, "on its way")
    arrived = holding("b", "cd", waits=True)
    assert divide(holding("a", "ab", given=given_), [arrived], FOUR) == Division()


def test_what_a_killed_driver_still_claims_is_counted_once():
    killed = holding("a", "cd", waits=True)
    assert divide(holding("b", "abcd", started_at=1.0), [killed], FOUR).surplus == 0


def test_small_leases_leave_whole_nodes_to_large_ones():
    small = claim("a", size=1, wants=100, held={"a": 8, "b": 8})
    large = claim("b", waits=True)
    found = divide(small, [large], FOUR)
    assert (found.limit, found.surplus, found.nodes) == (8, 8, frozenset("a"))
    begun = small.model_copy(update={"held": {"a": 8, "b": 5}, "given": {"b": 3}})
    assert divide(begun, [large], FOUR).nodes == frozenset("b")
    assert divide(begun, [large], FOUR).surplus == 5
    shared = claim("a", size=1, wants=100, held={"a": 4, "b": 4})  # the rest is of strangers
    assert divide(shared, [large], FOUR).surplus == 0


def test_with_more_sweeps_than_nodes_the_later_ones_wait_for_their_turn():
    first, second = holding("a", "a"), claim("b", started_at=1.0, waits=True)
    found = divide(second, [first], {"a": 8})
    assert found.is_kept_waiting
    assert found.sentence == "waits for its turn behind sweep of a (holds 1)"
    assert divide(first, [second], {"a": 8}).surplus == 0


def test_claims_of_another_version_are_read_as_far_as_they_are_understood():
    newer = claim("a").model_dump(mode="json") | {"of a newer version": 1}
    strange = [None, [], {}, newer | {"share": -1.0}, newer | {"held": "all"}]
    assert readable_claims([*strange, newer]) == [claim("a")]


@pytest.fixture
def clock(monkeypatch):
    made = Namespace(now_s=100.0)
    monkeypatch.setattr(board, "time", Namespace(monotonic=lambda: made.now_s))
    return made


def test_a_claim_that_is_not_renewed_or_is_taken_away_is_on_the_board_no_more(clock):
    made = Board()
    for driver in "abc":
        made.put(driver, {"of": driver})
    made.put("b", None)
    assert made.put("d", {})["claims"] == [{"of": "a"}, {"of": "c"}]
    clock.now_s += EXPIRES_S / 2
    made.put("a", {"of": "a"})
    clock.now_s += EXPIRES_S / 2
    assert made.put("e", {}) == {"age_s": EXPIRES_S, "claims": [{"of": "a"}]}


def test_a_board_that_fails_or_is_silent_is_believed_a_little_longer_and_never_waited_for(clock):
    answers = [Future() for _ in range(3)]
    answers[0].set_result({"age_s": 100.0, "claims": [claim("a").model_dump(mode="json")]})
    answers[1].set_exception(OSError("it is gone"))
    asked = []

    def put(driver, record):
        asked.append(record)
        return answers[len(asked) - 1]

    reader, mine = BoardReader(put), claim("b")
    assert reader.exchange("b", mine) == [claim("a")]
    for _ in range(5):
        clock.now_s += EVERY_S
        assert reader.exchange("b", mine) == [claim("a")]
    assert len(asked) == 3  # the last of which has no answer yet
    clock.now_s += EXPIRES_S
    assert reader.exchange("b", mine) == ()
