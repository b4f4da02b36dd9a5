"""Claims about what is compared with the reference, the A/A control and the decision.

Whether the intervals are right is the claim of the tests of compare, dunnett and unequal_variance.
"""

import numpy as np

from analysis.conclusions.decision import decide
from analysis.stats.aa_control import aa_controls, aa_sentences
from analysis.stats.compare import compare
from analysis.stats.ranking import ranked_scores, same_functions
from tests.analysis.conftest import make_study

STAGE = "post_quant_sliding_bpb"
REFERENCE = "leaky_relu2-s0.5"


def changed(rows, where, **values):
    return [{**row, **values} if where(row) else row for row in rows]


def test_two_names_of_one_function_are_one_activation(cells):
    kept = same_functions(cells, REFERENCE)
    assert kept["leaky_relu2-s0"] == "relu2"
    assert kept["asqu"] == "asqu"
    assert len(set(kept.values())) == 11
    compared = compare(make_study(cells), STAGE)
    assert "leaky_relu2-s0" not in set(compared["key"])
    assert set(compared["comparisons"]) == {10}
    assert set(compared["noise_df"]) == {2 * 10}


def test_the_reference_stands_for_its_function_under_its_own_name(cells):
    assert same_functions(cells, "leaky_relu2-s0")["relu2"] == "leaky_relu2-s0"


def test_if_one_name_diverged_neither_is_ranked(rows):
    rows = changed(rows, lambda r: r["slope"] == 0.0 and r["seed"] == 1, state="diverged")
    assert "relu2" not in ranked_scores(make_study(rows), STAGE, REFERENCE)


def test_the_control_agrees_bit_for_bit(cells):
    row = aa_controls(make_study(cells))[0]
    assert (row["n"], row["n_identical"], row["largest_gap"]) == (3, 3, 0.0)
    assert row["must_agree"]
    assert "agree bit for bit in 3 pairs of 3" in aa_sentences(make_study(cells))[0]


def test_one_bit_breaks_the_control(rows):
    def moved(row):
        broken = row["slope"] == 0.0 and row["seed"] == 2
        return {**row, STAGE: np.nextafter(row[STAGE], 3)} if broken else row

    (sentence,) = aa_sentences(make_study([moved(row) for row in rows]))
    assert "2 of 3 pairs" in sentence
    assert "no number here can be trusted" in sentence


def test_elsewhere_the_control_shows_replicate_noise(rows):
    rows = changed(rows, lambda r: True, device="cuda")
    rows = changed(rows, lambda r: r["slope"] == 0.0, ttt_bpb=2.0)
    (sentence,) = aa_sentences(make_study(rows))
    assert "replicate noise" in sentence


def test_a_small_lead_is_not_resolved(cells):
    (decision,) = decide(make_study(cells))
    assert decision.best == "asqu"
    assert decision.resolved is False
    assert "10 comparisons" in decision.sentence
    assert "3 paired seeds" in decision.sentence
    assert decision.sentence.endswith("not resolved.")


def test_a_large_lead_is_resolved(rows):
    better = [
        {**row, STAGE: row[STAGE] - 0.05} if row["activation"] == "asqu" else row for row in rows
    ]
    (decision,) = decide(make_study(better))
    assert (decision.best, decision.resolved) == ("asqu", True)


def test_a_lead_that_only_the_pooled_interval_resolves_is_not_resolved(rows):
    # 0.008 lies beyond the pooled half width (0.004) and within the wider one (0.011).
    better = changed(rows, lambda r: r["activation"] == "asqu")
    better = [{**r, STAGE: r[STAGE] - 0.008} if r["activation"] == "asqu" else r for r in better]
    (decision,) = decide(make_study(better))
    assert (decision.best, decision.resolved) == ("asqu", False)
    assert decision.sentence.endswith("resolved only if noise is equal, so not resolved.")


def test_where_the_reference_leads_the_decision_names_what_is_worse(rows):
    better = [{**row, STAGE: row[STAGE] - 0.05} if row["slope"] == 0.5 else row for row in rows]
    (decision,) = decide(make_study(better))
    assert (decision.best, decision.resolved) == (REFERENCE, None)
    assert "ReLU² (= LeakyReLU² 0.0)" in decision.sentence


def test_one_seed_resolves_nothing(rows):
    (decision,) = decide(make_study([row for row in rows if row["seed"] == 1]))
    assert decision.resolved is None
    assert "too few seeds" in decision.sentence


def test_the_best_by_survivors_does_not_win(rows_with_losses):
    lucky = [
        {**row, STAGE: 1.0} if row["slope"] == 0.8 and row[STAGE] is not None else row
        for row in rows_with_losses
    ]
    (decision,) = decide(make_study(lucky))
    assert decision.best != "leaky_relu2-s0.8"


def test_an_easy_seed_that_only_one_activation_has_does_not_make_it_best(rows):
    # Slope 0.9 keeps its easiest seed alone: its mean is then lowest, its difference is not.
    kept = [row for row in rows if row["slope"] != 0.9 or row["seed"] == 1]
    (decision,) = decide(make_study(kept))
    assert decision.best == "asqu"


def test_without_a_score_of_the_reference_nothing_is_compared(rows):
    rows = changed(rows, lambda r: r["slope"] == 0.5, state="failed")
    (decision,) = decide(make_study(rows))
    assert decision.resolved is None
    assert "nothing is compared" in decision.sentence


def test_a_planned_reference_that_has_not_run_is_no_error(rows):
    kept = [row for row in rows if row["activation"] == "relu2"]
    (decision,) = decide(make_study(kept, reference="asqu"))
    assert "nothing is compared" in decision.sentence


def test_every_setting_has_its_own_decision(rows):
    longer = [{**row, "budget_value": 1000.0} for row in rows]
    found = decide(make_study(rows + longer))
    assert [one.setting for one in found] == ["local, 200 steps", "local, 1000 steps"]
