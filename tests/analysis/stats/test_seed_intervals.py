"""Claims about intervals of means: none is narrow by luck, and none covers less for it."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.rows.stages import PRIMARY
from analysis.stats.per_seed import seed_stats
from analysis.stats.seed_intervals import seed_intervals
from benchmarks.simulated_sweeps import REFERENCE, World, simulated
from tests.analysis.conftest import make_frame, make_rows

STAGE = "post_quant_bpb"


def of_key(table, key):
    return table.set_index("key").loc[key]


@pytest.fixture(scope="module")
def lucky(rows):
    """The three seeds of ASQU agree to a millionth."""
    changed = [
        row | ({STAGE: 2.3 + 1e-6 * row["seed"]} if row["activation"] == "asqu" else {})
        for row in rows
    ]
    return make_frame(changed)


def test_seeds_that_agree_by_luck_get_the_interval_of_the_pooled_spread(lucky):
    own = seed_stats(lucky, [STAGE])
    once = own[own["key"] != "leaky_relu2-s0"]  # ReLU² by another name
    spread = np.sqrt((once["sd"] ** 2).mean())
    row = of_key(seed_intervals(lucky, [STAGE]), "asqu")
    assert row["own_half_width"] < 1e-5
    assert row["half_width"] == pytest.approx(stats.t.ppf(0.975, 2 * 11) * spread / np.sqrt(3))
    assert (row["low"], row["high"]) == (
        row["mean"] - row["half_width"],
        row["mean"] + row["half_width"],
    )


def test_no_interval_is_narrower_than_its_own_and_nothing_else_changes(lucky):
    found, own = seed_intervals(lucky, [STAGE]), seed_stats(lucky, [STAGE])
    assert (found["half_width"] >= own["half_width"]).all()
    assert (found["half_width"] == own["half_width"]).any()
    changed = ["half_width", "low", "high"]
    pd.testing.assert_frame_equal(
        found.drop(columns=[*changed, "own_half_width"]), own.drop(columns=changed)
    )


def test_a_constant_changes_no_half_width_and_a_unit_scales_it(rows):
    here = seed_intervals(make_frame(rows), [STAGE])["half_width"]
    moved = [row | {STAGE: 4 * row[STAGE] + 1} for row in rows]
    there = seed_intervals(make_frame(moved), [STAGE])["half_width"]
    assert there.to_numpy() == pytest.approx(4 * here.to_numpy(), rel=1e-9)


def test_a_diverged_activation_is_no_part_of_the_spread(cells_with_losses):
    wild = cells_with_losses.copy()
    wild.loc[wild["key"] == "leaky_relu2-s0.8", STAGE] *= 5.0 * wild["seed"].astype(float)
    for frame in (cells_with_losses, wild):
        table = seed_intervals(frame, [STAGE])
        assert of_key(table, "asqu")["half_width"] == pytest.approx(
            of_key(seed_intervals(cells_with_losses, [STAGE]), "asqu")["half_width"]
        )


def test_one_seed_has_no_interval():
    few = make_frame([row for row in make_rows() if row["seed"] == 1])
    assert seed_intervals(few, [STAGE])["half_width"].isna().all()


@pytest.mark.parametrize("noisy", [REFERENCE, "asqu"])
def test_an_interval_covers_95_percent_whoever_is_noisier(noisy):
    world = World(keys=(REFERENCE, "leaky_relu2-s0.3", "asqu"), noise_factors={noisy: 5.0})
    table = seed_intervals(simulated(world, 400, np.random.default_rng(5)), [PRIMARY])
    covered = ((table["mean"] - 2.3).abs() <= table["half_width"]).groupby(table["key"]).sum()
    # Missed by chance once in a thousand if the rate is 95 %.
    assert (covered >= stats.binom.ppf(0.001, 400, 0.95)).all()
