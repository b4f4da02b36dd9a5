"""Claims about Dunnett's quantile and adjusted p: tables of 1955 and 1964, scipy, simulation."""

import numpy as np
import pytest
from scipy import stats

from analysis.models.dunnett import adjusted_p, quantile

# Dunnett (1964), two-sided 5 %: 1 to 9 comparisons.
TWO_SIDED = {
    5: [2.57, 3.03, 3.29, 3.48, 3.62, 3.73, 3.82, 3.90, 3.97],
    10: [2.23, 2.57, 2.76, 2.89, 2.99, 3.07, 3.14, 3.19, 3.24],
    20: [2.09, 2.38, 2.54, 2.65, 2.73, 2.80, 2.86, 2.90, 2.95],
    60: [2.00, 2.27, 2.41, 2.51, 2.58, 2.64, 2.69, 2.73, 2.77],
}
# Dunnett (1955), one-sided 5 %.
ONE_SIDED = {
    10: [1.81, 2.15, 2.34, 2.47, 2.56, 2.64, 2.70, 2.76, 2.81],
    20: [1.72, 2.03, 2.19, 2.30, 2.39, 2.46, 2.51, 2.56, 2.60],
}


def equal(size, correlation=0.5):
    return np.full((size, size), correlation) + np.eye(size) * (1 - correlation)


def unlike(size=5, seed=3):
    """A correlation that is no product."""
    rng = np.random.default_rng(seed)
    loadings = 1 + 0.4 * rng.normal(size=(size, 3))
    covariance = loadings @ loadings.T + np.diag(rng.uniform(1, 4, size))
    scale = np.sqrt(np.diag(covariance))
    return covariance / np.outer(scale, scale)


def test_the_quantiles_are_those_of_the_published_tables():
    for sided, table in (("two", TWO_SIDED), ("one", ONE_SIDED)):
        for df, row in table.items():
            found = [quantile(equal(k), df, 0.95, sided=sided) for k in range(1, len(row) + 1)]
            assert found == pytest.approx(row, abs=0.0051)  # printed with two decimals


@pytest.mark.parametrize(("sided", "alternative"), [("two", "two-sided"), ("one", "greater")])
def test_the_adjusted_p_of_a_one_way_layout_is_scipys(sided, alternative):
    rng = np.random.default_rng(0)
    control, *others = (rng.normal(0.4 * i, 1, n) for i, n in enumerate((5, 7, 6, 9, 6)))
    theirs = stats.dunnett(
        *others, control=control, alternative=alternative, rng=np.random.default_rng(1)
    )
    sizes = np.array([len(sample) for sample in others])
    loadings = np.sqrt(sizes / (sizes + len(control)))
    correlation = np.outer(loadings, loadings)
    np.fill_diagonal(correlation, 1.0)
    df = len(control) + int(sizes.sum()) - 5
    found = adjusted_p(theirs.statistic, correlation, df, sided=sided)
    # scipy integrates at random, to about 1e-3.
    assert found == pytest.approx(theirs.pvalue, abs=3e-3)


@pytest.mark.parametrize("sided", ["two", "one"])
@pytest.mark.parametrize("matrix", [equal(4), unlike()], ids=["product", "no product"])
def test_the_statistics_stay_below_the_quantile_as_often_as_it_says(matrix, sided):
    rng, draws, df = np.random.default_rng(2), 400_000, 9
    normal = rng.normal(size=(draws, len(matrix))) @ np.linalg.cholesky(matrix).T
    t = normal / np.sqrt(rng.chisquare(df, (draws, 1)) / df)
    largest = (np.abs(t) if sided == "two" else t).max(axis=1)
    share = (largest <= quantile(matrix, df, 0.95, sided=sided)).mean()
    # The module's own error is below 1e-3; four standard errors of this simulation are 1.4e-3.
    assert share == pytest.approx(0.95, abs=2.4e-3)


@pytest.mark.parametrize("matrix", [equal(5), unlike()], ids=["product", "no product"])
def test_the_order_of_the_comparisons_does_not_matter(matrix):
    order = np.array([3, 0, 4, 1, 2])
    t = np.array([0.3, -1.0, 2.2, 2.9, 4.0])
    straight, turned = adjusted_p(t, matrix, 12), adjusted_p(t[order], matrix[order][:, order], 12)
    # Points are dealt to comparisons in their order, so what is no product agrees to its error.
    assert turned == pytest.approx(straight[order], abs=1e-3)
    assert np.argsort(straight).tolist() == [4, 3, 2, 1, 0]


def test_p_falls_below_five_percent_exactly_where_the_statistic_passes_the_quantile():
    bound = quantile(equal(7), 18, 0.95)
    near = adjusted_p(np.array([bound - 1e-6, bound + 1e-6]), equal(7), 18)
    assert near[0] > 0.05 > near[1]
    assert near == pytest.approx(0.05, abs=1e-6)


def test_one_comparison_is_students_t():
    assert quantile(equal(1), 6, 0.95) == pytest.approx(stats.t.ppf(0.975, 6), rel=1e-12)
    p = adjusted_p(np.array([2.5]), equal(1), 6)
    assert p[0] == pytest.approx(2 * stats.t.sf(2.5, 6), rel=1e-9)


def test_the_quantile_lies_below_sidaks_and_above_that_of_one_comparison():
    for k, df in ((3, 4), (11, 22), (11, 200)):
        sidak = stats.t.ppf((1 + 0.95 ** (1 / k)) / 2, df)
        assert stats.t.ppf(0.975, df) < quantile(equal(k), df, 0.95) < sidak
