"""No sentence claims what its numbers do not say, and none prints what is no number."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.conclusions.decision import decide
from analysis.conclusions.sensitivity import sensitivity_sentences
from analysis.conclusions.slope_curve import slope_curves
from analysis.costs.node_speed import node_effects, node_sentences
from analysis.figures.catalog import draw
from analysis.figures.figure_data import FigureData
from analysis.figures.slope_curve import best_words, fit_words
from analysis.number_format import number, percent, plus_minus
from analysis.planning.power_tables import achieved
from analysis.rows.stages import PRIMARY, is_legal
from analysis.stats.aa_control import aa_sentences
from analysis.stats.compare import compare
from tests.analysis.conftest import lost, make_frame, make_row, make_study


@given(st.floats(-1e-4, 1e-4))
def test_what_prints_as_zero_has_no_sign(value):
    text = number(value, signed=True)
    assert (text == "0.0000") == (float(f"{value:.4f}") == 0)
    assert number(value) != "−0.0000"


def test_an_interval_of_rounding_gets_no_further_digits():
    assert plus_minus(2.5, 3e-17) == "2.5000 ±0.0000"
    assert plus_minus(2.5, 2e-9) == "2.500000000 ±0.000000002"


@given(st.floats(1e-4, 50))
def test_a_share_in_percent_is_read_back_as_the_share(share):
    # Two digits: half a unit of the second one is at most 5 %.
    assert float(percent(share).removesuffix(" %")) / 100 == pytest.approx(share, rel=0.05)
    assert "e" not in percent(max(share, 1e-3))


def test_nearest_is_not_called_better_where_it_is_worse(rows):
    worse = [row if row["slope"] == 0.5 else row | {PRIMARY: row[PRIMARY] + 0.05} for row in rows]
    (said,) = [
        s for s in sensitivity_sentences(make_study(worse)) if s.startswith("The record rule")
    ]
    assert "met by none; nearest is" in said
    assert ", worse by 0." in said
    assert "better by −" not in said


def test_nodes_that_cannot_be_told_from_activations_have_no_amount(rows):
    alone = [
        row | {"node": row["activation"] + str(row["slope"]), "step_ms_p50": 5.0 + row["seed"]}
        for row in rows
    ]
    (said,) = node_sentences(node_effects(make_study(alone)))
    assert "–" not in said
    assert "differ by is not told apart from the activations that ran on them" in said


@pytest.mark.parametrize(("pairs", "keys", "can"), [(8, 3, True), (8, 7, False), (9, 14, False)])
def test_sign_flips_are_said_to_reach_the_level_only_where_they_can(pairs, keys, can):
    slopes = [round(0.5 + 0.01 * i, 2) for i in range(keys + 1)]
    frame = make_frame(
        [make_row("leaky_relu2", slope, seed) for slope in slopes for seed in range(1, pairs + 1)]
    )
    (said,) = [s for s in sensitivity_sentences(make_study(frame)) if s.startswith("Sign flips")]
    assert f"{keys} comparisons {'can' if can else 'cannot'} reach 5 %" in said
    assert can == (keys * 2 / 2**pairs < 0.05)


def test_an_aa_pair_of_which_one_diverged_has_no_gap_in_bits():
    frame = make_frame(
        [lost(make_row("relu2", None, 1), "diverged", "loss"), make_row("leaky_relu2", 0.0, 1)]
    )
    (said,) = aa_sentences(make_study(frame))
    assert "agree bit for bit in 0 of 1 pair and else one of the two has no score" in said


@pytest.mark.parametrize(("told", "legal"), [(True, True), (False, False), (None, False)])
def test_a_slot_score_is_legal_only_where_it_is_said_to_be(told, legal):
    frame = make_frame([make_row("relu2", None, 1, slot_bpb=2.0, slot_legal=told)])
    assert is_legal(frame, "slot_bpb") is legal
    assert is_legal(frame.assign(slot_bpb=np.nan), "slot_bpb") is True


def test_no_best_slope_is_named_where_none_is_resolved():
    rng = np.random.default_rng(3)
    flat = make_frame(
        [
            make_row("leaky_relu2", s / 10, seed, **{PRIMARY: 2.3 + rng.normal(0, 0.01)})
            for seed in (1, 2, 3)
            for s in range(10)
        ]
    )
    (curve,) = slope_curves(make_study(flat), PRIMARY)
    assert curve.flat is True
    assert "no two slopes are resolved" in best_words(curve)
    kinked = flat.assign(
        **{
            PRIMARY: 2.3
            + 0.2 * (flat["slope"] * 10 % 2)
            + flat["seed"] * 1e-4
            + rng.normal(0, 1e-4, len(flat))
            + 0.05 * flat["slope"]
        }
    )
    (curve,) = slope_curves(make_study(kinked), PRIMARY)
    assert curve.degree is None
    assert "No smooth curve fits" in fit_words(curve)
    assert best_words(curve) == "best slope 0.00 (95 % set 0.00)"


def test_scores_that_are_all_alike_resolve_nothing_and_have_no_power(rows):
    """Sums of equal numbers differ by rounding, which is neither a difference nor noise."""
    alike = make_frame([row | {PRIMARY: 2.3} for row in rows])
    table = compare(make_study(alike), PRIMARY)
    assert (table["difference"] == 0).all()
    assert not table["resolved"].any()
    assert all(grid.noise is None for grid in achieved(make_study(alike)))
    assert "the reference" in decide(make_study(alike))[0].sentence


@pytest.mark.parametrize(("budget", "warned"), [(10_000.0, False), (200.0, True)])
def test_published_points_of_another_budget_are_compared_by_shape_alone(budget, warned):
    slopes = [round(0.1 * i, 1) for i in range(5)]
    cells = make_frame(
        [
            make_row("leaky_relu2", slope, seed, recipe="pr1035", budget_value=budget)
            for slope in slopes
            for seed in (1, 2)
        ]
    )
    figure = draw("slope_bpb", FigureData(make_study(cells)))
    (caption,) = [text.get_text() for text in figure.texts if text.get_gid() == "caption"]
    assert "published runs of this recipe" in " ".join(caption.split())
    assert ("not their height" in " ".join(caption.split())) == warned
