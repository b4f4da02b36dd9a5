"""Claims about what is drawn of computed frames: every number is there, and nothing else is."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from analysis.figures.catalog import draw
from analysis.figures.figure_data import FigureData
from analysis.figures.panels import beta, fitted_curve, layer_measures, power, speed
from analysis.figures.panels.forest import Unranked, forest
from analysis.figures.panels.learning_curves import gap_over_steps
from analysis.figures.style import GREY, looks
from analysis.rows.learning_curves import (
    from_reference,
    over_seeds,
    validated,
    window_steps,
    windowed_loss,
)
from analysis.stats.seed_effects import without_seed
from tests.analysis.conftest import make_study
from tests.support.drawn import contrasts_of, curves_of, layers_of, paired_of, published_of

REFERENCE = "leaky_relu2-s0.5"


@pytest.fixture
def ax():
    return Figure().subplots()


@pytest.fixture(scope="module")
def differences(cells):
    return contrasts_of(cells)


@pytest.fixture(scope="module")
def curves(cells):
    return curves_of(cells)


@pytest.fixture(scope="module")
def layers(cells):
    return layers_of(cells)


def markers(ax, marker):
    return [line for line in ax.lines if line.get_marker() == marker]


def words(ax):
    return [text.get_text() for text in ax.texts]


def points(ax):
    found = [c.get_offsets() for c in ax.collections if isinstance(c, PathCollection)]
    return np.concatenate([np.asarray(offsets) for offsets in found])


def test_the_forest_has_every_difference_sorted_and_the_reference_at_zero(ax, differences):
    forest(differences, ax, reference="LeakyReLU² 0.5")
    shown = [line.get_xdata()[0] for line in markers(ax, "o")]
    assert shown == sorted(differences["difference"])
    labels = [label.get_text() for label in ax.get_yticklabels()]
    at = labels.index("LeakyReLU² 0.5 (reference)")
    assert at == (differences["difference"] < 0).sum()
    (diamond,) = markers(ax, "D")
    assert (diamond.get_xdata()[0], diamond.get_ydata()[0]) == (0, at)


def test_only_what_is_resolved_is_filled(ax, differences):
    forest(differences, ax, reference="r")
    filled = [to_hex(dot.get_markerfacecolor()) != "#ffffff" for dot in markers(ax, "o")]
    assert filled == differences.sort_values(["difference", "key"])["resolved"].tolist()
    assert any(filled)
    assert not all(filled)


def test_the_simultaneous_interval_is_thicker_than_the_interval_of_pairs_alone(ax, differences):
    paired = paired_of(differences)
    forest(differences, ax, reference="r", paired=paired)
    spans = {
        width: sorted(tuple(line.get_xdata()) for line in ax.lines if line.get_linewidth() == width)
        for width in (0.8, 2.6)
    }
    for width, frame in ((2.6, differences), (0.8, paired)):
        rows = frame.set_index("key").loc[differences["key"], ["low", "high"]]
        assert spans[width] == sorted(map(tuple, rows.to_numpy()))


def test_the_line_of_the_field_stands_at_five_thousandths_of_a_nat(ax, differences):
    forest(differences, ax, reference="r")
    dashed = [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == "--"]
    assert dashed == pytest.approx([-0.005 / 2.08])
    assert ax.get_xlim()[0] < dashed[0]


def test_what_is_off_the_scale_is_an_arrow_with_its_number(ax, differences):
    far = differences.assign(
        **{
            name: differences[name].where(differences["key"] != "relu2", 3.0)
            for name in ("difference", "low", "high")
        }
    )
    forest(far, ax, reference="r")
    (arrow,) = markers(ax, ">")
    assert ax.get_xlim()[1] < 0.1
    assert arrow.get_xdata()[0] < ax.get_xlim()[1]
    assert any(text.startswith("+3.0000") for text in words(ax))


def test_a_diverged_activation_has_a_cross_and_no_interval(ax, differences):
    rows = differences[differences["key"] != "relu2"]
    forest(rows, ax, reference="r", unranked=[Unranked("ReLU²", "1 of 3 seeds diverged")])
    assert "✕ 1 of 3 seeds diverged" in words(ax)
    assert ax.get_yticklabels()[-1].get_text() == "ReLU²"
    assert len(markers(ax, "o")) == len(rows)


def test_one_seed_has_dots_and_no_interval(ax, cells):
    rows = contrasts_of(cells[cells["seed"] == 1])
    forest(rows, ax, reference="r")
    assert not [line for line in ax.lines if line.get_linewidth() == 2.6]
    assert len(markers(ax, "o")) == len(rows)
    assert not any("±" in text for text in words(ax))


def test_a_window_is_the_mean_of_its_steps_and_an_unfinished_one_is_left_out(curves):
    short = curves[curves["step"] <= 95]
    means = windowed_loss(short, window=10)
    assert sorted(set(means["step"])) == [10 * i + 5.5 for i in range(9)]
    one = short[(short["key"] == "asqu") & (short["seed"] == 2)].set_index("step")["train_loss"]
    found = means[(means["key"] == "asqu") & (means["seed"] == 2)].set_index("step")["value"]
    assert found[15.5] == pytest.approx(one.loc[11:20].mean())
    assert window_steps(short, points=19) == 5


def test_differences_are_within_seeds(curves):
    """What is added to all activations of a seed changes no difference from the reference."""
    moved = curves.assign(train_loss=curves["train_loss"] + 10.0 * curves["seed"])
    one, other = (
        over_seeds(from_reference(windowed_loss(frame, window=8), REFERENCE))
        for frame in (curves, moved)
    )
    # Losses near 30 in double precision: a sum of 8 is off by 8 · 30 · 2⁻⁵³ at most, far below.
    np.testing.assert_allclose(one["value"], other["value"], atol=1e-12)
    assert REFERENCE not in set(one["key"])


def test_a_step_that_a_seed_lacks_has_no_mean(curves):
    stopped = curves[~((curves["seed"] == 1) & (curves["step"] > 200))]
    assert over_seeds(windowed_loss(stopped, window=8))["step"].max() < 200


def test_validation_is_a_point_where_it_was_done(curves):
    assert sorted(set(validated(curves)["step"])) == [100, 200, 300, 400]


def test_learning_curves_are_named_at_their_ends(ax, cells, curves):
    gaps = over_seeds(from_reference(windowed_loss(curves, window=8), REFERENCE))
    gap_over_steps(gaps, ax, look_of=looks(cells), reference="LeakyReLU² 0.5", unit="nats")
    names = set(cells["label"]) - {"LeakyReLU² 0.5"} | {"LeakyReLU² 0.5 (reference)"}
    assert set(words(ax)) == names
    assert "(nats)" in ax.get_ylabel()


def test_every_timed_cell_is_a_dot_and_nodes_are_told_apart(ax, frame_of, rows):
    timed = [{**row, "step_ms_p50": 80.0 + row["seed"], "node": f"n{row['seed']}"} for row in rows]
    cells = frame_of(timed)
    speed.by_activation(
        cells, ax, quantity="step_ms_p50", unit="ms", keys=sorted(set(cells["key"])),
        reference=REFERENCE,
    )  # fmt: skip
    assert sorted(points(ax)[:, 0]) == sorted(cells["step_ms_p50"])
    assert [handle.get_label() for handle in speed.node_handles(cells)] == ["n1", "n2", "n3"]
    assert len(set(speed.marks_of(cells).values())) == 3


def test_more_nodes_than_looks_are_pooled(frame_of, row_of):
    rows = [row_of("relu2", None, seed, node=f"node-{seed:02}") for seed in range(20)]
    names = list(speed.marks_of(frame_of(rows)))
    assert len(names) == 6
    assert "other nodes" in names


def test_beta_has_a_line_per_seed_and_the_line_where_it_began(ax, layers):
    beta.beta_by_layer(layers, ax, key="asqu", initial=0.25)
    medians = [line for line in ax.lines if line.get_marker() == "o"]
    assert len(medians) == 3
    assert [line.get_ydata()[0] for line in ax.lines if line.get_label() == "initial"] == [0.25]
    assert "initial 0.25" in words(ax)
    rows = layers[(layers["measure"] == "beta_q50") & (layers["key"] == "asqu")]
    drawn = np.concatenate([line.get_ydata() for line in medians])
    assert sorted(drawn) == pytest.approx(sorted(rows["value"]))


def test_the_power_curve_marks_the_grid_that_was_run(ax):
    curve = pd.DataFrame(
        [
            {"design": design, "n": n, "effect": scale / n**0.5, "power": 0.8}
            for design, scale in (("block", 0.004), ("unpaired", 0.04))
            for n in range(2, 9)
        ]
    )
    here = curve[(curve["n"] == 3)]
    power.effect_over_seeds(curve, ax, power=0.8, finished=here, field_effect=0.0024)
    (ring,) = (line for line in ax.lines if line.get_markersize() == 11)
    assert ring.get_xdata()[0] == 3
    assert ring.get_ydata()[0] == pytest.approx(0.004 / 3**0.5)
    assert "bits per byte" in ax.get_ylabel()
    assert ax.get_ylim()[0] < 0.004 / 8**0.5


def test_a_measure_is_drawn_for_every_cell(ax, cells, layers):
    rows = layers[(layers["measure"] == "density")]
    values = rows.groupby("cell_id")["value"].mean()
    layer_measures.measure_by_slope(cells, ax, values=values, title="t", unit="share")
    assert sorted(points(ax)[:, 1]) == pytest.approx(sorted(values))


def test_what_seeds_differ_by_moves_no_dot_of_the_scatter(cells, layers):
    """A constant added to all cells of a seed, in either direction, is taken off again."""
    known = cells.assign(quant_delta=cells["post_quant_bpb"] - cells["pre_quant_bpb"])
    rows = layers[layers["measure"] == "density"]
    values = rows.groupby("cell_id")["value"].mean()
    shift = known.set_index("cell_id")["seed"].astype(float)
    moved = known.assign(quant_delta=known["quant_delta"] + known["seed"])
    drawn = [
        points(
            layer_measures.against_delta(
                frame, Figure().subplots(), values=some, look_of=looks(cells), unit="share"
            )
        )
        for frame, some in ((known, values), (moved, values + shift))
    ]
    np.testing.assert_allclose(drawn[0], drawn[1], atol=1e-12)
    assert len(drawn[0]) == len(cells)


def test_a_missing_cell_does_not_move_the_effect_of_its_seed(cells):
    """Scores that are exactly additive come out alike over seeds, whatever is missing."""
    exact = cells.assign(score=cells["slope"].fillna(0.3) ** 2 + 0.1 * cells["seed"])
    partial = exact.drop(exact.index[[0, 13, 20]])
    left = without_seed(partial, "score")
    spread = left.groupby(partial["key"]).agg(lambda values: values.max() - values.min())
    assert spread.max() < 1e-12


def test_published_points_are_hollow_grey_and_named_by_pull_request(ax):
    rows = published_of(2.3)
    fitted_curve.published_over(rows, ax)
    assert len(ax.lines) == 2  # the one without a slope has no place on the axis
    assert {to_hex(line.get_color()) for line in ax.lines} == {GREY}
    assert {line.get_markerfacecolor() for line in ax.lines} == {"none"}
    names = [handle.get_label() for handle in fitted_curve.published_handles(rows)]
    assert names == ["published, PR #549", "published, PR #1035"]


def test_the_best_slope_is_drawn_with_its_set(ax):
    line = pd.DataFrame({"slope": [0.0, 0.5, 1.0], "fit": [2.0, 1.9, 2.0]})
    line = line.assign(low=line["fit"] - 0.01, high=line["fit"] + 0.01)
    curve = SimpleNamespace(
        line=line,
        best=0.48,
        best_set=((0.41, 0.55),),
        level=0.95,
        n=3,
        reason=None,
        fits=True,
        flat=False,
    )
    fitted_curve.fitted_curve(curve, ax)
    assert [tuple(bar.get_xdata()) for bar in ax.lines if bar.get_linewidth() == 5] == [
        (0.41, 0.55)
    ]
    assert [mark.get_xdata()[0] for mark in markers(ax, "^")] == [0.48]
    assert fitted_curve.best_words(curve) == "best slope 0.48 (95 % set 0.41–0.55)"
    curve.flat = True
    assert (
        fitted_curve.best_words(curve) == "fit lowest at 0.48; no effect of the slope is resolved"
    )


def test_the_initial_beta_is_the_parameter_of_the_activation(frame_of, row_of):
    cells = frame_of([row_of("asqu", None, 1, params_json=json.dumps({"init": 0.5}))])
    figure = draw("beta_by_layer", FigureData(make_study(cells), layers=layers_of(cells)))
    assert "initial 0.5" in words(figure.axes[0])
