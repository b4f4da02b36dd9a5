"""Claims about what measures of layers say of quantization: planted relations are found, and only
those; no claim is made that a relation found is a cause.
"""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from analysis.mechanism.associations import (
    CONSTANT,
    MEASURES,
    OUTCOMES,
    TOO_FEW,
    UNCONNECTED,
    association_sentences,
    associations,
)
from tests.analysis.conftest import make_frame, make_layers, make_rows, make_study
from trainer.contract import LAYER_MEASURES

DENSITY = MEASURES[0]


def with_weights(layers, *, names=("down_bank", "up_bank")):
    """``layers`` and the density of weights, which is noise."""
    kurtosis = layers[layers["name"] == "up_bank"]
    noise = [
        kurtosis.assign(name=name, measure="weight_density", value=kurtosis["value"] ** (i + 1))
        for i, name in enumerate(names)
    ]
    return pd.concat([layers, *noise])


def density_row(table):
    """The one row of the density of the hidden layer."""
    kind, name, what = DENSITY
    where = (table["kind"] == kind) & (table["name"] == name) & (table["measure"] == what)
    (row,) = table[where].to_dict("records")
    return row


def delta_of(frame, layers):
    """What that density says of the quantization delta."""
    return density_row(associations(make_study(frame), layers, ["quant_delta"]))


def density_of(layers):
    """The density of the hidden layer by cell_id, its mean over layers."""
    return layers[layers["measure"] == "density"].groupby("cell_id")["value"].mean()


def driven(layers, *, share=1.0):
    """Cells whose quantization delta follows the density of the hidden layer, and noise."""
    density = density_of(layers)
    rows = []
    for i, row in enumerate(make_rows()):
        noise = 0.0003 * np.random.default_rng(i).normal()
        delta = share * 0.2 * density[row["cell_id"]] + noise
        rows.append(row | {"post_quant_bpb": row["pre_quant_bpb"] + delta})
    return make_frame(rows)


def test_a_planted_relation_is_found_between_activations_and_named(layers):
    frame = driven(layers)
    row = delta_of(frame, layers)
    assert row["correlation"] > 0.95
    assert row["low"] < row["correlation"] < row["high"]
    assert row["survives"]
    assert (row["n"], row["seeds"], row["activations"]) == (33, 3, 11)  # ReLU² has two names
    sentence, _ = association_sentences(make_study(frame), layers)
    for words in ("as was asked beforehand", "density of mlp r = 1.00", "Between 11 activations"):
        assert words in sentence
    assert "no proof of a cause" in sentence


def test_the_correlation_is_pearsons_of_the_means_and_p_is_corrected_by_holm(layers):
    frame = driven(layers)
    table = associations(make_study(frame), with_weights(layers), ["quant_delta"])
    density = density_of(layers)
    cells = frame[frame["key"] != "leaky_relu2-s0"]
    x = cells["cell_id"].map(density)
    y = cells["post_quant_bpb"] - cells["pre_quant_bpb"]
    by_key = pd.DataFrame({"key": cells["key"], "x": x, "y": y}).groupby("key").mean()
    known = stats.pearsonr(by_key["x"], by_key["y"])
    row = density_row(table)
    assert row["correlation"] == pytest.approx(known.statistic, rel=1e-9)
    assert row["p_value"] == pytest.approx(known.pvalue, rel=1e-6)
    interval = known.confidence_interval(0.95)
    assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high), rel=1e-6)
    assert len(table) == len(MEASURES)
    assert list(table["p"]) == multipletests(table["p_value"], method="holm")[1].tolist()
    assert list(table["survives"]) == [True, False, False]
    assert table["p"].iloc[1:].between(0.05, 0.95).any()


def shifted(frame, layers):
    """Every seed moves all of its cells, and all of their measures."""
    by_seed = {1: 0.3, 2: -0.1, 3: 0.7}
    moved = frame["seed"].map(by_seed).astype(float)
    other = layers.assign(value=layers["value"] + layers["seed"].map(by_seed).astype(float))
    return frame.assign(post_quant_bpb=frame["post_quant_bpb"] + moved), other


def test_shifts_of_a_seed_and_the_order_of_rows_change_nothing(layers):
    frame, layers = driven(layers), with_weights(layers)
    one = associations(make_study(frame), layers, ["quant_delta"])
    for change in (shifted, lambda frame, layers: (frame[::-1], layers[::-1])):
        changed, measures = change(frame, layers)
        other = associations(make_study(changed), measures, ["quant_delta"])
        for column in ("correlation", "p", "low"):
            # Shifts of 0.7 on deltas whose left-overs are 3e-4 cost four of sixteen digits.
            np.testing.assert_allclose(other[column], one[column], rtol=1e-8, atol=1e-10)


def test_what_has_no_correlation_says_why(cells, layers):
    same = layers.assign(value=layers["value"].where(layers["measure"] != "density", 0.1))
    alone = cells[cells["key"] == "asqu"]
    apart = cells[(cells["seed"] == 1) == cells["key"].isin(["asqu", "leaky_relu2-s0.9"])]
    for frame, known, reason in (
        (cells, same, CONSTANT),
        (alone, layers, TOO_FEW),
        (apart[apart["seed"] != 3], layers, UNCONNECTED),
    ):
        row = delta_of(frame, known)
        assert row["reason"] == reason
        assert pd.isna([row["correlation"], row["p"], row["survives"]]).all()
    sentence, _ = association_sentences(make_study(alone), layers)
    assert "no measure can be held against it (too few activations, 1 activation)" in sentence


def test_effects_are_found_where_cells_are_missing_and_seeds_differ(layers):
    """Exactly additive measure and outcome: what is missing changes no correlation."""
    effect = {key: place for place, key in enumerate(sorted(set(layers["key"])))}
    added = layers["key"].map(effect) + 7.0 * layers["seed"].astype(float)
    exact = layers.assign(value=layers["value"].where(layers["measure"] != "density", added))
    rows = [
        row | {"post_quant_bpb": row["pre_quant_bpb"] + (effect[key] - 4) ** 2 + row["seed"]}
        for row, key in zip(make_rows(), make_frame(make_rows())["key"], strict=True)
    ]
    whole, holed = make_frame(rows), make_frame([*rows[:5], *rows[9:20], *rows[22:]])
    one, other = (delta_of(frame, exact) for frame in (whole, holed))
    assert other["n"] < one["n"]
    assert other["correlation"] == pytest.approx(one["correlation"], rel=1e-9)


def test_the_measures_are_those_that_the_trainer_takes():
    for kind, _, measure in MEASURES:
        assert LAYER_MEASURES[measure].kind == kind


def test_every_result_carries_its_footing(layers):
    rows = make_rows(pre_quant_sliding_bpb=2.2)
    table = (
        associations(make_study(make_frame(rows)), layers)
        .drop_duplicates("outcome")
        .set_index("outcome")
    )
    assert list(table.index) == list(OUTCOMES)
    assert list(table["window"].fillna(0)) == [128, 128, 0]
    assert list(table["stride"].fillna(0)) == [128, 32, 0]
    assert set(table["budget"]) == {"200 steps"}


def test_cells_without_measures_are_left_out_and_counted(layers):
    frame = driven(layers)
    some = layers[~layers["cell_id"].isin(["asqu-1", "leaky_relu2-s0.9-2"])]
    row = delta_of(frame, some)
    assert (row["n"], row["activations"]) == (31, 11)
    assert row["correlation"] > 0.9
    first, *_ = association_sentences(make_study(frame), some)
    assert "34 of 36 scored cells" in first
    (sentence,) = association_sentences(make_study(frame), layers.head(0))
    assert "No scored cell has measures" in sentence
    assert associations(make_study(frame), layers.head(0)).empty


def test_cells_that_are_not_scored_are_not_related(cells, layers):
    for tainted, left in ((1, 33), (2, 32)):  # the first one is counted by its other name
        frame = cells.assign(tainted=[*[True] * tainted, *[False] * (36 - tainted)])
        assert delta_of(frame, layers)["n"] == left


def test_two_settings_are_two_answers(layers):
    longer = [row | {"budget_value": 400.0, "cell_id": row["cell_id"] + "l"} for row in make_rows()]
    frame = make_frame([*make_rows(), *longer])
    table = associations(make_study(frame), make_layers(frame), ["quant_delta"])
    assert list(table["setting"]) == ["local, 200 steps", "local, 400 steps"]
    assert list(table["n"]) == [33, 33]
