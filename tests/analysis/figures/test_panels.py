"""Claims about what is drawn of computed frames: every number is there, and nothing else is."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from scipy import stats

from analysis.figures import slope_curve
from analysis.figures.beta import QUANTILES
from analysis.figures.catalog import draw
from analysis.figures.figure_data import FigureData, Resolution
from analysis.figures.speed import marks_of
from analysis.figures.style import GREY
from analysis.rows.learning_curves import (
    from_reference,
    over_seeds,
    validated,
    window_steps,
    windowed_loss,
)
from analysis.stats.seed_effects import without_seed
from sweep.spec.sweep_file import RecordRule
from tests.analysis.conftest import make_frame, make_row, make_study
from tests.support.drawn import contrasts_of, curves_of, layers_of, paired_of, published_of
from trainer.config.config_errors import ConfigError
from trainer.contract import LAYER_MEASURES

REFERENCE = "leaky_relu2-s0.5"


@pytest.fixture(scope="module")
def differences(cells):
    return contrasts_of(cells)


@pytest.fixture(scope="module")
def curves(cells):
    return curves_of(cells)


@pytest.fixture(scope="module")
def layers(cells):
    return layers_of(cells)


def drawn(name, cells, **known):
    """The axes of one figure."""
    return draw(name, FigureData(make_study(cells), **known)).axes


def forest(cells, rows, paired=None):
    known = {} if paired is None else {"paired": paired}
    return drawn("differences", cells, contrasts=rows, **known)[0]


def markers(ax, marker):
    return [line for line in ax.lines if line.get_marker() == marker]


def words(ax):
    return [text.get_text() for text in ax.texts]


def points(ax):
    found = [c.get_offsets() for c in ax.collections if isinstance(c, PathCollection)]
    return np.concatenate([np.asarray(offsets) for offsets in found])


def test_the_forest_has_every_difference_sorted_and_the_reference_at_zero(cells, differences):
    ax = forest(cells, differences)
    shown = [line.get_xdata()[0] for line in markers(ax, "o")]
    assert shown == sorted(differences["difference"])
    labels = [label.get_text() for label in ax.get_yticklabels()]
    at = labels.index("LeakyReLU² 0.5 (reference)")
    assert at == (differences["difference"] < 0).sum()
    (diamond,) = markers(ax, "D")
    assert (diamond.get_xdata()[0], diamond.get_ydata()[0]) == (0, at)


def test_only_what_is_resolved_is_filled(cells, differences):
    ax = forest(cells, differences)
    filled = [to_hex(dot.get_markerfacecolor()) != "#ffffff" for dot in markers(ax, "o")]
    assert filled == differences.sort_values(["difference", "key"])["resolved"].tolist()
    assert any(filled)
    assert not all(filled)


def test_the_simultaneous_interval_is_thicker_than_the_interval_of_pairs_alone(cells, differences):
    paired = paired_of(differences)
    ax = forest(cells, differences, paired)
    spans = {
        width: sorted(tuple(line.get_xdata()) for line in ax.lines if line.get_linewidth() == width)
        for width in (0.8, 2.6)
    }
    for width, frame in ((2.6, differences), (0.8, paired)):
        rows = frame.set_index("key").loc[differences["key"], ["low", "high"]]
        assert spans[width] == sorted(map(tuple, rows.to_numpy()))


def test_the_line_of_the_record_rule_stands_at_five_thousandths_of_a_nat(cells, differences):
    ax = forest(cells, differences)
    dashed = [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == "--"]
    assert dashed == pytest.approx([-0.005 / 2.08])
    assert ax.get_xlim()[0] < dashed[0]


def test_a_record_rule_without_a_margin_has_no_line(cells, differences):
    study = make_study(cells)
    sweep = replace(study.sweep, record_rule=RecordRule(nats=0.0))
    data = FigureData(replace(study, sweep=sweep), contrasts=differences)
    (ax, *_) = draw("differences", data).axes
    assert not [line for line in ax.lines if line.get_linestyle() == "--"]


def test_what_is_off_the_scale_is_an_arrow_with_its_number(cells, differences):
    far = differences.assign(
        **{
            name: differences[name].where(differences["key"] != "relu2", 3.0)
            for name in ("difference", "low", "high")
        }
    )
    ax = forest(cells, far)
    (arrow,) = markers(ax, ">")
    assert ax.get_xlim()[1] < 0.1
    assert arrow.get_xdata()[0] < ax.get_xlim()[1]
    assert any(text.startswith("+3.0000") for text in words(ax))


def test_a_diverged_activation_has_a_cross_and_no_interval(cells, differences):
    rows = differences[differences["key"] != "relu2"]
    diverged = (cells["key"] == "relu2") & (cells["seed"] == 1)
    ax = forest(cells.assign(state=cells["state"].mask(diverged, "diverged")), rows)
    assert "✕ 1 of 3 seeds diverged" in words(ax)
    assert ax.get_yticklabels()[-1].get_text() == "ReLU²"
    assert len(markers(ax, "o")) == len(rows)


def test_one_seed_has_dots_and_no_interval(cells):
    one = cells[cells["seed"] == 1]
    rows = contrasts_of(one)
    ax = forest(one, rows)
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


def test_an_interval_over_seeds_is_its_own_or_the_pooled_one_whichever_is_wider(curves):
    points = from_reference(windowed_loss(curves, window=100), REFERENCE)
    means = over_seeds(points).set_index(["key", "step"])["half_width"]
    here = points[points["step"] == points["step"].max()]
    spread = here.groupby("key")["value"].std()
    pooled = stats.t.ppf(0.975, 2 * len(spread)) * (spread**2).mean() ** 0.5
    expected = np.fmax(stats.t.ppf(0.975, 2) * spread, pooled) / 3**0.5
    np.testing.assert_allclose(means.xs(here["step"].max(), level="step"), expected, rtol=1e-9)
    assert over_seeds(points[points["seed"] == 1])["half_width"].isna().all()


def test_every_function_but_the_reference_has_a_panel_under_its_name_with_its_band(cells, curves):
    first, *panels = drawn("learning_curves", cells, curves=curves)
    assert "LeakyReLU² 0.5, the reference" in first.get_title(loc="left")
    names = [ax.get_title(loc="left") for ax in panels]
    others = ["0.1", "0.2", "0.3", "0.4", "0.6", "0.7", "0.8", "0.9"]
    slopes = [f"LeakyReLU² {slope}" for slope in others]
    assert names == ["ReLU² (= LeakyReLU² 0.0)", *slopes, "ASQU"]
    assert "bits per byte" in panels[0].get_ylabel()
    expected = over_seeds(from_reference(validated(curves), REFERENCE))
    for ax, key in zip(
        panels, ["relu2", *(f"leaky_relu2-s{s}" for s in others), "asqu"], strict=True
    ):
        (line,) = (line for line in ax.lines if line.get_marker() == "o")
        rows = expected[expected["key"] == key]
        np.testing.assert_allclose(line.get_ydata(), rows["value"])
        (band,) = ax.collections
        ends = {round(y, 9) for y in band.get_paths()[0].vertices[:, 1]}
        assert set((rows["value"] + rows["half_width"]).round(9)) <= ends


def test_learning_curves_without_validations_are_of_the_training_loss(cells, curves):
    unchecked = curves.assign(val_bpb=np.nan)
    _, *panels = drawn("learning_curves", cells, curves=unchecked)
    assert len(panels) == 10
    assert "nats per token" in panels[0].get_ylabel()


def test_learning_curves_of_the_reference_alone_are_not_drawn(cells, curves):
    """ReLU² and LeakyReLU²(0.0) are one function: their difference is zero and no answer."""
    alone = cells[cells["key"].isin(["relu2", "leaky_relu2-s0"])]
    study = make_study(alone, reference="relu2")
    with pytest.raises(ConfigError, match="only the reference has a learning curve"):
        draw("learning_curves", FigureData(study, curves=curves))


def test_where_no_interval_holds_learning_curves_have_no_band_and_say_why(
    cells, curves, differences
):
    known = {"curves": curves, "contrasts": differences.assign(unjudged="seeds were run on")}
    figure = draw("learning_curves", FigureData(make_study(cells), **known))
    ends = [band.get_paths() for ax in figure.axes for band in ax.collections]
    assert not any(path.vertices.size for paths in ends for path in paths)
    assert "No interval: seeds were run on." in " ".join(text.get_text() for text in figure.texts)


def test_every_timed_cell_is_a_dot_and_nodes_are_told_apart(rows):
    timed = [{**row, "step_ms_p50": 80.0 + row["seed"], "node": f"n{row['seed']}"} for row in rows]
    cells = make_frame(timed)
    figure = draw("pace", FigureData(make_study(cells)))
    assert sorted(points(figure.axes[0])[:, 0]) == sorted(cells["step_ms_p50"])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["n1", "n2", "n3"]
    assert len(set(marks_of(cells).values())) == 3


def test_more_nodes_than_looks_are_pooled():
    rows = [make_row("relu2", None, seed, node=f"node-{seed:02}") for seed in range(20)]
    names = list(marks_of(make_frame(rows)))
    assert len(names) == 6
    assert "other nodes" in names


def test_beta_has_a_line_per_seed_and_the_line_where_it_began():
    """The initial β is the parameter of the activation."""
    params = json.dumps({"init": 0.5})
    cells = make_frame([make_row("asqu", None, seed, params_json=params) for seed in (1, 2, 3)])
    layers = layers_of(cells)
    (ax,) = drawn("beta_by_layer", cells, layers=layers)
    medians = markers(ax, "o")
    assert len(medians) == 3
    assert [line.get_ydata()[0] for line in ax.lines if line.get_label() == "initial"] == [0.5]
    assert "initial 0.5" in words(ax)
    rows = layers[layers["measure"] == "beta_q50"]
    drawn_values = np.concatenate([line.get_ydata() for line in medians])
    assert sorted(drawn_values) == pytest.approx(sorted(rows["value"]))


def test_the_quantiles_of_beta_are_those_that_the_trainer_measures():
    assert set(QUANTILES) <= set(LAYER_MEASURES)


def test_the_power_curve_marks_the_grid_that_was_run(cells):
    curve = pd.DataFrame(
        [
            {"design": design, "n": n, "effect": scale / n**0.5, "power": 0.8}
            for design, scale in (("block", 0.004), ("unpaired", 0.04))
            for n in range(2, 9)
        ]
    ).assign(level=0.95, comparisons=11, noise_sd=0.002)
    here = curve[curve["n"] == 3]
    rule = {"record_effect": 0.0024, "record_nats": 0.004}
    found = Resolution(over_seeds=curve, here=here, curve=curve, **rule)
    ax, _ = drawn("power", cells, resolution=found)
    assert "0.004 nats per token" in words(ax)
    (ring,) = (line for line in ax.lines if line.get_markersize() == 11)
    assert ring.get_xdata()[0] == 3
    assert ring.get_ydata()[0] == pytest.approx(0.004 / 3**0.5)
    assert "bits per byte" in ax.get_ylabel()
    assert ax.get_ylim()[0] < 0.004 / 8**0.5


def density_of(layers):
    return layers[layers["measure"] == "density"].groupby("cell_id")["value"].mean()


def test_a_measure_is_drawn_for_every_cell(cells, layers):
    ax = drawn("mechanism", cells, layers=layers)[0]
    assert sorted(points(ax)[:, 1]) == pytest.approx(sorted(density_of(layers)))


def test_what_is_the_same_in_all_cells_is_said_and_has_no_panel(cells, layers):
    floored = layers["measure"] == "floored_rows"
    sound = layers.assign(value=layers["value"].mask(floored, 0.0))
    for name in ("mechanism", "mechanism_layers"):
        figure = draw(name, FigureData(make_study(cells), layers=sound))
        titles = [ax.get_title(loc="left") for ax in figure.axes]
        assert "Density of the hidden layer" in titles
        assert "Floored rows of the MLP" not in titles
        caption = " ".join(text.get_text() for text in figure.texts).replace("\n", " ")
        assert "Floored rows of the MLP: 0 in all cells." in caption


def test_what_seeds_differ_by_moves_no_dot_of_the_scatter(cells, layers):
    """A constant added to all cells of a seed, in either direction, is taken off again."""
    moved = cells.assign(post_quant_bpb=cells["post_quant_bpb"] + cells["seed"])
    shifted = layers.assign(value=layers["value"] + layers["seed"])
    one, other = (
        points(drawn("mechanism_delta", frame, layers=some)[0])
        for frame, some in ((cells, layers), (moved, shifted))
    )
    np.testing.assert_allclose(one, other, atol=1e-12)
    assert len(one) == len(cells)


def test_a_missing_cell_does_not_move_the_effect_of_its_seed(cells):
    """Scores that are exactly additive come out alike over seeds, whatever is missing."""
    exact = cells.assign(score=cells["slope"].fillna(0.3) ** 2 + 0.1 * cells["seed"])
    partial = exact.drop(exact.index[[0, 13, 20]])
    left = without_seed(partial, "score")
    spread = left.groupby(partial["key"]).agg(lambda values: values.max() - values.min())
    assert spread.max() < 1e-12


def test_published_points_are_hollow_grey_and_named_by_pull_request():
    rows, ax = published_of(2.3), Figure().subplots()
    slope_curve.published_over(rows, ax)
    assert len(ax.lines) == 2  # the one without a slope has no place on the axis
    assert {to_hex(line.get_color()) for line in ax.lines} == {GREY}
    assert {line.get_markerfacecolor() for line in ax.lines} == {"none"}
    names = [handle.get_label() for handle in slope_curve.published_handles(rows)]
    assert names == ["published, PR #549", "published, PR #1035"]


def test_the_best_slope_is_drawn_with_its_set():
    line = pd.DataFrame({"slope": [0.0, 0.5, 1.0], "fit": [2.0, 1.9, 2.0]})
    line = line.assign(low=line["fit"] - 0.01, high=line["fit"] + 0.01)
    facts = {"level": 0.95, "n": 3, "reason": None, "flat": False, "degree": 3}
    curve = SimpleNamespace(line=line, best=0.48, best_set=((0.41, 0.55),), **facts)
    ax = Figure().subplots()
    slope_curve.fitted_curve(curve, ax)
    bars = [tuple(bar.get_xdata()) for bar in ax.lines if bar.get_linewidth() == 5]
    assert bars == [(0.41, 0.55)]
    assert [mark.get_xdata()[0] for mark in markers(ax, "^")] == [0.48]
    assert slope_curve.best_words(curve) == "best slope 0.48 (95 % set 0.41–0.55)"
    curve.flat = True
    flat = "fit lowest at 0.48; no two slopes are resolved"
    assert slope_curve.best_words(curve) == flat
