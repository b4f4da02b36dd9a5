"""Claims about unequal noise: the second interval, the check, and how often they err."""

import math

import numpy as np
import pandas as pd
import pytest
from statsmodels.regression.linear_model import OLS

from analysis.models.block_model import Blocked, Blocking, blocked, fit_blocks
from analysis.models.own_variances import noisier, variances
from analysis.models.unequal_variance import (
    NUM_DRAWS,
    DesignKey,
    geometry_of,
    null_distribution,
    unequal_variance_interval,
)
from analysis.stats.compare import bounds
from analysis.stats.ranking import ranked_rows
from analysis.stats.variances import variance_checks
from benchmarks.compare_many import intervals
from tests.analysis.conftest import make_frame, make_study

STAGE = "post_quant_sliding_bpb"
REFERENCE = "leaky_relu2-s0.5"


def complete(scores_SA):
    """The rows of complete blocks; activation 0 is the reference."""
    seeds, activations = np.indices(scores_SA.shape)
    keys = tuple(f"{i:02d}" for i in range(scores_SA.shape[1]))
    return Blocked(keys, activations.ravel(), seeds.ravel(), seeds.ravel(), np.ravel(scores_SA))


@pytest.fixture(scope="module")
def holed(rows):
    frame = make_frame([{**r, "state": "failed"} if i % 5 == 2 else r for i, r in enumerate(rows)])
    return blocked(ranked_rows(make_study(frame), STAGE, REFERENCE), REFERENCE, Blocking())


def test_an_own_variance_is_what_the_residuals_lose_without_the_activation(holed):
    geometry = geometry_of(DesignKey(holed)).noise
    found = variances(geometry, holed.score_N[None, :])
    full = OLS(holed.score_N, holed.matrix()).fit()
    assert found.pooled_D[0] == pytest.approx(full.mse_resid, rel=1e-6)
    for activation in range(len(holed.keys)):
        others = holed.activation_N != activation
        columns = holed.matrix()[others]
        columns = columns[:, columns.any(axis=0)]
        if activation == 0:  # without the reference, one difference is no longer told apart
            columns = columns[:, :-1]
        without = OLS(holed.score_N[others], columns).fit()
        df = round(full.df_resid - without.df_resid)
        assert geometry.added_df_A[activation] == df
        # Scores of order 2 leave residuals of 0.002: their squares keep 2⁻⁵² · 10⁶ of digits.
        assert found.rest_DA[0, activation] == pytest.approx(without.mse_resid, rel=1e-6)
        added = (full.ssr - without.ssr) / df if df else math.nan
        assert found.own_DA[0, activation] == pytest.approx(added, rel=1e-5, nan_ok=True)


def test_the_test_of_one_variance_against_the_rest_is_exact():
    rng, rows = np.random.default_rng(0), complete(np.zeros((4, 5)))
    rows_with_hole = Blocked(
        rows.keys,
        *(part[1:] for part in (rows.activation_N, rows.block_N)),
        rows.seed_N[1:],
        rows.score_N[1:],
    )
    geometry = geometry_of(DesignKey(rows_with_hole)).noise
    p_DA = noisier(geometry, variances(geometry, rng.normal(size=(20_000, 19))))
    shares = (p_DA < 0.1).mean(axis=0)
    # Four standard errors of 20,000 draws.
    assert shares == pytest.approx(0.1, abs=4 * math.sqrt(0.09 / 20_000))


def test_the_half_width_and_the_adjusted_p_say_the_same(holed):
    fit = fit_blocks(holed)
    for level in (0.9, 0.95, 0.99):
        found = unequal_variance_interval(holed, level=level)
        beyond = np.abs(fit.estimate_K) > found.half_width_K
        assert (beyond == (found.p_value_K <= 1 - level + 1e-12)).all()


def test_the_null_distribution_does_not_depend_on_when_it_is_drawn(holed):
    first = null_distribution(DesignKey(holed))
    null_distribution.cache_clear()
    again = null_distribution(DesignKey(holed))
    assert (first.two_sided == again.two_sided).all()
    assert len(first.two_sided) == NUM_DRAWS


def test_a_noisy_reference_widens_every_interval_and_a_noisy_activation_its_own():
    scores = np.random.default_rng(5).normal(size=(5, 8))
    factors = np.where(np.arange(8) == 3, 8.0, 1.0)

    def half_width(sds):
        return unequal_variance_interval(complete(scores * sds), level=0.95).half_width_K

    calm, noisy, reference = map(half_width, (1.0, factors, np.roll(factors, -3)))
    assert noisy[2] > 2 * calm[2]  # activation 3 is comparison 2
    assert (reference > 2 * calm).all()


def test_two_activations_and_a_single_seed_have_no_unequal_variance_interval():
    rng = np.random.default_rng(0)
    assert unequal_variance_interval(complete(rng.normal(size=(5, 2))), level=0.95) is None
    assert unequal_variance_interval(complete(rng.normal(size=(1, 6))), level=0.95) is None


@pytest.mark.parametrize("shape", [(4, 6), (5, 2), (1, 4)])
def test_many_data_sets_have_the_intervals_of_each(shape):
    rng, sds = np.random.default_rng(4), np.linspace(1, 2, shape[1])
    scores_DSA = rng.normal(size=(5, *shape)) * sds + 3 * (np.arange(shape[1]) == 1)
    many = intervals(complete(scores_DSA[0]), scores_DSA.reshape(5, -1))
    for scores_SA, difference_K, half_K, pooled_K in zip(scores_DSA, *many, strict=True):
        rows = complete(scores_SA)
        fit = fit_blocks(rows)
        pooled, wider = bounds(rows, fit, level=0.95)
        assert difference_K == pytest.approx(fit.estimate_K, rel=1e-9)
        assert pooled_K == pytest.approx(np.nan_to_num(pooled.half_width_K, nan=np.inf), rel=1e-9)
        assert half_K == pytest.approx(np.nan_to_num(wider.half_width_K, nan=np.inf), rel=1e-9)


def test_the_check_names_the_noisiest_activation(rows):
    rng = np.random.default_rng(1)
    noisy = [
        {**r, STAGE: 2.3 + rng.normal(0, 0.05 if r["activation"] == "asqu" else 0.001)}
        for r in rows
        if r["slope"] != 0.0
    ]
    (row,) = variance_checks(make_study(noisy), STAGE).to_dict("records")
    assert (row["largest_key"], row["equal"], row["n"]) == ("asqu", False, 3)
    assert row["p_value"] < 0.01
    assert row["largest_sd"] > 10 * row["smallest_sd"]


def test_the_check_is_null_where_nothing_can_be_held_against_anything(rows):
    pair = [row for row in rows if row["activation"] == "asqu" or row["slope"] == 0.5]
    for frame in (make_frame(pair), make_frame([row for row in rows if row["seed"] == 1])):
        row = variance_checks(make_study(frame), STAGE).iloc[0]
        assert pd.isna([row["statistic"], row["p_value"], row["equal"]]).all()


PATTERNS = {
    "equal": np.ones(12),
    "one activation thrice": np.r_[1, 3, np.ones(10)],
    "half twice": np.r_[2 * np.ones(6), np.ones(6)],
    "the reference thrice": np.r_[3, np.ones(11)],
}


@pytest.mark.parametrize("num_seeds", [3, 10])
def test_a_null_sweep_resolves_something_in_five_percent_at_most(num_seeds):
    rng, sweeps, design = np.random.default_rng(7), 4000, complete(np.zeros((num_seeds, 12)))
    for pattern, sds in PATTERNS.items():
        scores_DN = (rng.normal(size=(sweeps, num_seeds, 12)) * sds).reshape(sweeps, -1)
        difference_DK, half_width_DK, _ = intervals(design, scores_DN)
        share = (np.abs(difference_DK) > half_width_DK).any(axis=1).mean()
        # Three standard errors above 5 %.
        assert share < 0.05 + 3 * math.sqrt(0.05 * 0.95 / sweeps), pattern


@pytest.mark.slow
def test_a_rerun_is_no_second_draw_of_its_reference():
    """Cells moved at random to a second node, where a repetition is all that its seed is."""
    rng, sweeps, num_seeds, num_keys = np.random.default_rng(3), 400, 3, 12
    moved_SA = rng.permuted(np.tile(np.arange(num_keys - 1) < 5, (num_seeds, 1)), axis=1)
    seeds, keys = (part.ravel() for part in np.indices((num_seeds, num_keys)))
    node = np.where(np.column_stack([np.zeros(num_seeds, bool), moved_SA]).ravel(), "b", "a")
    design = pd.DataFrame({"key": [f"k{key:02d}" for key in keys], "seed": seeds, "node": node})
    again = design[design["key"] == "k00"].assign(node="b")
    cells = pd.concat([design, again], ignore_index=True)
    shared_SA = rng.normal(size=(sweeps, num_seeds * num_keys))
    scores = np.concatenate([shared_SA, shared_SA[:, keys == 0]], axis=1)
    # Rows are linear in the scores: those of a one for each cell in turn tell all of them.
    ones = np.eye(len(cells))
    rows_of = [blocked(cells.assign(value=one), "k00", Blocking("node")) for one in ones]
    scores_DN = scores @ np.stack([rows.score_N for rows in rows_of])
    difference_DK, _, pooled_DK = intervals(rows_of[0], scores_DN)
    share = (np.abs(difference_DK) > pooled_DK).any(axis=1).mean()
    # Three standard errors above 5 %; blocks of seed and node gave 10 %.
    assert share < 0.05 + 3 * math.sqrt(0.05 * 0.95 / sweeps)
