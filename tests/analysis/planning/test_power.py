"""Claims about power: against scipy's distributions, against its own inverse, and from a file."""

import math
import statistics
from itertools import product

import numpy as np
import pytest
from scipy import special, stats

from analysis.__main__ import main
from analysis.planning.noise import PUBLISHED, Noise, noise_of, planning_noise
from analysis.planning.power import (
    KINDS,
    Design,
    _least_p,
    critical_value,
    power_of,
    seeds_needed,
    smallest_effect,
)
from analysis.planning.power_tables import (
    achieved,
    grid_cells,
    planned,
    power_curve,
    power_table,
    seeds_table,
)
from analysis.rows.stages import PRIMARY
from analysis.stats.compare import compare
from analysis.study import Study
from benchmarks.compare_many import complete_blocks, intervals
from sweep.spec.sweep_file import load_sweep
from tests.analysis.conftest import make_study

REFERENCE = "leaky_relu2-s0.5"
KNOWN = Noise(noise_sd=0.0005, seed_sd=0.0007, source="a test", tokens_per_byte=0.41)


def test_power_is_a_tail_of_the_noncentral_t():
    for n, ncp in product((2, 3, 8, 38, 700), (0.0, 0.5, 2.0, 5.0)):
        design = Design("pooled", n, 4)
        df = design.noise_df
        critical = critical_value(3, df, 0.95)
        tails = stats.nct.sf(critical, df, ncp) + stats.nct.cdf(-critical, df, ncp)
        # 1e-9: what both quadratures promise; they agree to 1e-12 here.
        assert power_of(ncp * math.sqrt(2 / n), design, 1.0) == pytest.approx(tails, abs=1e-9)


@pytest.mark.parametrize("num_seeds", [2, 3, 9])
def test_power_of_the_primary_analysis_is_that_of_simulated_scores(num_seeds):
    """Scores are simulated here; for the prediction only variances are, means are integrated."""
    rows, rng = complete_blocks(num_seeds, 11), np.random.default_rng(1)
    noise = rng.standard_normal((20_000, rows.score_N.size))
    for effect in (0.0, 1.5, 3.0):
        difference, half_width, _ = intervals(rows, noise + effect * (rows.activation_N == 1))
        simulated = (np.abs(difference) > half_width)[:, 0].mean()
        predicted = power_of(effect, Design("block", num_seeds, 11), 1.0)
        # Four standard errors of 20,000 draws (0.0141), and of both null distributions, of which
        # one (0.0016 of 0.05) moves a power of one half by about 0.005.
        assert predicted == pytest.approx(simulated, abs=0.02)


def test_two_activations_are_judged_by_the_pooled_interval_alone():
    assert power_of(2.0, Design("block", 4, 2), 1.0) == power_of(2.0, Design("pooled", 4, 2), 1.0)


def test_the_smallest_effect_has_the_power_that_was_asked_for():
    for n, activations, power in ((2, 2, 0.3), (3, 11, 0.8), (40, 15, 0.99)):
        design = Design("pooled", n, activations)
        effect = smallest_effect(design, 1e-3, power=power)
        assert power_of(effect, design, 1e-3) == pytest.approx(power, abs=1e-6)
        assert smallest_effect(design, 2e-3, power=power) == pytest.approx(2 * effect)


@pytest.mark.parametrize("kind", KINDS)
def test_one_seed_fewer_than_needed_does_not_suffice(kind):
    n = seeds_needed(0.002, Design(kind, 3, 11), 0.0007)
    assert n is not None
    assert power_of(0.002, Design(kind, n, 11), 0.0007) >= 0.8
    assert power_of(0.002, Design(kind, n - 1, 11), 0.0007) < 0.8


def test_an_effect_that_no_number_of_seeds_resolves_has_none():
    assert seeds_needed(1e-9, Design("unpaired", 3, 3), 1.0) is None


def test_a_grid_is_planned_from_its_file_alone_and_a_function_counts_once():
    spec = load_sweep("slopes")
    cells = grid_cells(spec)
    assert set(cells["key"]) == {a.label for a in spec.expanded_activations()}
    (grid,) = planned(Study.of(cells, spec.reference), {"pr549, 600 s": KNOWN})
    assert (grid.n, grid.num_activations, grid.quantity) == (3, 11, PRIMARY)
    table = power_table([grid])
    assert list(table["design"]) == [*["block"] * 2, *["pooled"] * 2, *["unpaired"] * 2]
    row = table.iloc[0]
    of_means = Design("block", 3, 11, 0.975)  # the other half of the error is the curve's
    assert row["effect"] == smallest_effect(of_means, 0.0005, power=0.8)
    assert (row["comparisons"], row["noise_df"], row["noise_sd"]) == (10, 20, 0.0005)


def test_every_point_of_a_further_axis_is_a_grid_of_its_own():
    spec = load_sweep("slopes-lr")
    grids = planned(Study.of(grid_cells(spec), spec.reference), {})
    assert len(grids) == 3
    assert all(grid.num_activations == 3 and grid.noise is None for grid in grids)
    assert power_table(grids).empty
    assert seeds_table(grids).empty


def test_a_finished_grid_is_judged_by_its_own_noise(cells):
    (grid,) = achieved(make_study(cells))
    row = compare(make_study(cells), PRIMARY).iloc[0]
    assert (grid.n, grid.num_activations) == (3, row["comparisons"] + 1)
    assert grid.designs()[0].noise_df == grid.noise.noise_df == row["noise_df"]
    assert grid.noise.noise_sd == pytest.approx(row["noise_sd"])
    assert grid.record_effect == pytest.approx(0.005 / math.log(2) * 20_000 / 60_000)


def test_the_noise_is_the_residual_of_seed_and_activation(cells):
    known = noise_of(make_study(cells), "here")
    scores = cells[cells["key"] != "leaky_relu2-s0"].pivot(
        index="seed", columns="key", values=PRIMARY
    )
    left = scores.sub(scores.mean(axis=1), axis=0) - scores.mean() + scores.to_numpy().mean()
    assert known.noise_sd == pytest.approx(math.sqrt((left**2).to_numpy().sum() / 20))
    assert known.seed_sd == pytest.approx(math.sqrt(scores.var().mean()))


def test_noise_comes_from_the_sweep_itself_then_from_another_then_from_what_is_published(store):
    results = store.parent
    local = grid_cells(load_sweep("local").model_copy(update={"budgets": ["200steps"]}))
    setting = "local, 200 steps"
    own = planning_noise(local, results, "local")[setting]
    other = planning_noise(local, results, "another")[setting]
    assert own == other
    assert own.source == "measured in sweep local"
    assert own.noise_df == 20
    elsewhere = grid_cells(load_sweep("local"))  # 170 steps: another budget
    assert planning_noise(elsewhere, results, "local") == {"local, 170 steps": None}
    slopes = grid_cells(load_sweep("slopes"))
    assert planning_noise(slopes, results, "slopes") == {"pr549, 600 s": PUBLISHED["pr549"]}


def test_the_published_noise_is_that_of_the_published_seeds():
    """PR #1035, post-quant of seeds 1337, 42, 2025; PR #549, sliding."""
    asqu, leaky, relu = (
        np.array(scores)
        for scores in (
            (1.22963083, 1.23093205, 1.22945507),
            (1.2314873, 1.2315329, 1.23015131),
            (1.23280563, 1.2343, 1.2321),
        )
    )
    paired = [statistics.stdev(x) for x in (asqu - leaky, leaky - relu, asqu - relu)]
    known = PUBLISHED["pr1035"]
    # They are quoted to one digit.
    assert round(max(paired), 4) == round(known.noise_sd * math.sqrt(2), 4) == 0.0007
    assert statistics.stdev((1.12165091, 1.122665, 1.12119033)) == pytest.approx(
        known.seed_sd, abs=0.0001
    )
    assert round(known.bpb_of(0.005), 5) == 0.00296


def test_larger_effects_need_fewer_seeds_and_the_fields_rule_is_one_of_them():
    spec = load_sweep("slopes")
    table = seeds_table(
        planned(Study.of(grid_cells(spec), spec.reference), {"pr549, 600 s": KNOWN})
    )
    for _, rows in table.groupby(["design", "power"]):
        needs = rows.sort_values("effect")["n"].to_list()
        assert needs == sorted(needs, reverse=True)
        assert rows["nats"].dropna().to_list() == [0.005]
    assert (table["cells"] == 11 * table["n"]).all()


def test_a_power_curve_rises_from_chance_to_certainty():
    spec = load_sweep("slopes")
    grids = planned(Study.of(grid_cells(spec), spec.reference), {"pr549, 600 s": KNOWN})
    curves = power_curve(grids)
    for design, rows in curves.groupby("design"):
        assert rows["power"].is_monotonic_increasing, design
        assert rows["power"].iloc[0] < 0.05
        assert rows["power"].iloc[-1] > 0.989
    block_at, pooled_at, unpaired_at = (
        curves.loc[curves["design"] == kind, "power"].to_numpy()
        for kind in ("block", "pooled", "unpaired")
    )
    assert (pooled_at >= block_at).all()
    matters = unpaired_at > 0.05
    assert (pooled_at[matters] > unpaired_at[matters]).all()


def test_the_command_says_what_the_grid_resolves_and_with_which_noise(tmp_path, capsys):
    assert main(["power", "--sweep", "slopes", "--results", str(tmp_path / "none")]) == 0
    told = capsys.readouterr().out
    assert "3 seeds × 11 activations resolve" in told
    assert "ReLU² and LeakyReLU² 0.0 are one function" in told
    assert "published: paired sd 0.0007 in PR #1035" in told
    assert "20 df, 10 comparisons" in told
    assert "0.005 nats/token" in told


def test_a_recipe_of_which_nothing_is_known_is_told_in_units_of_its_noise(tmp_path, capsys):
    assert main(["power", "--sweep", "local", "--results", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "The size of the noise is unknown" in told
    assert "times the noise sd is resolved in 80 % of sweeps" in told


def test_a_sweep_without_file_is_told_from_its_results(store_of, rows, capsys):
    folder = store_of([row for row in rows if row["slope"] in (None, 0.5)])
    renamed = folder.rename(folder.with_name("gone"))
    assert main(["power", "--sweep", "gone", "--results", str(renamed.parent)]) == 0
    assert "so far: 3 seeds × 3 activations resolve" in capsys.readouterr().out


def test_a_sweep_with_neither_file_nor_results_is_one_sentence(tmp_path, capsys):
    assert main(["power", "--sweep", "slpes", "--results", str(tmp_path)]) == 2
    assert "Did you mean 'slopes'?" in capsys.readouterr().err


@pytest.mark.parametrize("least_df", [1.5, 4.0, 1e5])
def test_of_the_least_p_what_is_asked_is_exact(least_df):
    rng = np.random.default_rng(3)
    df_DK = least_df * rng.uniform(1, 20, (2000, 5))
    t_DK = np.abs(rng.standard_t(least_df, (2000, 5)))
    every_D = 2 * special.stdtr(df_DK, -t_DK).min(axis=1)
    for share in (0.01, 0.05, 0.5):
        asked_D = _least_p(t_DK, df_DK, share)
        assert np.quantile(asked_D, share) == np.quantile(every_D, share)
