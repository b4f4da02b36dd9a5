"""Claims about the choice: what it does not depend on, and what it says where the answer is plain.

How often its probabilities come true is measured by benchmarks/choice_calibration.py.
"""

import numpy as np
import pandas as pd
import pytest

from analysis.conclusions.choice import choices
from analysis.models.curve_fit import Cells
from analysis.models.partial_pooling import drawn_means
from benchmarks.choice_calibration import measure
from benchmarks.slope_coverage import ALIKE, KEYS, NOISES, SLOPES
from tests.analysis.conftest import make_study


def drawn(scores, columns=(*KEYS, "asqu")):
    return drawn_means(Cells.of(pd.DataFrame(scores, columns=list(columns)), KEYS))


@pytest.fixture
def scores():
    curve = np.append(3 * (SLOPES - 0.6) ** 2, 0.5)
    return np.random.default_rng(1).normal(size=(4, 11)) + curve


def test_units_and_seeds_do_not_matter(scores):
    first, seeds = drawn(scores), 40 * np.arange(4)[:, None]
    assert drawn(scores + seeds) == pytest.approx(first, abs=1e-9)
    assert drawn(0.01 * scores) == pytest.approx(0.01 * first, rel=1e-9)
    assert first.mean(axis=1) == pytest.approx(0, abs=1e-12)


def test_the_order_of_the_activations_does_not_matter(scores):
    order = np.random.default_rng(2).permutation(11)
    names = np.array([*KEYS, "asqu"])
    one, other = drawn(scores), drawn(scores[:, order], names[order])
    for statistic in (np.mean, np.std):  # of 4,096 quasi-random draws
        found = statistic(other, axis=0)
        assert found == pytest.approx(statistic(one, axis=0)[order], abs=0.03)


def test_neighbours_on_the_axis_lend_strength_and_others_do_not():
    """On a smooth curve a slope is a little lower: its neighbours follow it, no other does."""
    scores = np.random.default_rng(3).normal(size=(3, 11)) * 0.3
    scores += np.append(4 * (SLOPES - 0.6) ** 2, 0.5)
    lower = scores - 0.2 * (np.arange(11) == 3)
    moved = drawn(lower).mean(axis=0) - drawn(scores).mean(axis=0)
    assert moved[3] < moved[4] < moved[8]
    assert moved[2] < moved[10]


def test_means_shrink_towards_one_another_where_noise_is_large():
    scores = np.random.default_rng(4).normal(size=(3, 11))
    means = scores.mean(axis=0) - scores.mean()
    assert np.ptp(drawn(scores).mean(axis=0)) < 0.6 * np.ptp(means)
    clear = scores * 0.01 + 5 * SLOPES[[*range(10), 0]]
    found = drawn(clear).mean(axis=0)
    assert found == pytest.approx(clear.mean(axis=0) - clear.mean(), abs=0.03)


def test_one_seed_or_seeds_that_share_nothing_give_no_draws(scores):
    assert drawn(scores[:1]) is None
    apart = np.full((2, 11), np.nan)
    apart[0, :5], apart[1, 5:] = scores[0, :5], scores[1, 5:]
    assert drawn(apart) is None


def test_the_choice_of_a_sweep_names_what_is_best_and_what_it_may_cost(cells):
    (found,) = choices(make_study(cells)).values()
    table = found.table
    assert table["probability"].sum() == pytest.approx(1)
    assert (table["regret"].diff().dropna() >= 0).all()
    assert (table["regret_high"] >= table["regret"]).all()
    assert set(table["key"]) == set(cells["key"]) - {"leaky_relu2-s0"}
    assert found.key == table["key"].iloc[0]
    assert found.sentence().startswith(f"Use {table['label'].iloc[0]}: its expected loss")


def test_a_diverged_activation_is_never_chosen(cells_with_losses):
    (found,) = choices(make_study(cells_with_losses)).values()
    assert "leaky_relu2-s0.8" not in set(found.table["key"])


def test_one_seed_names_no_choice(cells):
    (found,) = choices(make_study(cells[cells["seed"] == 1])).values()
    assert found.key is None
    assert "Too few seeds" in found.sentence()


@pytest.mark.slow
@pytest.mark.parametrize("noise", [ALIKE, NOISES[1]], ids=lambda noise: noise.name)
def test_what_is_said_with_a_probability_happens_as_often(noise):
    """At 300 grids; four standard errors of a share of 0.95, of 0.8 and of the probabilities."""
    found = measure("quadratic, range 3", 3, noise, 300)
    assert found.within_95 > 0.95 - 4 * np.sqrt(0.95 * 0.05 / 300)
    assert found.within_80 > 0.8 - 4 * np.sqrt(0.8 * 0.2 / 300)
    assert found.best_was == pytest.approx(found.best_said, abs=0.2)
    assert found.regret < found.of_lowest
