"""Claims about what pairing bought: a ratio of what both designs resolve, or nothing."""

import re

import numpy as np
import pytest
import statsmodels.formula.api as smf
from statsmodels.stats.anova import anova_lm

from analysis.planning.noise import noise_of
from analysis.planning.pairing import pairing_sentences, seeds_p
from analysis.planning.power import Design, smallest_effect
from analysis.rows.stages import PRIMARY
from tests.analysis.conftest import make_row, make_study

NAMES = (("relu2", None), ("leaky_relu2", 0.3), ("leaky_relu2", 0.5), ("asqu", None))


def study_of(*, seed_sd, noise_sd=0.001, seeds=8, scale=1.0):
    rng, rows = np.random.default_rng(3), []
    for seed, adds in enumerate(rng.normal(0, 1, seeds), start=1):
        for name, slope in NAMES:
            score = 2.3 + seed_sd * adds + noise_sd * rng.normal()
            rows.append(make_row(name, slope, seed, **{PRIMARY: scale * score}))
    return make_study(rows)


def factor_of(study):
    (sentence,) = pairing_sentences(study)
    found = re.search(r"bought a factor of ([0-9.]+),", sentence)
    return None if found is None else float(found[1])


def test_the_factor_is_what_unpaired_seeds_resolve_over_what_paired_ones_do():
    study = study_of(seed_sd=0.003)
    noise = noise_of(study, "")
    unpaired = smallest_effect(Design("unpaired", 8, 4), noise.seed_sd)
    paired = smallest_effect(Design("pooled", 8, 4), noise.noise_sd)
    assert factor_of(study) == pytest.approx(unpaired / paired, rel=0.005)  # three digits


def test_pairing_buys_more_the_further_seeds_are_apart_and_nothing_where_they_are_not():
    near, far = (factor_of(study_of(seed_sd=sd)) for sd in (0.003, 0.03))
    assert far > 5 * near > 5
    (sentence,) = pairing_sentences(study_of(seed_sd=0.0))
    assert sentence.startswith(
        "Pairing by seed bought nothing that shows: what seeds add is not told"
    )


def test_the_p_of_seeds_is_that_of_the_f_test_in_the_block_model():
    study = study_of(seed_sd=0.0005)
    scores = study.cells[["key", "seed", PRIMARY]].astype({"seed": int})
    model = smf.ols(f"{PRIMARY} ~ C(key) + C(seed)", scores)
    expected = anova_lm(model.fit()).loc["C(seed)", "PR(>F)"]
    assert seeds_p(Design("pooled", 8, 4), noise_of(study, "")) == pytest.approx(expected, rel=1e-6)


def test_the_factor_has_no_unit():
    assert factor_of(study_of(seed_sd=0.003, scale=4.0)) == factor_of(study_of(seed_sd=0.003))


def test_one_seed_says_nothing():
    assert pairing_sentences(study_of(seed_sd=0.003, seeds=1)) == []
