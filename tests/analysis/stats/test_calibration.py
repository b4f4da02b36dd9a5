"""Claims about the analysis where the truth is known, and about the simulation that knows it.

The full table, with 2,000 sweeps a row, is ``python -m benchmarks.calibration``.
"""

import numpy as np
import pytest
from scipy import stats

from analysis.conclusions.stage_interaction import shifts
from analysis.planning.power import Design, power_of
from analysis.rows.stages import PRIMARY
from analysis.stats.compare import compare
from analysis.stats.quantization import with_deltas
from benchmarks.calibration import POINTS, clopper_pearson, of_quantization, rates, tally
from benchmarks.calibration_scenarios import ONE, SCENARIOS, Scenario
from benchmarks.compare_many import compare_many
from benchmarks.simulated_sweeps import KEYS, REFERENCE, World, simulated
from benchmarks.two_stages import TwoStages, probability_kept, two_stage_power
from tests.analysis.conftest import make_study

BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


def test_a_simulated_sweep_has_the_columns_and_types_of_a_store(cells):
    frame = simulated(World(), 2, np.random.default_rng(0))
    assert list(frame.columns) == list(cells.columns)
    assert frame.dtypes[["seed", "tainted", PRIMARY]].equals(
        cells.dtypes[["seed", "tainted", PRIMARY]]
    )
    assert set(frame["key"]) == set(cells["key"]) == set(KEYS)
    assert frame["setting"].nunique() == 2


def test_without_noise_the_analysis_finds_the_truth():
    effects = {"asqu": 0.002, "leaky_relu2-s0.3": -0.001}
    frame = simulated(World(effects=effects, noise_sd=1e-9), 1, np.random.default_rng(0))
    found = compare(make_study(frame), PRIMARY).set_index("key")["difference"]
    assert len(found) == 10
    for key, difference in found.items():
        assert difference == pytest.approx(effects.get(key, 0.0), abs=1e-7)  # 100 times the noise


def test_the_two_names_of_one_function_have_one_score():
    frame = simulated(World(num_seeds=4), 3, np.random.default_rng(0))
    scores = frame.pivot(index=["setting", "seed"], columns="key", values=PRIMARY)
    assert (scores["relu2"] == scores["leaky_relu2-s0"]).all()
    assert (scores["relu2"] != scores["asqu"]).all()


def test_spreads_are_those_of_the_world():
    world = World(num_seeds=50, seed_sd=0.003, noise_factors={"asqu": 3.0})
    frame = simulated(world, 40, np.random.default_rng(0))
    scores = frame.pivot(index=["setting", "seed"], columns="key", values=PRIMARY)
    gaps = scores.sub(scores[REFERENCE], axis=0).std() / world.noise_sd
    # Four standard errors of a sd of 2,000 draws: 4 / √4000 = 6.3 %.
    assert gaps["leaky_relu2-s0.1"] == pytest.approx(np.sqrt(2), rel=0.064)
    assert gaps["asqu"] == pytest.approx(np.sqrt(10), rel=0.064)
    assert scores["asqu"].std() == pytest.approx(np.hypot(0.003, 0.0015), rel=0.064)


def test_sweeps_compare_many_are_judged_as_one_by_one():
    world = World(num_seeds=4, noise_factors={REFERENCE: 3.0})
    frame = simulated(world, 5, np.random.default_rng(0))
    found = compare_many(frame, REFERENCE)
    said = compare(make_study(frame), PRIMARY)
    assert found.difference_DK.shape == (5, 10)
    for column, values in (
        ("difference", found.difference_DK),
        ("half_width", found.half_width_DK),
        ("pooled_half_width", found.pooled_DK),
    ):
        table = said.pivot(index="setting", columns="key", values=column)
        theirs = table.loc[frame["setting"].unique(), list(found.keys)]
        np.testing.assert_allclose(values, theirs, rtol=1e-9, atol=1e-12, err_msg=column)


def test_quantization_of_many_sweeps_is_judged_as_one_by_one():
    keys = (REFERENCE, "leaky_relu2-s0.3", "asqu")
    scenario = Scenario("null", World(keys=keys, noise_factors={"asqu": 3.0}))
    frame = simulated(scenario.world, 6, np.random.default_rng(1))
    counts = of_quantization(frame, scenario)
    found = [
        shift
        for study in make_study(frame).settings.values()
        for shift in shifts(study)
        if shift.delta == "quant_delta"
    ]
    assert len(found) == 6
    assert sum(shift.before != shift.after for shift in found) > 0
    assert counts["winner shifts"] == sum(bool(shift.resolved) for shift in found)
    said = compare(make_study(with_deltas(frame)), "quant_delta")
    assert counts["cost differs"] == said.groupby("setting")["resolved"].any().sum()


@pytest.mark.parametrize("name", ["null", "null, the reference 3 times as noisy"])
def test_no_more_than_one_sweep_in_twenty_says_falsely_that_quantization_costs_one_more(name):
    n, scenario = 1000, BY_NAME[name]
    counts = of_quantization(simulated(scenario.world, n, np.random.default_rng(17)), scenario)
    # Exceeded by chance once in a thousand if the rate is 5 %.
    assert counts["cost differs"] <= stats.binom.ppf(0.999, n, 0.05)
    assert counts["winner shifts"] <= counts["cost differs"]


@pytest.mark.parametrize("name", ["null", "null, two stages"])
def test_the_same_seed_counts_the_same(name):
    one, again = (tally(BY_NAME[name], 2, np.random.default_rng(3)) for _ in range(2))
    assert one == again
    assert one["n"] == 2


def test_the_binomial_interval_covers_what_it_should():
    for count, n in ((0, 10), (3, 40), (10, 10)):
        low, high = clopper_pearson(count, n)
        if count:
            assert stats.binom.sf(count - 1, n, low) == pytest.approx(0.025)
        if count < n:
            assert stats.binom.cdf(count, n, high) == pytest.approx(0.025)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["null", "null, the reference 3 times as noisy", "null, two stages"]
)
def test_no_more_than_one_null_sweep_in_twenty_has_a_false_positive(name):
    n = 500
    counts = tally(BY_NAME[name], n, np.random.default_rng(11))
    assert counts["n"] == n
    # Exceeded by chance once in a thousand if the rate is 5 %.
    assert counts["false"] <= stats.binom.ppf(0.999, n, 0.05)
    if name == "null":  # the pooled interval is exact there; each end missed once in a thousand
        assert counts["false by pooled"] >= stats.binom.ppf(0.001, n, 0.05)


@pytest.mark.slow
def test_the_second_interval_is_what_keeps_a_noisy_reference_from_making_winners():
    scenario = BY_NAME["null, the reference 3 times as noisy"]
    counts = tally(scenario, 500, np.random.default_rng(12))
    assert counts["false by pooled"] > stats.binom.ppf(0.999, 500, 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["effect 0.0023, 3 seeds", "effect 0.0010, two stages"])
def test_simulated_power_is_what_was_predicted(name):
    n = 500
    found = rates(BY_NAME[name], tally(BY_NAME[name], n, np.random.default_rng(13)))
    powers = [rate for rate in found if rate.claim == "near"]
    assert len(powers) == 2
    for rate in powers:
        # 3 points are what is claimed; and the binomial error, exceeded once in a thousand.
        chance = 3.3 * np.sqrt(rate.expected * (1 - rate.expected) / n)
        assert abs(rate.rate - rate.expected) <= POINTS + chance, rate.what


def test_every_scenario_looks_at_an_activation_that_the_grid_has():
    assert ONE in KEYS
    assert len(BY_NAME) == len(SCENARIOS)


def test_the_probability_of_being_kept_is_that_of_a_brute_force_simulation():
    design = TwoStages(num_activations=11, screening_seeds=3, keep=3, seeds=5)
    means = np.random.default_rng(0).normal(size=(200_000, 10)) / np.sqrt(3)
    means[:, 0] -= 0.8
    kept = ((means < means[:, :1]).sum(axis=1) < 3).mean()
    # Four standard errors of 200,000 draws: 4 · √(¼ / 200,000) = 0.0045.
    assert probability_kept(0.8, design, 1.0) == pytest.approx(kept, abs=0.0045)
    # 1e-4: Gauss–Hermite of a step function smoothed by ten normal distributions.
    assert probability_kept(0.0, design, 1.0) == pytest.approx(0.3, abs=1e-4)


def test_keeping_all_is_one_stage_of_fresh_seeds():
    design = TwoStages(num_activations=11, screening_seeds=3, keep=10, seeds=5)
    alone = power_of(1.0, Design("block", 5, 11), 1.0)
    assert two_stage_power(1.0, design, 1.0) == pytest.approx(alone)
