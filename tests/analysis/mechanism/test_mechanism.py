"""Claims about what measures of layers say of quantization: planted relations are found, and only
those; no claim is made that a relation found is a cause.
"""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats

from analysis.mechanism.measures import (
    ASKED,
    NOT_TESTED,
    OUTCOMES,
    mechanism_sentences,
    relations,
    slope_relations,
)
from analysis.models.partial_correlation import CONSTANT, TOO_FEW
from analysis.rows.layers import BETAS, beta_by_layer, layer_means, layer_table
from tests.analysis.conftest import make_frame, make_layers, make_rows
from trainer.config.config_errors import ConfigError
from trainer.contract import LAYER_MEASURES

DENSITY = ("activation", "mlp", "density")


def of(table, outcome, kind, name, measure):
    """The one row of that outcome and measure."""
    where = (table["outcome"] == outcome) & (table["kind"] == kind)
    (row,) = table[where & (table["name"] == name) & (table["measure"] == measure)].to_dict(
        "records"
    )
    return row


def driven(layers, *, by=DENSITY, share=1.0):
    """Cells whose quantization delta follows a measure, and noise."""
    means = layer_means(layers).set_index("cell_id")
    kind, name, measure = by
    chosen = means[(means["kind"] == kind) & (means["name"] == name)]
    value = chosen.loc[chosen["measure"] == measure, "value"]
    rows = []
    for i, row in enumerate(make_rows()):
        noise = 0.0003 * np.random.default_rng(i).normal()
        delta = share * 0.2 * value[row["cell_id"]] + noise
        rows.append(row | {"post_quant_bpb": row["pre_quant_bpb"] + delta})
    return make_frame(rows)


def test_a_planted_relation_is_found_between_activations_and_named(layers):
    frame = driven(layers)
    row = of(relations(frame, layers), "quant_delta", *DENSITY)
    assert row["between"] > 0.95
    assert row["between_low"] < row["between"] < row["between_high"]
    assert row["survives"]
    assert (row["n"], row["seeds"], row["activations"]) == (33, 3, 11)  # ReLU² has two names
    assert (row["df"], row["between_df"], row["within_df"]) == (33 - 4, 11 - 2, 33 - 14)
    asked, sentence = mechanism_sentences(frame, layers, ["quant_delta"])
    assert "as was asked beforehand" in asked
    assert "density of mlp" in asked
    assert "density of mlp" in sentence
    assert "between 11 activations" in sentence
    assert "no proof of a cause" in sentence


def test_where_the_outcome_is_noise_nothing_is_found_and_that_is_said(layers):
    frame = driven(layers, share=0.0)
    _, sentence = mechanism_sentences(frame, layers, ["quant_delta"])
    assert "no measure of the weights is associated with it between 11 activations" in sentence
    # of density and kurtosis: the kurtosis of the embedding is constant, bytes are tested elsewhere
    assert "correction over 3 measures" in sentence


def test_the_numbers_are_those_of_the_linear_model(layers):
    frame = driven(layers)
    row = of(relations(frame, layers), "quant_delta", *DENSITY)
    means = layer_means(layers)
    density = means[means["measure"] == "density"].set_index("cell_id")["value"]
    cells = frame[frame["key"] != "leaky_relu2-s0"]
    x = cells["cell_id"].map(density).to_numpy()
    y = (cells["post_quant_bpb"] - cells["pre_quant_bpb"]).to_numpy()
    seeds = pd.get_dummies(cells["seed"]).to_numpy(dtype=float)
    assert row["p_cells"] == pytest.approx(
        sm.OLS(y, np.column_stack([seeds, x])).fit().pvalues[-1], rel=1e-6
    )
    by_key = pd.DataFrame({"key": cells["key"], "x": x, "y": y}).groupby("key").mean()
    known = stats.pearsonr(by_key["x"], by_key["y"])
    assert row["between"] == pytest.approx(known.statistic, rel=1e-9)
    assert row["between_p"] == pytest.approx(known.pvalue, rel=1e-6)


def shifted(frame, layers):
    """Every seed moves all of its cells, and all of their measures."""
    by_seed = {1: 0.3, 2: -0.1, 3: 0.7}
    moved = frame["seed"].map(by_seed).astype(float)
    other = layers.assign(value=layers["value"] + layers["seed"].map(by_seed).astype(float))
    return frame.assign(post_quant_bpb=frame["post_quant_bpb"] + moved), other


@pytest.mark.parametrize("change", [shifted, lambda frame, layers: (frame[::-1], layers[::-1])])
def test_shifts_of_a_seed_and_the_order_of_rows_change_no_relation(layers, change):
    frame = driven(layers)
    one = relations(frame, layers, ["quant_delta"])
    other = relations(*change(frame, layers), ["quant_delta"])
    for column in ("correlation", "between", "within", "p", "p_within", "low", "within_high"):
        # Shifts of 0.7 on deltas whose left-overs are 3e-4 cost four of sixteen digits.
        np.testing.assert_allclose(other[column], one[column], rtol=1e-8, atol=1e-10)


def test_a_measure_that_is_the_same_everywhere_has_no_relation_and_says_why(cells, layers):
    row = of(relations(cells, layers), "quant_delta", "tensor", "embed", "kurtosis")
    assert pd.isna([row["correlation"], row["between"], row["within"], row["p"]]).all()
    assert row["reason"] == CONSTANT
    assert pd.isna(row["survives"])


def test_a_hundred_measures_are_related_without_a_warning(cells, layers):
    """Warnings are errors here; pandas warns of frames that are made column by column."""
    kurtosis = layers[(layers["name"] == "embed") & (layers["measure"] == "kurtosis")]
    many = pd.concat([kurtosis.assign(name=f"embed {i}") for i in range(120)])
    assert len(relations(cells, many, ["quant_delta"])) == 120


def test_bytes_of_a_class_are_shown_beside_the_artifacts_and_not_tested(cells, layers):
    table = relations(cells, layers)
    row = of(table, "artifact_bytes", "class", "matrix", "compressed_bytes")
    assert row["between"] == pytest.approx(1.0)
    assert pd.isna(row["p"])
    assert row["reason"] == NOT_TESTED
    assert of(table, "quant_delta", "class", "matrix", "compressed_bytes")["p"] <= 1
    sentences = mechanism_sentences(cells, layers, ["artifact_bytes"])
    assert not any("compressed" in sentence for sentence in sentences)


def test_what_was_asked_beforehand_is_corrected_among_itself_alone(cells, layers):
    table = relations(cells, layers, ["quant_delta"])
    asked = table[table["p_asked"].notna()]
    assert set(asked[["kind", "name", "measure"]].itertuples(index=False, name=None)) <= set(ASKED)
    assert list(asked["p_asked"]) == list(asked["between_p"])  # of three, this sweep has one
    assert (asked["p_asked"] < asked["p"]).all()


def test_what_was_asked_is_what_the_trainer_measures():
    for kind, _, measure in ASKED:
        assert LAYER_MEASURES[measure].kind == kind
    assert set(BETAS) <= set(LAYER_MEASURES)


def test_every_result_carries_its_footing(cells, layers):
    rows = make_rows(pre_quant_sliding_bpb=2.2)
    table = relations(make_frame(rows), layers).drop_duplicates("outcome").set_index("outcome")
    assert list(table.index) == list(OUTCOMES)
    assert list(table["window"].fillna(0)) == [128, 128, 0, 0]
    assert list(table["stride"].fillna(0)) == [128, 32, 0, 0]
    assert set(table["level"]) == {0.95}
    assert set(table["budget"]) == {"200 steps"}


def test_one_activation_says_nothing_between_activations(cells, layers):
    alone = cells[cells["key"] == "asqu"]
    row = of(relations(alone, layers), "quant_delta", *DENSITY)
    assert row["activations"] == 1
    assert row["reason"] == TOO_FEW
    assert pd.isna([row["between"], row["correlation"], row["within"]]).all()
    (sentence,) = mechanism_sentences(alone, layers, ["quant_delta"])
    assert "no measure can be held against it (too few values" in sentence
    assert "1 activation" in sentence


def test_cells_without_measures_are_left_out_and_counted(layers):
    frame = driven(layers)
    some = layers[~layers["cell_id"].isin(["asqu-1", "leaky_relu2-s0.9-2"])]
    row = of(relations(frame, some), "quant_delta", *DENSITY)
    assert (row["n"], row["activations"]) == (31, 11)
    assert row["between"] > 0.9
    first, *_ = mechanism_sentences(frame, some, ["quant_delta"])
    assert "34 of 36 scored cells" in first


def test_without_any_measures_one_sentence_says_so(cells, layers):
    (sentence,) = mechanism_sentences(cells, layers.head(0))
    assert "No scored cell has measures" in sentence
    assert relations(cells, layers.head(0)).empty
    assert slope_relations(cells, layers.head(0)).empty
    assert beta_by_layer(layers.head(0)).empty
    assert layer_table(cells, layers.head(0)).empty


def test_unequal_footing_is_refused(cells, layers):
    with pytest.raises(ConfigError, match="stride"):
        relations(cells.assign(stride=[64, *[32] * 35]), layers)


def test_cells_that_are_not_scored_are_not_related(cells, layers):
    tainted = cells.assign(tainted=[True, *[False] * 35])
    assert of(relations(tainted, layers), "quant_delta", *DENSITY)["n"] == 33  # by its other name
    both = cells.assign(tainted=[True, True, *[False] * 34])
    assert of(relations(both, layers), "quant_delta", *DENSITY)["n"] == 32


def test_a_mean_over_layers_is_that_of_the_layers_that_have_one(layers):
    gone = layers.assign(value=layers["value"].mask(layers["layer"] == 1))
    means = layer_means(gone)
    density = means[(means["cell_id"] == "asqu-1") & (means["measure"] == "density")].iloc[0]
    first = gone[(gone["cell_id"] == "asqu-1") & (gone["measure"] == "density")]["value"].iloc[0]
    assert (density["value"], density["num_layers"]) == (first, 1)


def test_layers_have_t_intervals_over_seeds(cells, layers):
    table = layer_table(cells, layers)
    row = table[(table["key"] == "asqu") & (table["measure"] == "density")].iloc[1]
    here = (layers["key"] == "asqu") & (layers["measure"] == "density") & (layers["layer"] == 1)
    values = layers.loc[here, "value"]
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (row["layer"], row["n"]) == (1, 3)
    assert (row["low"], row["high"]) == pytest.approx((low, high), rel=1e-9)
    assert table.loc[table["name"] == "embed", "layer"].isna().all()


def test_quantiles_of_beta_are_there_for_what_learns_it(layers):
    table = beta_by_layer(layers)
    assert list(table.columns) == ["setting", "key", "label", "seed", "layer", *BETAS]
    assert set(table["key"]) == {"asqu"}
    assert len(table) == 3 * 2
    assert list(table["beta_q50"].head(2)) == pytest.approx([0.2, 0.3])
    assert table["beta_q05"].isna().all()


def through(frame, layers, change):
    """The share of the slope with and without a measure that is made of slope and noise."""
    slope = frame["neg_beta"].astype(float) ** 0.5
    noise = np.random.default_rng(2).normal(size=(2, len(frame)))
    measure = change(slope, 0.05 * noise[0])
    delta = 0.01 * measure + 0.0001 * noise[1]
    made = layers[(layers["measure"] == "density") & (layers["layer"] == 0)]
    values = dict(zip(frame["cell_id"], measure, strict=True))
    made = made.assign(value=made["cell_id"].map(values))
    given = frame.assign(post_quant_bpb=frame["pre_quant_bpb"] + delta)
    return of(slope_relations(given, made), "quant_delta", *DENSITY), given, made


def test_a_slope_that_acts_through_the_measure_says_little_beyond_it(cells, layers):
    fixed = cells[cells["neg_beta"].notna() & (cells["key"] != "relu2")]
    row, given, made = through(fixed, layers, lambda slope, noise: slope + noise)
    assert row["share"] > 0.9
    assert row["share_given"] < 0.1
    assert row["share_of_measure"] > 0.9
    assert (row["n"], row["slopes"]) == (30, 10)
    y = (given["post_quant_bpb"] - given["pre_quant_bpb"]).to_numpy()
    x = given["neg_beta"].astype(float).to_numpy() ** 0.5
    m = given["cell_id"].map(made.set_index("cell_id")["value"]).to_numpy(dtype=float)
    seeds = pd.get_dummies(given["seed"]).to_numpy(dtype=float)
    fits = [sm.OLS(y, np.column_stack([seeds, m, *more])).fit() for more in ([], [x])]
    assert row["share_given"] == pytest.approx(1 - fits[1].ssr / fits[0].ssr, rel=1e-6)
    assert row["effect_given"] == pytest.approx(fits[1].params[-1], rel=1e-6)


def test_a_measure_that_is_the_slope_cannot_be_told_from_it(cells, layers):
    fixed = cells[cells["neg_beta"].notna() & (cells["key"] != "relu2")]
    row, *_ = through(fixed, layers, lambda slope, noise: 3 * slope - 1)
    assert row["share"] > 0.9
    assert pd.isna(row["share_given"])
    assert pd.isna(row["share_of_measure"])


def test_two_settings_are_two_answers(layers):
    longer = [row | {"budget_value": 400.0, "cell_id": row["cell_id"] + "l"} for row in make_rows()]
    frame = make_frame([*make_rows(), *longer])
    table = relations(frame, make_layers(frame), ["quant_delta"])
    assert list(table["setting"].unique()) == ["local, 200 steps", "local, 400 steps"]
    assert set(table["n"]) <= {33, 3}  # 3: quantiles of what learns its β
