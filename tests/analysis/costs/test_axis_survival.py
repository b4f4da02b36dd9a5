"""Claims about whether a ranking survives another recipe value or another budget."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.costs.axis_survival import axis_survival, interaction_p
from tests.analysis.conftest import make_frame, make_row, make_study

STAGE = "post_quant_sliding_bpb"
REFERENCE = "leaky_relu2-s0.5"
SLOPES = (0.1, 0.3, 0.5, 0.7, 0.9)


@pytest.fixture
def swept():
    """Slopes × rates × seeds; ``best`` gives each rate the slope of its minimum."""

    def frame(best, *, seeds=(1, 2, 3), noise=0.001, budget=None):
        generator, rows = np.random.default_rng(11), []
        for rate, place in best.items():
            for seed in seeds:
                for slope in SLOPES:
                    row = make_row("leaky_relu2", slope, seed)
                    row[STAGE] = 1.2 + rate + 0.02 * seed + 0.2 * (slope - place) ** 2
                    row[STAGE] += noise * generator.standard_normal()
                    if budget:
                        row |= {"budget_kind": budget, "budget_value": float(rate)}
                    else:
                        row["set_json"] = json.dumps({"optim": {"matrix_lr": rate}})
                    rows.append(row)
        return make_frame(rows)

    return frame


def test_without_an_interaction_the_best_survives(swept):
    row = axis_survival(make_study(swept({0.02: 0.5, 0.04: 0.5})), STAGE).iloc[0]
    assert row["axis"] == "optim.matrix_lr"
    assert row["values"] == ("0.02", "0.04")
    assert row["best"] == ("LeakyReLU² 0.5", "LeakyReLU² 0.5")
    assert bool(row["interaction"]) is False
    assert row["survives"]
    assert row["contradicted"] == ()
    assert "interaction is not resolved" in row["sentence"]


def test_a_planted_interaction_is_found_and_the_best_does_not_survive(swept):
    row = axis_survival(make_study(swept({0.02: 0.3, 0.04: 0.7})), STAGE).iloc[0]
    assert row["best"] == ("LeakyReLU² 0.3", "LeakyReLU² 0.7")
    assert row["interaction"]
    assert bool(row["survives"]) is False
    assert set(row["contradicted"]) == {"LeakyReLU² 0.3", "LeakyReLU² 0.7"}
    assert row["tau"] < 0
    assert "0.30 (" in row["sentence"]
    assert "0.70 (" in row["sentence"]
    assert "changes with the value" in row["sentence"]


def test_a_budget_is_an_axis_too(swept):
    table = axis_survival(make_study(swept({300: 0.5, 600: 0.5}, budget="seconds")), STAGE)
    assert table["axis"].tolist() == ["budget"]
    assert table["values"].iloc[0] == ("300 s", "600 s")


def test_the_interaction_ignores_what_shifts_a_seed_or_a_setting():
    generator = np.random.default_rng(2)
    seeds = pd.MultiIndex.from_arrays([[1, 2, 3]], names=["seed"])
    sides = [
        pd.DataFrame(generator.normal(0, 1e-3, (3, 4)), columns=list("abcd"), index=seeds)
        for _ in "xy"
    ]
    shifted = [side.add(generator.normal(2, 1, 3), axis=0) + i for i, side in enumerate(sides)]
    assert interaction_p(shifted, "a") == pytest.approx(interaction_p(sides, "a"), rel=1e-6)


def test_the_interaction_of_two_activations_is_the_paired_t_test_of_what_the_value_changes():
    generator = np.random.default_rng(3)
    seeds = pd.MultiIndex.from_arrays([[1, 2, 3, 4]], names=["seed"])
    one, other = (
        pd.DataFrame(generator.normal(size=(4, 2)), columns=list("ab"), index=seeds) for _ in "xy"
    )
    change = one - other
    wanted = stats.ttest_rel(change["b"], change["a"]).pvalue
    assert interaction_p([one, other], "a") == pytest.approx(wanted, abs=1e-6)
    # Of three values there are three pairs; the third is like the first.
    three = interaction_p([one, other, one + 1e-9 * generator.normal(size=(4, 2))], "a")
    assert three <= min(1.0, 3 * wanted) + 1e-6


def test_noise_of_one_activation_is_no_interaction():
    """Flat, one slope three times as noisy: at 100 sweeps no more than 5 % say otherwise."""
    generator, count = np.random.default_rng(4), 0
    seeds = pd.MultiIndex.from_arrays([[1, 2, 3]], names=["seed"])
    for _ in range(100):
        sides = [
            pd.DataFrame(generator.normal(size=(3, 6)) * [1, 1, 1, 1, 1, 3], index=seeds).rename(
                columns=str
            )
            for _ in "xy"
        ]
        count += interaction_p(sides, "0") < 0.05
    assert count <= stats.binom.ppf(0.999, 100, 0.05)


def test_missing_cells_raise_nothing_and_seeds_of_their_own_tell_nothing(swept):
    frame = swept({0.02: 0.5, 0.04: 0.5})
    row = axis_survival(make_study(frame.drop(index=[0, 7])), STAGE).iloc[0]
    assert pd.notna(row["p_value"])
    apart = frame.assign(seed=frame["seed"] + 3 * (frame["set.optim.matrix_lr"] == 0.04))
    row = axis_survival(make_study(apart), STAGE).iloc[0]
    assert pd.isna(row["interaction"])


def test_one_seed_compares_the_best_and_tests_nothing(swept):
    row = axis_survival(make_study(swept({0.02: 0.5, 0.04: 0.5}, seeds=(1,))), STAGE).iloc[0]
    assert row["best"] == ("LeakyReLU² 0.5", "LeakyReLU² 0.5")
    assert pd.isna(row["interaction"])
    assert pd.isna(row["survives"])
    assert "cannot be tested" in row["sentence"]


def test_a_diverged_slope_is_compared_under_no_value(swept):
    frame = swept({0.02: 0.5, 0.04: 0.5})
    lost = (frame["key"] == "leaky_relu2-s0.3") & (frame["seed"] == 1) & (frame.index < 15)
    frame.loc[lost, "state"] = "diverged"
    row = axis_survival(make_study(frame), STAGE).iloc[0]
    assert row["activations"] == len(SLOPES) - 1


def test_a_sweep_with_one_setting_has_no_further_axis(cells):
    assert axis_survival(make_study(cells), STAGE).empty
