"""Claims about means of measures over layers and seeds."""

import pytest
from scipy import stats

from analysis.mechanism.layer_tables import BETAS, beta_by_layer, layer_means, layer_table
from trainer.contract import LAYER_MEASURES


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
    assert layer_table(cells, layers.head(0)).empty


def test_quantiles_of_beta_are_there_for_what_learns_it(layers):
    assert set(BETAS) <= set(LAYER_MEASURES)
    table = beta_by_layer(layers)
    assert list(table.columns) == ["setting", "key", "label", "seed", "layer", *BETAS]
    assert set(table["key"]) == {"asqu"}
    assert len(table) == 3 * 2
    assert list(table["beta_q50"].head(2)) == pytest.approx([0.2, 0.3])
    assert table["beta_q05"].isna().all()
    assert beta_by_layer(layers.head(0)).empty
