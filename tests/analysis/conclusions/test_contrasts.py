"""Claims about the two families of differences from the reference, and how they share the error.

That each holds its level is claimed by the tests of compare and of the slope curve, and measured
by benchmarks/slope_coverage.py.
"""

import pytest

from analysis.conclusions.contrasts import contrasts, mean_level
from analysis.conclusions.slope_curve import slope_curves
from analysis.stats.compare import compare
from tests.analysis.conftest import make_graded, make_study

STAGE = "post_quant_sliding_bpb"


def test_the_two_families_spend_five_percent_together():
    study = make_graded(lambda slope: 0.0)
    assert 2 * (1 - mean_level(study)) == pytest.approx(0.05)
    rows = contrasts(study, STAGE).set_index("key")
    asqu = compare(study, STAGE, level=0.975).set_index("key").loc["asqu"]
    assert not rows.loc["asqu", "along_curve"]
    assert rows.loc["asqu", "half_width"] == pytest.approx(asqu["half_width"])
    assert rows.loc["asqu", "p_value"] == pytest.approx(min(1, 2 * asqu["p_value"]))


def test_few_slopes_or_a_reference_off_the_curve_leave_all_of_it_to_means():
    few = make_graded(lambda slope: 0.0, slopes=(0.1, 0.3, 0.5, 0.9))
    assert mean_level(few) == 0.95
    assert not contrasts(few, STAGE)["along_curve"].any()
    learned = make_study(make_graded(lambda slope: 0.0).cells, reference="asqu")
    assert mean_level(learned) == 0.95
    rows = contrasts(learned, STAGE)
    assert rows["half_width"].tolist() == compare(learned, STAGE)["half_width"].tolist()


def test_a_smooth_curve_resolves_what_means_alone_do_not():
    study = make_graded(lambda slope: 0.02 * (slope - 0.2) ** 2, noise=0.0003)
    rows = contrasts(study, STAGE).set_index("key")
    means = compare(study, STAGE, level=0.975).set_index("key")
    assert rows["resolved"].sum() > means["resolved"].sum()
    gained = rows.index[rows["resolved"] & ~means["resolved"].astype(bool)]
    assert rows.loc[gained, "along_curve"].all()
    (curve,) = slope_curves(study, STAGE)
    along = curve.contrasts.set_index("key")
    assert rows.loc[gained, "difference"].tolist() == along.loc[gained, "difference"].tolist()


def test_a_slope_that_stands_alone_is_found_by_its_mean():
    study = make_graded(lambda slope: -0.03 * (slope == 0.3), noise=0.0005)
    row = contrasts(study, STAGE).set_index("key").loc["leaky_relu2-s0.3"]
    assert row["resolved"]
    assert row["difference"] == pytest.approx(-0.03, abs=0.005)


def test_a_slope_shows_the_narrower_interval_where_both_or_neither_resolve_it():
    study = make_graded(lambda slope: 0.0)
    rows = contrasts(study, STAGE).set_index("key")
    means = compare(study, STAGE, level=0.975).set_index("key")["half_width"]
    (curve,) = slope_curves(study, STAGE)
    along = curve.contrasts.set_index("key")["half_width"]
    assert not rows["resolved"].any()
    for key in along.index:
        assert rows.loc[key, "half_width"] == pytest.approx(min(means[key], along[key]))
