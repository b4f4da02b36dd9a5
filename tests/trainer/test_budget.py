"""Both budgets answer one question, and one schedule follows from it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.budget import Seconds, Steps, parse_budget
from trainer.config.config_errors import ConfigError
from trainer.optim.schedule import lr_multiplier, muon_momentum

EPS = 2.0**-53  # half a unit in the last place of a float64 of order one

steps = st.integers(0, 20_000)
durations = st.floats(1e-3, 1e4)


def published_of_steps(num_steps, step, warmdown):
    """max((n − step) / warmdown, 0) from step max(n − warmdown, 0) on, else 1."""
    if step < max(num_steps - warmdown, 0) or not warmdown:
        return 1.0
    return max((num_steps - step) / warmdown, 0.0)


def published_of_seconds(budget_s, elapsed_s, step, warmdown):
    """Time left over warmdown · mean step time, where that is at most 1."""
    warmdown_s = warmdown * elapsed_s / max(step, 1)
    left_s = max(budget_s - elapsed_s, 0.0)
    return left_s / max(warmdown_s, 1e-9) if left_s <= warmdown_s else 1.0


# -- what is typed


@given(st.integers(1, 10**12), st.floats(1e-9, 1e12))
def test_a_budget_reads_as_it_is_written(num_steps, seconds):
    """With all its digits, and never as a power of ten."""
    for budget in (Steps(num_steps), Seconds(seconds)):
        assert parse_budget(str(budget)) == budget
    assert str(Seconds(600.0)) == "600s"
    assert str(parse_budget("1000000s")) == "1000000s"


@pytest.mark.parametrize(
    "text",
    ["", "200", "steps", "s", "1.5steps", "-3steps", "200 steps", "10m", "600sec", "1e3s", "nans",
     "200steps\n", "0x10steps"],
)  # fmt: skip
def test_a_budget_without_number_or_unit_is_refused_with_an_example(text):
    with pytest.raises(ConfigError, match=r"number and its unit.*200steps or 600s") as caught:
        parse_budget(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("text", ["0steps", "0s", "0.0s"])
def test_an_empty_budget_is_refused(text):
    with pytest.raises(ConfigError, match="budget 0"):
        parse_budget(text)


# -- what remains


@given(steps.filter(bool), steps, durations)
def test_a_budget_of_steps_ignores_the_clock(num_steps, step, elapsed_s):
    assert Steps(num_steps).remaining_steps(step, elapsed_s) == num_steps - step


def test_a_budget_of_seconds_knows_nothing_before_its_first_step():
    assert Seconds(10.0).remaining_steps(0, 0.0) is None


@given(durations, steps.filter(bool), durations)
def test_a_budget_of_seconds_is_spent_exactly_when_its_time_is(budget_s, step, elapsed_s):
    remaining = Seconds(budget_s).remaining_steps(step, elapsed_s)
    assert (remaining <= 0) == (elapsed_s >= budget_s)


@given(st.integers(1, 20_000), st.data(), st.integers(0, 4000), durations)
def test_at_constant_step_time_both_budgets_agree(num_steps, data, warmdown, step_s):
    """Tolerance: budget and elapsed time are rounded products, so their difference is known to
    2·num_steps·EPS steps; the division adds as much again."""
    step = data.draw(st.integers(1, num_steps))
    by_steps = Steps(num_steps).remaining_steps(step, step * step_s)
    by_time = Seconds(num_steps * step_s).remaining_steps(step, step * step_s)
    tolerance = 4 * num_steps * EPS
    assert math.isclose(by_time, by_steps, rel_tol=4 * EPS, abs_tol=tolerance)
    assert math.isclose(
        lr_multiplier(by_time, warmdown),
        lr_multiplier(by_steps, warmdown),
        rel_tol=8 * EPS,
        abs_tol=tolerance / max(warmdown, 1),
    )


# -- the rate and the momentum that follow


@given(steps.filter(bool), steps, st.integers(0, 4000))
def test_the_schedule_is_the_published_one_under_a_budget_of_steps(num_steps, step, warmdown):
    remaining = Steps(num_steps).remaining_steps(step, 0.0)
    assert lr_multiplier(remaining, warmdown) == published_of_steps(num_steps, step, warmdown)


@given(durations, durations, steps.filter(bool), st.integers(1, 4000))
def test_the_schedule_is_the_published_one_under_a_budget_of_seconds(
    budget_s, elapsed_s, step, warmdown
):
    """Tolerance: the same quotient in another order of three operations."""
    ours = lr_multiplier(Seconds(budget_s).remaining_steps(step, elapsed_s), warmdown)
    published = published_of_seconds(budget_s, elapsed_s, step, warmdown)
    assert math.isclose(ours, published, rel_tol=8 * EPS)


@given(steps, st.floats(0, 0.99), st.floats(0, 0.99), st.integers(0, 3000))
def test_momentum_moves_from_its_start_to_its_end_and_stays(step, start, final, warmup):
    """Tolerance: a convex combination in floating point leaves its interval by 2 roundings."""
    low, high = sorted((start, final))
    momentum = muon_momentum(step, start, final, warmup)
    assert low - 2 * EPS <= momentum <= high + 2 * EPS
    if step >= warmup:
        assert momentum == final
    elif step == 0:
        assert momentum == start
