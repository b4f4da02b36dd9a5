"""Claims about the curve over the slope, its best slope, and ASQU against the fixed slopes.

How often the set of best slopes holds the best one is measured by benchmarks/slope_coverage.py.
"""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.conclusions.best_fixed import best_fixed, best_fixed_sentences
from analysis.conclusions.slope_curve import slope_curves
from analysis.models.curve_contrasts import Design, curve_contrasts, null_distributions
from analysis.models.curve_fit import Cells, fit_curve
from analysis.models.least_squares import f_test, solve
from analysis.stats.slopes import fixed_slopes
from benchmarks.slope_coverage import ALIKE, FLAT, NOISES, Case, Truth, measure
from tests.analysis.conftest import make_graded, make_study

STAGE = "post_quant_sliding_bpb"
KEYS = {f"s{i}": round(0.1 * i, 1) for i in range(10)}
SLOPES = np.array(list(KEYS.values()))


def quadratic(best, size=0.1):
    return lambda slope: size * (slope - best) ** 2


def only(curves):
    assert len(curves) == 1
    return curves[0]


@pytest.mark.parametrize("best", [0.0, 0.35, 0.5, 0.9])
def test_a_quadratic_minimum_is_found(best):
    curve = only(slope_curves(make_graded(quadratic(best), noise=1e-6), STAGE))
    assert curve.best == pytest.approx(best, abs=0.005)  # one step of the grid of places
    assert len(curve.best_set) == 1
    low, high = curve.best_set[0]
    assert low <= best + 1e-12
    assert high >= best - 1e-12
    assert high - low <= 0.06 + 1e-9  # a place is held against the slopes and their middles
    assert not curve.flat
    assert "best slope lies in" in curve.sentence()


def test_shifting_the_seeds_moves_the_curve_and_no_conclusion():
    frame = make_graded(quadratic(0.4), noise=0.003).cells
    moved = frame.assign(**{STAGE: frame[STAGE] + frame["seed"].astype(float) ** 2})
    one, other = (only(slope_curves(make_study(each), STAGE)) for each in (frame, moved))
    assert other.best == one.best
    assert other.best_set == one.best_set
    # Scores of 10 keep 2⁻⁴⁹ beside noise of 0.003: ten digits of an F statistic are left.
    for name in ("flat_p", "fit_p", "noise_sd", "largest"):
        assert getattr(other, name) == pytest.approx(getattr(one, name), rel=1e-8)
    shift = np.mean([1.0, 4.0, 9.0])
    np.testing.assert_allclose(other.line["fit"], one.line["fit"] + shift, rtol=1e-12)


def test_the_fit_is_that_of_ordinary_least_squares_on_the_means():
    frame = make_graded(quadratic(0.4), noise=0.003).cells
    curve = only(slope_curves(make_study(frame), STAGE))
    means = frame[frame["slope"].notna()].groupby("slope")[STAGE].mean()
    cubic = np.polynomial.Polynomial.fit(means.index.to_numpy(float), means.to_numpy(), 3)
    np.testing.assert_allclose(curve.line["fit"], cubic(curve.line["slope"]), rtol=1e-10)


def test_a_flat_curve_is_called_flat_and_says_what_it_excludes():
    curve = only(slope_curves(make_graded(lambda slope: 0.0), STAGE))
    assert curve.flat
    assert curve.flat_p > 0.05
    assert not curve.contrasts["resolved"].any()
    assert curve.largest > np.ptp(curve.line["fit"])
    assert f"a difference above {curve.largest:.4f} BPB" in curve.sentence()


def test_relu2_and_slope_zero_are_one_point(cells):
    slopes = fixed_slopes(cells)
    assert slopes["relu2"] == 0.0
    assert "leaky_relu2-s0" not in slopes
    assert "asqu" not in slopes
    curve = only(slope_curves(make_study(cells), STAGE))
    assert curve.slopes == tuple(SLOPES)
    alone = cells[cells["key"] != "leaky_relu2-s0"]
    assert only(slope_curves(make_study(alone), STAGE)).best_set == curve.best_set


def test_a_curve_that_is_too_stiff_is_raised_and_a_wild_one_is_said():
    quartic = make_graded(lambda s: (s - 0.1) * (s - 0.35) * (s - 0.6) * (s - 0.85), noise=0.001)
    assert only(slope_curves(quartic, STAGE)).degree > 3
    wild = make_graded(lambda s: 0.01 * (round(10 * s) % 2), noise=0.001)
    curve = only(slope_curves(wild, STAGE))
    assert curve.fit_p < 0.05
    assert curve.degree is None
    assert curve.flat is False
    assert all(low == high for low, high in curve.best_set)
    assert {low for low, _ in curve.best_set} <= {0.0, 0.2, 0.4, 0.6, 0.8}
    assert "no smooth curve fits" in curve.sentence()


def test_a_diverged_slope_is_left_out_and_named(cells_with_losses):
    curve = only(slope_curves(make_study(cells_with_losses), STAGE))
    assert 0.8 not in curve.slopes
    assert curve.left_out == ("LeakyReLU² 0.8",)
    assert curve.missing == 1
    assert "LeakyReLU² 0.8" in curve.sentence()
    assert "1 score is missing" in curve.sentence()


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        (lambda frame: frame["seed"] == 1, "one seed"),
        (lambda frame: frame["seed"] == 9, "0 slopes can be ranked"),
        (lambda frame: frame["slope"].isin([0.1, 0.2]), "2 slopes can be ranked"),
    ],
)
def test_what_cannot_be_answered_gets_a_reason(cells, keep, words):
    frame = cells.assign(state=cells["state"].where(keep(cells), "failed"))
    curve = only(slope_curves(make_study(frame), STAGE))
    assert words in curve.reason
    assert words in curve.sentence()
    assert curve.best is None
    assert curve.best_set == ()
    assert curve.flat is None


def test_a_sweep_of_two_slopes_is_no_slope_study(cells):
    assert slope_curves(make_study(cells[cells["slope"].isin([0.1, 0.2])]), STAGE) == ()


def test_seeds_that_share_no_slope_give_a_reason():
    frame = make_graded(quadratic(0.4), slopes=(0.1, 0.2, 0.8, 0.9), seeds=(1, 2)).cells
    halves = ((frame["seed"] == 1) & frame["slope"].isin([0.1, 0.2])) | (
        (frame["seed"] == 2) & frame["slope"].isin([0.8, 0.9])
    )
    assert only(slope_curves(make_study(frame[halves]), STAGE)).reason is not None


def contrasts_of(scores, *, reference=0.5, places=SLOPES):
    """The contrasts of blocks × (ten slopes and ASQU)."""
    matrix = pd.DataFrame(scores, columns=[*KEYS, "asqu"])
    fit = fit_curve(Cells.of(matrix, KEYS))
    return curve_contrasts(fit, places, level=0.95, reference=reference)


def test_the_test_of_the_fit_is_that_of_nested_models():
    """Independent formulas: sums of squares about a polynomial of the means, complete blocks."""
    scores = np.random.default_rng(3).normal(0, 1, (4, 10)) + SLOPES
    fit = fit_curve(Cells.of(pd.DataFrame(scores, columns=list(KEYS)), KEYS))
    means = scores.mean(axis=0)
    left = scores - scores.mean(axis=1, keepdims=True) - means + scores.mean()
    noise = (left**2).sum() / 27
    rss = 4 * ((means - np.polynomial.Polynomial.fit(SLOPES, means, 3)(SLOPES)) ** 2).sum()
    assert fit.fit_p == pytest.approx(stats.f.sf(rss / 6 / noise, 6, 27), rel=1e-9)


def test_contrasts_do_not_depend_on_order_units_or_seeds():
    rng = np.random.default_rng(8)
    scores = rng.normal(size=(4, 11)) + np.append(6 * (SLOPES - 0.4) ** 2, 0.0)
    first = contrasts_of(scores)
    shifted = contrasts_of(scores + 50 * rng.normal(size=(4, 1)))
    larger = contrasts_of(3.0 * scores)
    assert shifted.kept_G.tolist() == larger.kept_G.tolist() == first.kept_G.tolist()
    assert shifted.pairs_p == larger.pairs_p == first.pairs_p
    assert larger.largest == pytest.approx(3 * first.largest)
    for name in ("difference_T", "half_width_T", "half_width_G"):
        of_first = getattr(first.from_reference, name)
        assert getattr(shifted.from_reference, name) == pytest.approx(of_first, abs=1e-9)
        assert getattr(larger.from_reference, name) == pytest.approx(3 * of_first)


def test_a_difference_is_resolved_where_its_interval_excludes_zero():
    rng = np.random.default_rng(5)
    for size in (2.0, 6.0, 12.0):
        scores = rng.normal(size=(3, 11)) + np.append(size * (SLOPES - 0.3) ** 2, 0.0)
        found = contrasts_of(scores).from_reference
        resolved = found.p_value_T <= 0.05 + 1e-12
        assert (resolved == (np.abs(found.difference_T) > found.half_width_T)).all()
        assert found.half_width_T[5] == 0.0  # the reference from itself


def test_a_noisy_end_widens_what_it_carries_and_no_curve_claims_the_lowest_is_not():
    rng, noisy = np.random.default_rng(6), np.append(np.ones(9), [12.0, 1.0])
    calm = rng.normal(size=(5, 11))
    before, after = contrasts_of(calm), contrasts_of(calm * noisy)
    assert after.from_reference.half_width_T[9] > 3 * before.from_reference.half_width_T[9]
    places = np.linspace(0, 0.9, 91)
    for _ in range(10):
        scores = rng.normal(size=(3, 11)) * 0.1 + np.append((SLOPES - rng.random()) ** 2, 0.0)
        fit = fit_curve(Cells.of(pd.DataFrame(scores, columns=[*KEYS, "asqu"]), KEYS))
        at = places if fit.degree is not None else fit.cells.tested
        found = curve_contrasts(fit, at, level=0.95)
        assert found.kept_G[np.argmin(fit.estimators(at) @ fit.cells.values_N)]


def test_each_slopes_own_variance_is_judged_by_noisy_ends_too():
    scores = np.random.default_rng(9).normal(size=(3, 11))
    fit = fit_curve(Cells.of(pd.DataFrame(scores, columns=[*KEYS, "asqu"]), KEYS))
    pooled, own = null_distributions(Design(fit, 0.5))
    for of_pooled, of_own in zip(families(pooled), families(own), strict=True):
        equal, worst = own.critical(of_own[:1], 0.95), own.critical(of_own, 0.95)
        assert (worst >= equal).all()
        assert (worst > equal).any()
        assert len(of_pooled) == 1  # with noisy ends it would err, so nothing else is asked of it


def families(null):
    return null.above_KDM, null.pairs_KD, null.reference_KD


def test_a_place_is_left_out_only_if_both_statistics_say_so():
    """ASQU is 8 times as noisy: each slope's own variance is small, the pooled one is not."""
    curve, noise = np.append(9 * (SLOPES - 0.5) ** 2, 0.0), np.append(np.ones(10), 8.0)
    calm = np.random.default_rng(10).normal(size=(10, 11))
    assert not contrasts_of(calm + curve).kept_G.all()
    assert contrasts_of(calm * noise + curve).kept_G.all()


def test_a_contrast_outside_the_design_is_not_told():
    model = solve(np.array([[1.0, 0.0, 1.0], [1.0, 0.0, 1.0]]), np.array([1.0, 2.0]))
    values, errors = model.estimate(np.array([[1.0, 0.0, 1.0], [1.0, 0.0, 0.0]]))
    assert values[0] == pytest.approx(1.5)
    assert np.isnan([values[1], errors[1]]).all()
    assert f_test(model, model, model) is None


def test_asqu_beats_every_fixed_slope_only_if_every_interval_says_so():
    for asqu, beats, beaten in ((-0.02, True, False), (0.0, False, False), (0.05, False, True)):
        table = best_fixed(make_graded(quadratic(0.5), asqu=asqu), STAGE)
        assert len(table) == len(SLOPES)
        assert set(table["key"]) == {"asqu"}
        assert table["beats_all"].unique().tolist() == [beats]
        assert table["beaten_by_any"].unique().tolist() == [beaten]
        assert (table["high"] < 0).all() == beats


def test_asqu_below_some_and_above_none_is_not_called_better_than_the_best():
    words = best_fixed_sentences(make_graded(quadratic(0.5), asqu=0.0), STAGE)
    assert len(words) == 1
    assert "every fixed slope" not in words[0]
    assert "better than LeakyReLU² 0.0" in words[0]


def test_one_seed_of_asqu_resolves_nothing():
    study = make_graded(quadratic(0.5), seeds=(1,), asqu=-1.0)
    assert best_fixed(study, STAGE)["beats_all"].isna().all()
    assert "nothing is resolved" in best_fixed_sentences(study, STAGE)[0]


def test_a_sweep_without_a_learned_activation_compares_none(cells):
    assert best_fixed(make_study(cells[cells["key"] != "asqu"]), STAGE).empty


@pytest.mark.slow
@pytest.mark.parametrize("truth", [FLAT[0], Truth("quadratic", lambda s: (s - 0.9) ** 2, 0.9)])
@pytest.mark.parametrize("noise", [ALIKE, NOISES[1]], ids=lambda noise: noise.name)
def test_no_claim_is_made_more_often_than_it_says(truth, noise):
    """At 300 grids each: not beyond the 0.1 % quantile of a binomial of 95 %."""
    found = measure(Case(truth, 3, 0.0 if truth.name == "flat" else 3.0, noise), 300)
    allowed = stats.binom.ppf(0.001, 300, 0.95) / 300
    assert found.covered >= allowed
    assert 1 - found.wrong >= allowed
    if truth.name == "flat":
        assert 1 - found.resolved >= allowed
