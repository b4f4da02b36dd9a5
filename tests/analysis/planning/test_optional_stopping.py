"""The report of a sweep that stops when it knows says what was selected, and asks for no more."""

from dataclasses import replace

import pandas as pd
import pytest

from analysis.conclusions.contrasts import contrasts
from analysis.conclusions.decision import decide
from analysis.conclusions.sensitivity import sensitivity_sentences
from analysis.conclusions.slope_curve import slope_curves
from analysis.planning.noise import Noise
from analysis.planning.optional_stopping import stopping_sentences
from analysis.planning.power_tables import grid_cells
from analysis.planning.stopping_cost import stopping_cost
from analysis.report.report import make_report
from analysis.report.report_data import report_data
from analysis.rows.completeness import completeness_sentences
from analysis.rows.names import with_names
from analysis.rows.read import load_sweep
from analysis.stats.pairs import paired_stats
from analysis.study import Study
from sweep.cli.session import write_description
from sweep.driver.attempt_row import identity_columns
from sweep.store.schema import SCHEMA, TESTED
from sweep.store.store import Store
from tests.support.drivers import row_of
from tests.support.grids import cells_of, sweep_spec

pytestmark = pytest.mark.usefixtures("few_draws")

SPEC = sweep_spec(
    seeds=[4, 2, 3, 1],
    activations=[{"name": "relu2"}, {"name": "leaky_relu2", "slope": [0.0, 0.3, 0.5]}],
    until={"zone": 0.001},
)
SCORES = {"relu2": 2.1, "leaky_relu2-s0": 2.1, "leaky_relu2-s0.3": 2.0, "leaky_relu2-s0.5": 2.05}


def study_of(place, seeds, scores=SCORES):
    """The study of ``SPEC`` once ``seeds`` have run."""
    store, rows = Store(place), []
    with store.as_driver() as driver_id:
        for cell in cells_of(SPEC):
            if cell.spec.seed not in seeds:
                continue
            attempt = store.announce(cell.id, 1, {"driver": driver_id})
            score = scores[cell.spec.activation.label] + cell.spec.seed
            row = identity_columns(SPEC.name, cell) | row_of(attempt) | {TESTED[0]: score}
            store.commit(attempt, row | {"cell": cell.name})
            rows.append(dict.fromkeys(SCHEMA.names) | row)
    write_description(SPEC, store, cells_of(SPEC))
    frame = with_names(pd.DataFrame(rows))
    return Study(cells=frame, sweep=load_sweep(place, frame), reference_reruns=frame.iloc[:0])


def test_an_ended_sweep_says_who_is_selected_and_lacks_nothing(tmp_path):
    study = study_of(tmp_path / "test", (4, 2))
    first, *dropped, last = stopping_sentences(study)
    assert first == "After 2 seeds: LeakyReLU² 0.3 is selected. No other is better by 0.001 BPB."
    assert any(line.startswith("ReLU² (= LeakyReLU² 0.0): dropped") for line in dropped)
    assert "fixed beforehand" in last
    assert completeness_sentences(study.cells, study.sweep) == []
    assert study.sweep.num_cells == 8


def test_a_report_drawn_midway_says_so_and_asks_for_what_may_be_needed(tmp_path):
    study = study_of(tmp_path / "test", (4,))
    assert "none of it is a result" in stopping_sentences(study)[-1]
    assert study.sweep.num_cells == 16


def test_no_interval_is_made_after_stopping(tmp_path):
    """Those for a fixed number of seeds miss too often then, so none is printed."""
    study = study_of(tmp_path / "test", (4, 2))
    fixed = replace(study, sweep=replace(study.sweep, standing=None))
    assert contrasts(fixed)["unjudged"].isna().all()
    rows = contrasts(study)
    assert rows["resolved"].isna().all()
    assert rows[["half_width", "p_value", "nats_low", "record_p"]].isna().all(axis=None)
    assert "until the best was known" in decide(study)[0].sentence
    assert paired_stats(study, study.primary)[["half_width", "sign_flip_p"]].isna().all(axis=None)
    assert not any(line.startswith("Sign flips") for line in sensitivity_sentences(study))
    (curve,) = slope_curves(study, study.primary)
    assert curve.best is None
    assert "until the best was known" in curve.sentence()
    assert make_report(report_data(study)).verdict == next(iter(stopping_sentences(study)))


def test_any_other_sweep_says_nothing_of_it(tmp_path):
    study = study_of(tmp_path / "test", (4, 2))
    assert stopping_sentences(Study.of(study.cells, "relu2")) == []


def test_the_plan_says_what_it_costs_beside_the_grid_of_all_seeds():
    noise = Noise(noise_sd=0.0005, seed_sd=0.0007, source="a test")
    (table,) = stopping_cost(grid_cells(SPEC), SPEC, noise)
    *truths, whole = table.lines
    assert whole[1:3] == ("16", "16")  # two names of one function are two cells
    assert len(truths) == 3
    for _, mean, most, *_ in truths:
        assert 8 <= float(mean) <= float(most) <= 16
    coarse = SPEC.model_copy(update={"until": SPEC.until.model_copy(update={"zone": 0.1})})
    (cheap,) = stopping_cost(grid_cells(SPEC), coarse, noise)
    assert [line[1] for line in cheap.lines[:3]] == ["8"] * 3
    assert stopping_cost(grid_cells(SPEC), SPEC, None) == []
    assert stopping_cost(grid_cells(SPEC), SPEC.model_copy(update={"until": None}), noise) == []
