"""Claims about means, intervals and paired differences; checked against scipy."""

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from scipy import stats

from analysis.models.interval import TInterval
from analysis.stats.pairs import paired_differences, paired_stats
from analysis.stats.per_seed import seed_stats
from tests.analysis.conftest import make_frame, make_row, make_study
from trainer.config.config_errors import ConfigError

STAGE = "post_quant_bpb"
REFERENCE = "leaky_relu2-s0.5"
numbers = st.lists(st.floats(-10, 10), min_size=2, max_size=12)


def row_of_key(table, key):
    return table[table["key"] == key].iloc[0]


@given(numbers, st.sampled_from([0.8, 0.95, 0.99]))
def test_the_interval_is_scipys_t_interval(values, level):
    estimate = TInterval(level)(values)
    if estimate.sd == 0:
        assert estimate.half_width == 0
        return
    scale = estimate.sd / np.sqrt(len(values))
    low, high = stats.t.interval(level, len(values) - 1, loc=estimate.mean, scale=scale)
    # The ends lie at most 3000 from zero: 2⁻⁴⁰ of that covers the rounding of a dozen operations.
    assert high - low == pytest.approx(2 * estimate.half_width, abs=3000 * 2**-40)
    assert estimate.sd == pytest.approx(np.std(values, ddof=1))


def test_one_seed_has_a_mean_and_no_interval():
    row = seed_stats(make_frame([make_row("asqu", None, 1)]), [STAGE]).iloc[0]
    assert row["n"] == 1
    assert row["mean"] == make_row("asqu", None, 1)[STAGE]
    assert pd.isna([row["sd"], row["half_width"], row["low"], row["high"]]).all()


def test_each_activation_has_the_mean_of_its_own_rows(cells, rows):
    table = seed_stats(cells, [STAGE])
    assert len(table) == 12
    scores = [row[STAGE] for row in rows if row["activation"] == "asqu"]
    assert row_of_key(table, "asqu")["mean"] == pytest.approx(np.mean(scores), rel=2**-50)


def test_every_mean_says_what_it_stands_on(cells):
    table = seed_stats(cells)
    for column in ("budget", "recipe", "n", "half_width", "window", "stride", "level"):
        assert table[column].notna().all()
    contiguous = table["quantity"].isin(["pre_quant_bpb", "post_quant_bpb"])
    assert set(table.loc[contiguous, "stride"]) == {128}
    assert set(table.loc[~contiguous, "stride"]) == {32}


def test_what_was_not_scored_has_no_row(cells):
    assert "pre_quant_sliding_bpb" not in set(seed_stats(cells)["quantity"])


def test_the_order_of_rows_never_matters(cells):
    shuffled = cells.sample(frac=1.0, random_state=1)
    for make in (lambda f: seed_stats(f, [STAGE]), lambda f: paired_stats(make_study(f), STAGE)):
        pd.testing.assert_frame_equal(make(cells), make(shuffled), check_exact=True)


def test_what_a_seed_adds_to_every_score_changes_no_paired_difference(rows):
    # Multiples of 2⁻³ added to scores rounded to 2⁻³⁰ are exact, so equality is exact too.
    rounded = [{**row, STAGE: round(row[STAGE] * 2**30) / 2**30} for row in rows]
    moved = [{**row, STAGE: row[STAGE] + (3 * row["seed"] - 5) / 8} for row in rounded]
    pd.testing.assert_frame_equal(
        *(paired_differences(make_study(each), STAGE) for each in (rounded, moved)),
        check_exact=True,
    )


def test_a_paired_interval_is_that_of_the_paired_t_test(cells, rows):
    scores = {
        name: [row[STAGE] for row in rows if (row["activation"], row["slope"]) == name]
        for name in (("asqu", None), ("leaky_relu2", 0.5))
    }
    test = stats.ttest_rel(scores["asqu", None], scores["leaky_relu2", 0.5])
    low, high = test.confidence_interval(0.95)
    row = row_of_key(paired_stats(make_study(cells), STAGE), "asqu")
    assert row["n"] == 3
    assert row["mean"] - row["half_width"] == pytest.approx(low, rel=1e-9)
    assert row["mean"] + row["half_width"] == pytest.approx(high, rel=1e-9)


def test_only_seeds_that_both_have_are_paired(cells_with_losses):
    row = row_of_key(paired_stats(make_study(cells_with_losses), STAGE), "leaky_relu2-s0.3")
    assert (row["n"], row["n_failed"]) == (2, 1)


def test_a_diverged_seed_is_flagged_and_its_activation_is_not_ranked(cells_with_losses):
    table = seed_stats(cells_with_losses, [STAGE])
    diverged = row_of_key(table, "leaky_relu2-s0.8")
    assert (diverged["n"], diverged["n_diverged"], diverged["ranked"]) == (2, 1, False)
    failed = row_of_key(table, "leaky_relu2-s0.3")
    assert (failed["n"], failed["n_failed"], failed["ranked"]) == (2, 1, True)


def test_an_activation_without_a_score_is_a_row_without_a_mean():
    rows = [make_row("relu2", None, 1), make_row("asqu", None, 1, state="oom")]
    row = row_of_key(seed_stats(make_frame(rows), [STAGE]), "asqu")
    assert row["n"] == 0
    assert pd.isna(row["mean"])
    assert not row["ranked"]


def test_replicates_of_a_seed_count_once():
    again = make_row("asqu", None, 1, replicate=1, post_quant_bpb=3.0)
    rows = [make_row("asqu", None, 1, post_quant_bpb=2.0), again]
    row = seed_stats(make_frame(rows), [STAGE]).iloc[0]
    assert (row["n"], row["mean"]) == (1, 2.5)


def test_budgets_are_never_averaged_together():
    rows = [make_row("asqu", None, 1, budget_value=value) for value in (200.0, 1000.0)]
    assert seed_stats(make_frame(rows), [STAGE])["budget"].tolist() == ["1000 steps", "200 steps"]


def test_what_has_no_partner_gives_an_empty_frame_with_its_columns():
    frame = make_frame([make_row("leaky_relu2", 0.5, 1)])
    assert list(paired_stats(make_study(frame), STAGE)["mean"]) == []
    assert list(seed_stats(frame, ["pre_quant_sliding_bpb"])["mean"]) == []


def test_a_reference_that_has_not_run_has_no_pairs(cells):
    assert paired_differences(make_study(cells, reference="gelu"), STAGE).empty


def test_an_unknown_quantity_is_refused(cells):
    with pytest.raises(ConfigError, match="Scores: pre_quant_bpb"):
        seed_stats(cells, ["bpb"])
