"""Claims about pairs by themselves and the sentences about the sensitivity of the decision."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from analysis.conclusions.sensitivity import DATA_ORDER, sensitivity_sentences
from analysis.stats.compare import compare
from analysis.stats.pairs import paired_stats, sign_flip_p, smallest_p
from sweep.spec.sweep_file import RECORD_RULE, RecordRule
from tests.analysis.conftest import make_frame, make_row, make_study

STAGE = "post_quant_sliding_bpb"
REFERENCE = "leaky_relu2-s0.5"


def said(sentences, opening):
    (sentence,) = (sentence for sentence in sentences if sentence.startswith(opening))
    return sentence


@pytest.fixture(scope="module")
def ten_seeds():
    names = [("relu2", None), ("leaky_relu2", 0.5), ("asqu", None)]
    return make_frame([make_row(*name, seed) for seed in range(1, 11) for name in names])


def test_sign_flips_are_counted_as_by_hand():
    differences = np.random.default_rng(0).normal(0.4, 1, 9)
    means = [abs(np.dot(signs, differences)) for signs in itertools.product((1, -1), repeat=9)]
    by_hand = np.mean([mean >= abs(differences.sum()) - 1e-9 for mean in means])
    assert sign_flip_p(differences) == by_hand


def test_no_p_is_smaller_than_that_of_pairs_which_all_agree():
    for n in (9, 12, 16):
        assert sign_flip_p(np.arange(1.0, n + 1)) == smallest_p(n) == 2 / 2**n
    assert smallest_p(0) is None


def test_fewer_than_nine_pairs_have_no_sign_flip_p(cells):
    assert sign_flip_p(np.ones(8)) is None
    table = paired_stats(make_study(cells), STAGE)
    assert table["sign_flip_p"].isna().all()
    assert set(table["smallest_p"]) == {0.25}


def test_random_signs_agree_with_all_signs():
    differences = np.random.default_rng(3).normal(0.35, 1, 17)
    below = 1.0 - 2.0 * ((np.arange(2**17)[:, None] >> np.arange(17)) & 1)
    exact = (np.abs(below @ differences) >= abs(differences.sum()) - 1e-9).mean()
    # Four standard errors of 2¹⁶ draws.
    assert sign_flip_p(differences) == pytest.approx(exact, abs=4 * np.sqrt(exact / 2**16))


def test_few_pairs_are_told_why_no_sign_is_flipped(cells):
    sentence = said(sensitivity_sentences(make_study(cells)), "Sign flips")
    assert "3 pairs give no p below 0.25" in sentence
    assert "from 9 pairs on" in sentence


def test_ten_pairs_are_tested(ten_seeds):
    sentence = said(sensitivity_sentences(make_study(ten_seeds)), "Sign flips")
    p = paired_stats(make_study(ten_seeds), STAGE).set_index("key")["sign_flip_p"]
    assert f"ReLU² p = {p['relu2']:.2g}" in sentence


def test_the_record_rule_says_who_set_it_and_a_milder_one_is_met_by_no_fewer(cells):
    def told(rule):
        study = make_study(cells)
        study = replace(study, sweep=replace(study.sweep, record_rule=rule))
        met = (compare(study, study.primary)["record_rule"] == "met").sum()
        return met, said(sensitivity_sentences(study), "The record rule")

    strict, sentence = told(RECORD_RULE)
    assert "by more than 0.005 nats per token at p < 0.01 (the README of" in sentence
    mild, sentence = told(RecordRule(nats=0.0, p=0.9))
    assert "by more than 0 nats per token at p < 0.9 (the sweep file)" in sentence
    assert mild > strict


def test_the_record_rule_is_told_for_the_nearest(cells):
    sentence = said(sensitivity_sentences(make_study(cells)), "The record rule")
    assert "met by none; nearest is ASQU" in sentence
    assert "nats per token" in sentence


def test_the_data_order_is_mentioned_once(rows):
    longer = [{**row, "budget_value": 1000.0} for row in rows]
    assert sensitivity_sentences(make_study(rows + longer)).count(DATA_ORDER) == 1


def test_taint_is_mentioned_only_where_there_is_any(rows):
    def tainted(row):
        return row["activation"] == "asqu" and row["seed"] == 3

    flagged = make_frame([{**row, "tainted": tainted(row)} for row in rows])
    assert not any("tainted" in s for s in sensitivity_sentences(make_study(rows)))
    assert said(sensitivity_sentences(make_study(flagged)), "With 1 tainted").endswith(
        "the decision is the same."
    )


def test_a_decision_that_hangs_on_tainted_attempts_is_told(rows):
    best = [
        {**row, "tainted": True, STAGE: row[STAGE] - 0.05} if row["slope"] == 0.7 else row
        for row in rows
    ]
    sentence = said(sensitivity_sentences(make_study(best)), "With 3 tainted")
    assert "LeakyReLU² 0.7 would be lowest, resolved from the reference" in sentence


def test_nothing_to_compare_is_nothing_to_say():
    assert sensitivity_sentences(make_study([make_row("asqu", None, 1)], reference="asqu")) == []
