"""Claims about partial correlations, against scipy and statsmodels.

They hold for noise that is normal and independent; nothing here shows that it is.
"""

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from analysis.models.partial_correlation import (
    CONSTANT,
    TOO_FEW,
    association,
    group_effects,
    groups,
    holm,
)

SEEDS = [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]
NAMES = list("abcd") * 3


def two(n=12, seed=0):
    x, e = np.random.default_rng(seed).normal(size=(2, n))
    return x, 0.6 * x + e


def test_without_blocks_it_is_pearsons_with_fishers_interval():
    x, y = two()
    found = association(x, y, np.ones((12, 1)))
    known = stats.pearsonr(x, y)
    assert found.correlation == pytest.approx(known.statistic, rel=1e-12)
    assert found.p_value == pytest.approx(known.pvalue, rel=1e-9)
    interval = known.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert found.slope == pytest.approx(stats.linregress(x, y).slope, rel=1e-12)


def test_with_blocks_it_is_the_test_of_one_coefficient_of_the_linear_model():
    x, y = two()
    found = association(x, y, groups(SEEDS, NAMES))
    model = sm.OLS(y, np.column_stack([groups(SEEDS), groups(NAMES)[:, 1:], x])).fit()
    assert found.df == model.df_resid == 12 - (3 + 4 - 1) - 1
    assert found.p_value == pytest.approx(model.pvalues[-1], rel=1e-9)
    assert found.slope == pytest.approx(model.params[-1], rel=1e-9)


def test_what_a_block_adds_to_either_changes_nothing():
    x, y = two()
    one = association(x, y, groups(SEEDS))
    other = association(x + 7.0 * np.array(SEEDS), y - 3.0 * np.array(SEEDS), groups(SEEDS))
    assert other.correlation == pytest.approx(one.correlation, rel=1e-9)
    assert other.p_value == pytest.approx(one.p_value, rel=1e-9)


@settings(max_examples=20)
@given(scale=st.floats(1e-9, 1e9), shift=st.floats(-1e3, 1e3), sign=st.sampled_from([-1, 1]))
def test_units_change_nothing_but_the_sign(scale, shift, sign):
    x, y = two()
    one = association(x, y, groups(SEEDS))
    other = association(sign * scale * (x + shift), y, groups(SEEDS))
    # A shift of 1000 times the spread costs three of sixteen digits.
    assert other.correlation == pytest.approx(sign * one.correlation, rel=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e7])
def test_a_constant_has_no_correlation_and_says_why(value):
    _, y = two()
    found = association(np.full(12, value), y, groups(SEEDS))
    assert (found.correlation, found.p_value, found.reason) == (None, None, CONSTANT)


def test_too_few_values_have_no_correlation_and_say_why():
    found = association(np.arange(4.0), np.arange(4.0) ** 2, groups([1, 1, 2, 2], list("abab")))
    assert (found.df, found.correlation, found.reason) == (0, None, TOO_FEW)
    assert association(np.empty(0), np.empty(0), np.empty((0, 1))).reason == TOO_FEW


def test_one_degree_of_freedom_has_a_p_and_no_interval():
    found = association(np.array([0.0, 1.0, 2.0]), np.array([0.0, 2.0, 1.0]), np.ones((3, 1)))
    assert found.p_value == pytest.approx(stats.pearsonr([0, 1, 2], [0, 2, 1]).pvalue, rel=1e-9)
    assert (found.low, found.high) == (None, None)


def test_on_a_line_the_correlation_is_one():
    found = association(np.arange(5.0), 2 * np.arange(5.0) + 1, np.ones((5, 1)))
    assert found.correlation == pytest.approx(1.0)
    assert found.p_value == pytest.approx(0.0, abs=1e-12)


def test_in_a_complete_grid_effects_are_means():
    y = np.random.default_rng(1).normal(size=12)
    means = y.reshape(3, 4).mean(axis=0)
    assert group_effects(y, SEEDS, NAMES) == pytest.approx(means - means.mean())


def test_effects_are_found_where_cells_are_missing_and_blocks_differ():
    kept = [0, 1, 5, 6, 10, 11, 3]  # a chain: every two names meet, some only through others
    effects = np.array([0.3, -0.2, 0.5, 0.0])
    y = np.array([10.0 * SEEDS[i] + effects["abcd".index(NAMES[i])] for i in kept])
    found = group_effects(y, [SEEDS[i] for i in kept], [NAMES[i] for i in kept])
    assert found == pytest.approx(effects - effects.mean(), abs=1e-12)


def test_names_that_never_meet_have_no_effects():
    assert group_effects(np.arange(4.0), [1, 1, 2, 2], list("abcd")) is None


@pytest.mark.parametrize("absent", [set(), {0}, {1, 4}])
def test_holms_correction_is_that_of_statsmodels(absent):
    drawn = np.random.default_rng(3).uniform(0, 0.2, 8).tolist()
    p_values = [None if i in absent else p for i, p in enumerate(drawn)]
    known = [p for p in p_values if p is not None]
    found = holm(p_values)
    assert [p for p in found if p is not None] == pytest.approx(
        multipletests(known, method="holm")[1].tolist()
    )
    assert {i for i, p in enumerate(found) if p is None} == absent


def test_activations_that_differ_by_chance_are_no_association_between_them():
    """Why the test is between activations: over cells it finds what is not there.

    Each activation draws its own level of measure and outcome, independently; cells add a little.
    """
    rng = np.random.default_rng(5)
    seeds, names = np.repeat([1, 2, 3], 8), np.tile(np.arange(8), 3)
    between = cells = 0
    for _ in range(400):
        x, y = rng.normal(size=(2, 8))[:, names] + 0.2 * rng.normal(size=(2, 24))
        effects = [group_effects(v, list(seeds), list(names)) for v in (x, y)]
        between += association(*effects, np.ones((8, 1))).p_value < 0.05
        cells += association(x, y, groups(list(seeds))).p_value < 0.05
    # 0.05 of 400 are 20, with a binomial standard deviation of 4.4: three of them each way.
    assert 7 <= between <= 33
    assert cells > 100
