"""Density, tails and code length against definitions that are written out here."""

import math
from collections import Counter

import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.mechanism.distribution import (
    entropy_bits,
    excess_kurtosis,
    fraction_above,
    mean_squared_error,
    root_mean_square,
)

codes = st.lists(st.integers(-31, 31), min_size=1, max_size=200)
numbers = st.lists(st.integers(-1000, 1000).map(float), min_size=2, max_size=100)
# Sums of at most 200 terms in float64, of up to 8 factors that were rounded once each.
TOLERANCE = 2.0**-40


@given(codes)
def test_entropy_is_the_mean_surprise_of_a_code(values):
    expected = -sum(n / len(values) * math.log2(n / len(values)) for n in Counter(values).values())
    found = entropy_bits(torch.tensor(values, dtype=torch.int8))
    assert found == pytest.approx(expected, rel=TOLERANCE, abs=TOLERANCE)
    assert 0 <= found <= math.log2(63) + TOLERANCE


@given(numbers)
def test_kurtosis_is_that_of_scipy(values):
    found = excess_kurtosis(torch.tensor(values))
    if len(set(values)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(scipy.stats.kurtosis(values), rel=1e-9, abs=1e-9)


@given(numbers, st.floats(0, 1000))
def test_what_is_above_is_counted_and_errors_are_those_of_numbers(values, threshold):
    tensor = torch.tensor(values)
    num_above = sum(abs(v) > threshold for v in values)
    assert fraction_above(tensor, threshold) == num_above / len(values)
    rms = math.sqrt(sum(v * v for v in values) / len(values))
    assert root_mean_square(tensor) == pytest.approx(rms, rel=TOLERANCE)
    assert mean_squared_error(tensor, -tensor) == pytest.approx(4 * rms**2, rel=TOLERANCE)
