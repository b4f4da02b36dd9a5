"""Claims about the block model and its intervals, against formulas, statsmodels and refitting."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats

from analysis.models.block_model import Blocking, blocked, fit_blocks
from analysis.models.dunnett import quantile
from analysis.stats.compare import compare, nats_per_bpb
from analysis.stats.ranking import ranked_rows
from tests.analysis.conftest import make_frame, make_study

STAGE = "post_quant_sliding_bpb"
REFERENCE = "leaky_relu2-s0.5"
NUMBERS = ["difference", "half_width", "p_value", "pooled_half_width", "pooled_p", "record_p"]


def compared(rows, **options):
    return compare(make_study(rows, **options), STAGE)


def row_of_key(table, key):
    return table.set_index("key").loc[key]


@pytest.fixture(scope="module")
def holed(rows):
    """Every fifth cell has failed."""
    return make_frame([{**r, "state": "failed"} if i % 5 == 2 else r for i, r in enumerate(rows)])


def scores_of(frame):
    return ranked_rows(make_study(frame), STAGE, REFERENCE)


def test_a_complete_design_is_the_textbook_formula(cells):
    scores = scores_of(cells).pivot(index="seed", columns="key", values="value").to_numpy()
    left = scores - scores.mean(axis=0) - scores.mean(axis=1, keepdims=True) + scores.mean()
    sd = math.sqrt((left**2).sum() / (2 * 10))
    correlation = np.full((10, 10), 0.5) + np.eye(10) / 2
    half_width = quantile(correlation, 20, 0.95) * sd * math.sqrt(2 / 3)
    table = compared(cells)
    assert table["noise_sd"].to_numpy() == pytest.approx(sd, rel=1e-9)
    assert table["noise_df"].tolist() == [20] * 10
    assert table["pooled_half_width"].to_numpy() == pytest.approx(half_width, rel=1e-9)
    means = pd.Series(scores.mean(axis=0), sorted(set(scores_of(cells)["key"])))
    expected = means.drop(REFERENCE) - means[REFERENCE]
    assert table["difference"].to_numpy() == pytest.approx(expected.to_numpy(), rel=1e-9)


def test_a_design_with_holes_is_statsmodels_own(holed):
    scores = scores_of(holed).astype({"seed": int})
    model = smf.ols(f"value ~ C(seed) + C(key, Treatment('{REFERENCE}'))", scores).fit()
    fit = fit_blocks(blocked(scores, REFERENCE, Blocking()))
    names = [name for name in model.params.index if "C(key" in name]
    assert fit.noise_df == model.df_resid
    assert fit.noise_sd == pytest.approx(math.sqrt(model.mse_resid), rel=1e-9)
    assert fit.estimate_K == pytest.approx(model.params[names].to_numpy(), rel=1e-6, abs=1e-9)
    covariance = model.cov_params().loc[names, names].to_numpy() / model.mse_resid
    assert fit.covariance_KK == pytest.approx(covariance, rel=1e-9)


def test_neither_what_a_seed_adds_nor_the_order_of_rows_changes_anything(rows):
    moved = [{**row, STAGE: row[STAGE] + (0.7, -1.0, 0.3)[row["seed"] - 1]} for row in rows]
    there, here = compared(moved[::-1]), compared(rows)
    assert there["key"].tolist() == here["key"].tolist()
    # Scores of order 1 carry rounding of 2⁻⁵², which the noise of 0.002 raises to 1e-13 of itself;
    # a p from counted draws moves by 1 / 20,000 if one draw lies as close.
    for name in NUMBERS:
        assert there[name].to_numpy() == pytest.approx(here[name].to_numpy(), rel=1e-7, abs=6e-5)


def test_the_interval_is_the_wider_of_pooled_and_unequal_variances(cells):
    table = compared(cells)
    assert (table["half_width"] >= table["pooled_half_width"]).all()
    assert (table["p_value"] >= table["pooled_p"]).all()
    assert (table["widened"] == (table["half_width"] > table["pooled_half_width"])).all()
    resolved = table["difference"].abs() > table["half_width"]
    assert table["resolved"].astype(bool).tolist() == resolved.tolist()
    assert ((table["p_value"] < 0.05) == resolved).all()


def test_every_row_says_what_it_stands_on(cells):
    table = compared(cells)
    for column in ("n", "level", "window", "stride", "budget", "noise_sd", "blocks", "label"):
        assert table[column].notna().all()
    assert set(table["stride"]) == {32}
    assert set(compare(make_study(cells), "post_quant_bpb")["stride"]) == {128}


def test_one_seed_gives_differences_and_null_intervals(cells):
    table = compared(cells[cells["seed"] == 1])
    assert len(table) == 10
    assert table["difference"].notna().all()
    for name in ("half_width", "p_value", "resolved", "noise_df", "record_rule", "record_p"):
        assert table[name].isna().all()


def test_a_single_seed_of_the_reference_gives_null_intervals(rows):
    kept = [row for row in rows if row["slope"] != 0.5 or row["seed"] == 1]
    table = compared(kept)
    assert table["noise_sd"].notna().all()
    assert table["half_width"].isna().all()
    assert table["resolved"].isna().all()


@pytest.mark.parametrize("absent", [None, math.nan, math.inf])
def test_a_score_that_is_no_number_is_a_missing_score(rows, absent):
    def hit(row):
        return row["activation"] == "asqu" and row["seed"] == 2

    table = compared(make_frame([{**r, STAGE: absent} if hit(r) else r for r in rows]))
    assert row_of_key(table, "asqu")["n"] == 2
    assert table["noise_df"].tolist() == [19] * 10
    assert table["half_width"].notna().all()


def test_a_diverged_activation_is_neither_compared_nor_in_the_noise(cells_with_losses):
    table = compared(cells_with_losses)
    assert "leaky_relu2-s0.8" not in set(table["key"])
    assert set(table["comparisons"]) == {9}
    assert set(table["noise_df"]) == {2 * 9 - 1}


def test_a_reference_that_has_another_name_in_the_grid_is_compared_once(cells):
    table = compared(cells, reference="leaky_relu2-s0")
    assert "relu2" not in set(table["key"])
    assert len(table) == 10


def test_replicates_of_a_seed_weigh_as_one_score(rows):
    twice = [
        {**row, "replicate": replicate, STAGE: row[STAGE] + (0.01 if replicate else -0.01)}
        for row in rows
        for replicate in (0, 1)
    ]
    here, there = compared(rows), compared(twice)
    assert there["noise_df"].tolist() == here["noise_df"].tolist()
    assert there["difference"].to_numpy() == pytest.approx(here["difference"].to_numpy(), abs=1e-12)


def test_differences_in_nats_are_those_in_bits_per_byte_of_this_text(cells):
    table = compared(cells)
    factor = math.log(2) * 60_000 / 20_000  # the fixture's bytes and tokens
    assert nats_per_bpb(cells) == pytest.approx(factor, rel=1e-12)
    for nats, bits in (("nats", "difference"), ("nats_low", "low"), ("nats_high", "high")):
        assert table[nats].to_numpy() == pytest.approx(factor * table[bits].to_numpy(), rel=1e-12)


def test_what_is_no_score_has_no_nats_and_no_record_rule(cells):
    table = compare(make_study(cells), "artifact_bytes")
    assert table["difference"].notna().all()
    for name in ("nats", "record_p", "record_rule", "stride"):
        assert table[name].isna().all()


@pytest.mark.parametrize(
    ("lead_nats", "rule"), [(0.5, "met"), (0.0045, "not met"), (0.0055, "not met")]
)
def test_the_field_rule_tests_the_improvement_against_its_own_bound(rows, lead_nats, rule):
    # Noise of 8e-5 BPB: 0.0055 nats are clearly not zero, and not clearly more than 0.005.
    factor, rng = math.log(2) * 3, np.random.default_rng(0)
    quiet = [
        {**r, STAGE: 2.3 - (lead_nats / factor if r["activation"] == "asqu" else 0.0)}
        for r in rows
        if r["slope"] != 0.0
    ]
    quiet = [{**r, STAGE: r[STAGE] + rng.normal(0, 8e-5)} for r in quiet]
    assert row_of_key(compared(quiet), "asqu")["record_rule"] == rule


def test_without_noise_every_difference_is_resolved_and_zero_is_not(rows):
    exact = [{**r, STAGE: 2.0 + (0.25 if r["activation"] == "asqu" else 0.0)} for r in rows]
    table = compared(exact)
    assert bool(row_of_key(table, "asqu")["resolved"])
    assert not table.loc[table["key"] != "asqu", "resolved"].any()


# Blocks of seed and node


def on_nodes(rows):
    """Slopes from 0.6 on ran on a second node, which adds 0.05 to every score."""
    return [
        {**r, "node": "b", STAGE: r[STAGE] + 0.05}
        if (r["slope"] or 0) > 0.55
        else {**r, "node": "a"}
        for r in rows
    ]


@pytest.fixture(scope="module")
def reruns(rows):
    again = [r for r in rows if r["slope"] == 0.5]
    return make_frame([{**r, "node": "b", "replicate": 1, STAGE: r[STAGE] + 0.05} for r in again])


def by_node(rows, reruns):
    return dataclasses.replace(make_study(rows, pairing="node"), reference_reruns=reruns)


def test_with_nodes_as_blocks_what_a_node_adds_changes_nothing(rows, reruns):
    # Also not the degrees of freedom: a rerun that repeats its seed is no second draw.
    table, undisturbed = compare(by_node(on_nodes(rows), reruns), STAGE), compared(rows)
    assert set(table["blocks"]) == {"seeds and nodes"}
    for name in ("n", "noise_df", *NUMBERS):
        there, here = (t[name].to_numpy(dtype=float) for t in (table, undisturbed))
        assert there == pytest.approx(here, rel=1e-7, abs=6e-5), name


def test_cells_without_a_rerun_of_the_reference_are_blocks_of_their_own(rows, reruns):
    lonely = [{**r, "node": "c"} if r["slope"] in (0.8, 0.9) else r for r in on_nodes(rows)]
    table = compare(by_node(lonely, reruns), STAGE)
    assert set(table["comparisons"]) == {8}
    assert set(table["noise_df"]) == {2 * 8 + 2}  # the two differ within each of three blocks


def test_an_activation_that_never_met_the_reference_on_a_node_is_not_compared(rows):
    table = compared(on_nodes(rows), pairing="node")
    assert "leaky_relu2-s0.7" not in set(table["key"])
    assert "leaky_relu2-s0.4" in set(table["key"])


def test_two_activations_are_a_paired_t_test_and_need_no_second_interval(rows):
    pair = [row for row in rows if row["activation"] == "asqu" or row["slope"] == 0.5]
    row = compared(pair).iloc[0]
    asqu, leaky = (
        [r[STAGE] for r in pair if r["activation"] == name] for name in ("asqu", "leaky_relu2")
    )
    test = stats.ttest_rel(asqu, leaky)
    assert row["p_value"] == pytest.approx(test.pvalue, rel=1e-6)
    assert (row["low"], row["high"]) == pytest.approx(test.confidence_interval(0.95), rel=1e-9)
    assert not row["widened"]
