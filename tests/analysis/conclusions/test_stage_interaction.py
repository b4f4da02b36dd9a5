"""Claims about the second question: who is said to be quantized otherwise, and who wins when."""

import numpy as np
import pytest

from analysis.conclusions.stage_interaction import shifts, stage_sentences
from analysis.number_format import plus_minus
from analysis.stats.compare import compare
from analysis.stats.quantization import primary_delta, with_deltas
from tests.analysis.conftest import REFERENCE, make_frame, make_row, make_study

KEYS = ("relu2", "leaky_relu2-s0.3", REFERENCE, "asqu")
NAMES = (("relu2", None), ("leaky_relu2", 0.3), ("leaky_relu2", 0.5), ("asqu", None))
STAGES = ("pre_quant_bpb", "post_quant_bpb", "post_quant_sliding_bpb", "ttt_bpb")
PRE, COST = np.array([0.03, 0.01, 0.02, 0.04]), np.zeros(4)


def rows_of(pre=PRE, cost=COST, *, seeds=5, noise=1e-4, per_seed=0.0, scale=1.0):
    """Scores before quantization, and what it costs each of ``KEYS``, with noise on both."""
    rng, rows = np.random.default_rng(17), []
    for seed in range(1, seeds + 1):
        for (name, slope), level, lost in zip(NAMES, pre, cost, strict=True):
            before = 2.3 + level + 0.1 * seed + rng.normal(0, noise)
            after = before + 0.01 + lost + per_seed * seed + rng.normal(0, noise)
            scores = (before, after, after - 0.03, after - 0.05 + rng.normal(0, noise))
            told = dict(zip(STAGES, (scale * score for score in scores), strict=True))
            rows.append(make_row(name, slope, seed, **told))
    return rows


def of_quantization(rows):
    return next(shift for shift in shifts(make_study(rows)) if shift.delta == "quant_delta")


def test_what_costs_all_alike_is_said_of_none():
    told, winner = stage_sentences(make_study(rows_of()))
    assert told.startswith("Quantization is not shown to cost any activation more or less")
    assert winner.startswith(
        "LeakyReLU² 0.3 is lowest at every stage (pre-quant, contiguous; post-quant"
    )
    assert "1.00 (quantization)" in winner


def test_whom_quantization_costs_more_or_less_is_named_and_nobody_else():
    told = stage_sentences(make_study(rows_of(cost=(-0.004, 0.0, 0.0, 0.005))))[0]
    assert "costs ReLU² (−0.004" in told
    assert "less and ASQU (+0.00" in told
    assert "LeakyReLU² 0.3" not in told
    assert "an error rate of 5 % of its own" in told


def test_neither_a_level_of_its_own_nor_what_a_seed_adds_to_a_stage_is_an_interaction():
    def deltas(rows):
        return compare(make_study(rows).derive(with_deltas), "quant_delta")

    here = deltas(rows_of())
    # Scores of order 1 carry rounding of 2⁻⁵²; p values from counted draws move by 1 / 20,000.
    for rows in (rows_of(pre=PRE[::-1]), rows_of(per_seed=0.02)):
        for name in ("difference", "half_width", "p_value"):
            assert deltas(rows)[name].to_numpy() == pytest.approx(here[name], rel=1e-7, abs=6e-5)


def test_the_winner_moves_with_an_interval_that_holds_for_every_pair():
    rows = rows_of(cost=(-0.03, 0.0, 0.0, 0.0))
    found = of_quantization(rows)
    assert (found.before, found.after) == ("leaky_relu2-s0.3", "relu2")
    assert found.resolved
    against = compare(make_study(rows).derive(with_deltas), "quant_delta").set_index("key")
    of_pair = against.loc[["relu2", "leaky_relu2-s0.3"]]
    assert found.change == pytest.approx(of_pair["difference"].diff().iloc[-1] * -1)
    assert found.half_width == pytest.approx(of_pair["half_width"].sum())
    told = stage_sentences(make_study(rows))[1]
    assert "LeakyReLU² 0.3 (pre-quant, contiguous), then ReLU² (post-quant, contiguous; " in told
    change = plus_minus(found.change, found.half_width, signed=True)
    moved = f"quantization moves ReLU² against LeakyReLU² 0.3 by {change}"
    assert f"{moved}, simultaneous over all pairs: resolved" in told


def test_against_the_reference_the_interval_is_that_of_the_comparison():
    rows = rows_of(cost=(0.0, 0.0, -0.03, 0.0))
    found = of_quantization(rows)
    assert (found.before, found.after) == ("leaky_relu2-s0.3", REFERENCE)
    against = compare(make_study(rows).derive(with_deltas), "quant_delta").set_index("key")
    assert found.half_width == against.loc["leaky_relu2-s0.3", "half_width"]


def test_a_shift_follows_the_names_and_the_unit():
    cost = np.array([-0.03, 0.0, 0.0, 0.0])
    here = of_quantization(rows_of(cost=cost))
    there = of_quantization(rows_of(cost=cost, scale=4.0))
    assert (there.before, there.after, there.tau) == (here.before, here.after, here.tau)
    assert there.change == pytest.approx(4 * here.change)
    assert there.half_width == pytest.approx(4 * here.half_width)
    other = {"relu2": "asqu", "asqu": "relu2"}
    renamed = [
        {**row, "activation": other.get(row["activation"], row["activation"])}
        | {"neg_beta": 0.0 if row["activation"] == "asqu" else row["neg_beta"]}
        | ({"neg_beta": None} if row["activation"] == "relu2" else {})
        for row in rows_of(cost=cost)
    ]
    swapped = of_quantization(renamed)
    assert (swapped.before, swapped.after) == (here.before, "asqu")
    assert (swapped.change, swapped.half_width) == pytest.approx((here.change, here.half_width))


def test_a_shift_by_ttt_is_described():
    rows = rows_of()
    moved = [r | {"ttt_bpb": r["ttt_bpb"] - 0.1 * (r["activation"] == "asqu")} for r in rows]
    told = stage_sentences(make_study(moved))[1]
    assert "TTT moves ASQU against LeakyReLU² 0.3 by −0." in told
    assert "described and not tested: resolved" in told


def test_one_seed_names_winners_and_tells_nothing():
    few = rows_of(cost=(-0.03, 0.0, 0.0, 0.0), seeds=1)
    assert of_quantization(few).resolved is None
    told, winner = stage_sentences(make_study(few))
    assert told.startswith("Too few seeds to know the noise: whether quantization costs all alike")
    assert "no interval tells whether by chance" in winner


def test_the_primary_delta_is_the_first_that_the_cells_have():
    assert primary_delta(make_frame(rows_of())) == "quant_delta"
    slid = [r | {"pre_quant_sliding_bpb": 2.0, "pre_quant_bpb": None} for r in rows_of()]
    assert primary_delta(make_frame(slid)) == "quant_delta_sliding"
    none = [r | {"pre_quant_bpb": None} for r in rows_of()]
    assert primary_delta(make_frame(none)) is None
    (winner,) = stage_sentences(make_study(none))
    assert winner.startswith("LeakyReLU² 0.3 is lowest at every stage (post-quant")


def test_a_winner_that_lacks_one_score_is_left_out_of_the_shift():
    rows = [r | ({"post_quant_bpb": None} if r["slope"] == 0.3 else {}) for r in rows_of()]
    study = make_study(rows)
    assert [shift.delta for shift in shifts(study)] == ["ttt_gain"]
    assert "LeakyReLU² 0.3 (pre-quant, contiguous), then" in stage_sentences(study)[1]


def test_one_activation_alone_raises_no_question():
    assert stage_sentences(make_study(rows_of()[3::4], reference="asqu")) == []
