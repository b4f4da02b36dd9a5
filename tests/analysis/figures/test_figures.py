"""Claims about the pictures: nothing measured is left out, and the caption says what it is.

Whether they are legible only an eye can tell; no test here claims that.
"""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import LineCollection, PathCollection

from analysis.__main__ import main
from analysis.conclusions.slope_curve import CONTRAST_LEVEL
from analysis.figures import catalog
from analysis.figures.by_slope import short_names
from analysis.figures.catalog import FIGURES, draw, save_figures
from analysis.figures.figure_data import FigureData
from analysis.rows.stages import PANELS
from analysis.stats.compare import compare
from analysis.stats.slopes import mean_slopes, placed
from analysis.study import read_study
from tests.analysis.conftest import make_frame, make_row, make_study
from trainer.config.config_errors import ConfigError

pytestmark = pytest.mark.usefixtures("few_draws")

# Drawn of the cells alone; what else there is needs files, step times or SLOT.
OF_CELLS = (
    *("slope_bpb", "slope_curve", "differences", "quant_delta", "ttt_gain"),
    *("artifact_bytes", "power"),
)


def dots(ax):
    """The places of all dots, as rows of x and y."""
    found = [c.get_offsets() for c in ax.collections if isinstance(c, PathCollection)]
    return np.concatenate(found)


def caption(figure):
    return " ".join(text.get_text() for text in figure.texts).replace("\n", " ")


@pytest.fixture(scope="module")
def drawn(study):
    names = ("slope_bpb", "quant_delta", "ttt_gain", "artifact_bytes")
    data = FigureData(study)
    return {name: draw(name, data) for name in names}


def save(place):
    return [Path(path) for path in save_figures(read_study(place))]


@pytest.fixture(scope="module")
def saved(store):
    """Two of the figures; saving all of them is for the slow tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog, "FIGURES", {n: FIGURES[n] for n in ("quant_delta", "power")})
        return save(store)


@pytest.mark.slow
def test_every_figure_is_saved_as_png_and_svg(store):
    saved = save(store)
    expected = {
        store / "figures" / f"{name}.{kind}" for name in OF_CELLS for kind in ("png", "svg")
    }
    assert set(saved) == expected
    assert all(path.stat().st_size > 10_000 for path in saved)


def test_the_same_cells_give_the_same_bytes(saved, store_of, rows, monkeypatch):
    monkeypatch.setattr(catalog, "FIGURES", {"quant_delta": FIGURES["quant_delta"]})
    again = {path.name: path.read_bytes() for path in save(store_of(rows))}
    assert len(again) == 2
    assert again.items() <= {path.name: path.read_bytes() for path in saved}.items()


def test_every_seed_of_every_activation_is_a_dot(cells, drawn):
    for ax, stage in zip(drawn["slope_bpb"].axes, PANELS, strict=True):
        assert sorted(dots(ax)[:, 1]) == sorted(cells[stage])
    assert drawn["slope_bpb"].axes[0].get_ylabel() == "bits per byte"


def test_a_name_with_dollars_is_drawn_as_it_stands(cells):
    named = cells.assign(setting=cells["setting"] + r" a$\frac$b")
    figure = draw("quant_delta", FigureData(make_study(named)))
    with figure.canvas.callbacks.blocked():
        figure.canvas.draw()
    assert r"a$\frac$b" in caption(figure)


def test_cells_without_a_score_have_no_dot_and_divergence_breaks_the_line(cells_with_losses):
    (ax,) = draw("quant_delta", FigureData(make_study(cells_with_losses))).axes
    assert len(dots(ax)) == 34
    marks = [line for line in ax.lines if line.get_marker() == "x"]
    assert [line.get_xdata()[0] for line in marks] == [0.8]
    (means,) = (line for line in ax.lines if line.get_linewidth() == 1.8)
    broken = [x for x, y in zip(means.get_xdata(), means.get_ydata(), strict=True) if np.isnan(y)]
    assert broken == [0.8]


def test_relu2_stands_at_zero_and_asqu_beside_the_axis(cells):
    places = placed(cells).drop_duplicates("key").set_index("key")
    assert places.loc["relu2", ["x", "role"]].tolist() == [0.0, "point"]
    assert places.loc["leaky_relu2-s0.9", "x"] == 0.9
    assert places.loc["asqu", "role"] == "off axis"
    assert places.loc["asqu", "x"] > 0.9


def test_what_was_learned_is_the_signed_root_of_beta(cells):
    learned = mean_slopes(cells)
    assert learned["mean"].tolist() == pytest.approx([0.48] * 3)
    assert learned["low"].tolist() == pytest.approx([np.sqrt(0.48**2 - 0.06)] * 3)
    negative = make_frame([make_row("asqu", None, 1, beta_mean=-0.04, beta_std=0.05)])
    row = mean_slopes(negative).iloc[0]
    assert list(row[["mean", "low", "high"]]) == pytest.approx([-0.2, -0.3, 0.1])


def test_a_slope_for_each_layer_and_xielu_stand_beside_the_axis():
    """The mean β of the first lies between its slopes, as one learned would; xIELU has none."""
    given = {"neg_beta": None, "params_json": '{"slopes":[0.3,0.6]}'}
    rows = [make_row("leaky_relu2", s, seed) for seed in (1, 2) for s in (0.3, 0.5)]
    for seed in (1, 2):
        betas = {"beta_mean": 0.225, "beta_std": 0.135}
        rows.append(make_row("leaky_relu2_layers", None, seed, **given, **betas))
        rows.append(make_row("xielu", None, seed, neg_beta=None, beta_mean=None, beta_std=None))
    cells = make_frame(rows)
    places = placed(cells).drop_duplicates("key").set_index("activation")
    assert places["role"].to_dict() == {
        "leaky_relu2": "curve",
        "leaky_relu2_layers": "off axis",
        "xielu": "off axis",
    }
    means = mean_slopes(cells)
    assert set(means["label"]) == {"LeakyReLU² by layer 0.3to0.6-f92f4c0c"}
    ends = means[["mean", "low", "high"]].to_numpy()
    assert ends == pytest.approx(np.array([[0.225**0.5, 0.3, 0.6]] * 2))


def test_the_delta_is_drawn_with_its_windows_and_unit(cells, drawn):
    (ax,) = drawn["quant_delta"].axes
    assert "bits per byte" in ax.get_ylabel()
    assert "contiguous" in ax.get_title(loc="left") + ax.get_title()
    expected = cells["post_quant_bpb"] - cells["pre_quant_bpb"]
    assert sorted(dots(ax)[:, 1]) == sorted(expected)


def test_the_cap_is_in_the_gauge_however_far_and_a_line_only_where_it_is_within_sight():
    for size, in_sight in ((412_000, False), (15_900_000, True)):
        sizes = (size, size - 150_000)
        cells = make_frame(
            [make_row("asqu", None, i, artifact_bytes=b) for i, b in enumerate(sizes)]
        )
        gauge, ax = draw("artifact_bytes", FigureData(make_study(cells))).axes
        assert ax.get_ylabel() == "artifact (kB)"
        assert any(line.get_label() == "cap" for line in ax.lines) == in_sight
        assert f"{16_000_000 - size:,} below the cap" in ax.get_title(loc="left")
        assert [line.get_xdata()[0] for line in gauge.lines if line.get_label() == "cap"] == [16.0]
        assert gauge.get_xlim()[1] > 16.0
        assert sorted(dots(gauge)[:, 0]) == pytest.approx(sorted(cells["artifact_bytes"] / 1e6))


def test_the_caption_says_n_interval_budget_recipe_cells_window_and_stride(drawn):
    for name, figure in drawn.items():
        level = "97.5" if name == "slope_bpb" else "95"
        for part in ("n = 3", f"simultaneous {level} %", "200 steps", "Recipe local", "36 of"):
            assert part in caption(figure), name
    assert "128 tokens, stride 128" in caption(drawn["quant_delta"])
    assert "stride 32" not in caption(drawn["quant_delta"])
    assert "128 tokens, stride 128" in caption(drawn["slope_bpb"])
    assert "128 tokens, stride 32" in caption(drawn["slope_bpb"])


def test_panels_that_share_an_axis_show_the_same_range(drawn):
    for left, right in np.reshape(drawn["slope_bpb"].axes, (2, 2)):
        assert left.get_ylim() == right.get_ylim()
        for ax in (left, right):
            assert ax.get_ylim()[0] < dots(ax)[:, 1].min()
            assert ax.get_ylim()[1] > dots(ax)[:, 1].max()


def test_a_partial_sweep_is_drawn_and_says_so(cells_with_losses):
    text = caption(draw("slope_bpb", FigureData(make_study(cells_with_losses.head(30)))))
    assert "28 of the sweep's 36" in text or "29 of the sweep's 36" in text
    assert "unequal seeds" in text


def test_one_seed_is_drawn_without_an_interval(cells):
    text = caption(draw("quant_delta", FigureData(make_study(cells[cells["seed"] == 1]))))
    assert "n = 1" in text
    assert "too few seeds" in text
    assert "grey bars" not in text


def test_a_bar_is_the_simultaneous_interval_of_a_difference_from_the_mean_of_the_reference(
    cells, study, drawn
):
    for ax, stage in zip(drawn["slope_bpb"].axes, PANELS, strict=True):
        (bars,) = (found for found in ax.collections if isinstance(found, LineCollection))
        base = cells.loc[cells["key"] == study.reference, stage].mean()
        ends = base + compare(study, stage, level=CONTRAST_LEVEL)[["low", "high"]].to_numpy()
        found = np.array([path.vertices[:, 1] for path in bars.get_paths()])
        np.testing.assert_allclose(np.sort(found, axis=0), np.sort(ends, axis=0))


def test_a_score_that_is_not_legal_is_drawn_and_not_compared(rows):
    cells = make_frame([{**row, "slot_bpb": 2.2, "slot_legal": False} for row in rows])
    (ax,) = draw("slot_gain", FigureData(make_study(cells))).axes
    assert len(dots(ax)) == len(cells)
    assert not [found for found in ax.collections if isinstance(found, LineCollection)]
    assert "not a legal score" in ax.get_title(loc="left")


def test_names_below_the_axis_are_short_and_no_two_of_different_activations_alike():
    profiles = ["0.3to0.6-f92f4c0c", "0.3to0.6-01ac77e2", "0.3to0.9-5b1d22aa"]
    names = ["ASQU", *(f"LeakyReLU² by layer {profile}" for profile in profiles)]
    names += ["RReLU² low 0.1 high 0.3", "RReLU² low 0.2 high 0.3", "RReLU² low 0.2 high 0.4"]
    short = short_names(names)
    assert short[0] == "ASQU"
    assert len(set(short)) == len(names)
    assert max(map(len, short)) <= 14


def test_a_stage_that_nobody_scored_is_an_empty_panel(rows):
    frame = make_frame([{**row, "ttt_bpb": None} for row in rows])
    figure = draw("slope_bpb", FigureData(make_study(frame)))
    assert "no score" in [text.get_text() for text in figure.axes[3].texts]


def test_each_budget_has_its_own_figures(store_of, rows, monkeypatch):
    monkeypatch.setattr(catalog, "FIGURES", {"quant_delta": FIGURES["quant_delta"]})
    two = [row for row in rows if row["slope"] in (0.3, 0.5)]
    longer = [{**row, "budget_value": 1000.0, "cell_id": row["cell_id"] + "-1000"} for row in two]
    names = {path.stem for path in save(store_of(two + longer))}
    assert names == {"quant_delta--local-200-steps", "quant_delta--local-1000-steps"}


def test_a_sweep_without_success_is_refused_before_anything_is_drawn(store_of, rows):
    folder = store_of([{**row, "state": "hung"} for row in rows])
    with pytest.raises(ConfigError, match="36 hung"):
        save_figures(read_study(folder))
    assert not (folder / "figures").exists()


def test_what_is_not_drawn_is_told_with_the_reason(store, monkeypatch, capsys):
    reasons = {
        "learning_curves": "no curve file",
        "mechanism": "no layer file",
        "pace": "no cell has a step time",
        "slot_gain": "no cell has both scores in windows known to be alike",
    }
    monkeypatch.setattr(catalog, "FIGURES", {name: FIGURES[name] for name in reasons})
    told = []
    assert save_figures(read_study(store), tell=told.append) == []
    assert told == [f"{name}: {reason}" for name, reason in reasons.items()]
    assert main(["figures", "--sweep", store.name, "--results", str(store.parent)]) == 0
    assert capsys.readouterr().out == "".join(f"not drawn: {line}\n" for line in told)


def test_a_figure_without_its_input_is_refused_with_the_reason(study):
    with pytest.raises(ConfigError, match="no place for layer files"):
        draw("mechanism", FigureData(study))
