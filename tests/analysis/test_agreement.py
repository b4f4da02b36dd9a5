"""Summary, report and figures say the same of the same rows, however the sweep was blocked."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.conclusions.best_fixed import best_fixed
from analysis.conclusions.sensitivity import sensitivity_sentences
from analysis.conclusions.slope_curve import slope_curves
from analysis.costs.axis_survival import axis_survival
from analysis.costs.time_split import time_splits
from analysis.figures.figure_data import FigureData, optional
from analysis.report.report_data import report_data
from analysis.report.summary import write_summary
from analysis.rows.stages import PRIMARY
from analysis.stats.compare import compare
from analysis.study import read_study
from sweep.store.schema import SCHEMA
from tests.analysis.conftest import ACTIVATIONS, KEYS, REFERENCE, lost, make_row, write_store

pytestmark = pytest.mark.usefixtures("few_draws")

SECONDS = {"budget_kind": "seconds", "budget_value": 60.0}
ROUNDED = {"rtol": 1e-6, "atol": 1e-9}  # 0.05 is added and taken off again, in another order


def scores_of(row):
    return [name for name in row if name.endswith("_bpb") and row[name] is not None]


def on_node(row, node, adds):
    return row | {"node": node} | {name: row[name] + adds for name in scores_of(row)}


def blocked_by_node(folder, rows, *, adds):
    """Slopes from 0.6 on, and reruns of the reference, on node b, which adds ``adds`` to all."""
    moved = [
        on_node(row, "b", adds) if (row["slope"] or 0) > 0.55 else on_node(row, "a", 0.0)
        for row in rows
    ]
    place = write_store(folder, moved)
    again = [
        on_node(row, "b", adds) | {"replicate": 1, "cell_id": f"{row['cell_id']}-again"}
        for row in rows
        if row["slope"] == 0.5
    ]
    pq.write_table(pa.Table.from_pylist(again, schema=SCHEMA), place / "replicates.parquet")
    facts = {"name": "local", "reference": REFERENCE, "activations": KEYS, "pairing": "node"}
    (place / "sweep.json").write_text(json.dumps(facts), encoding="utf-8")
    return place


def timed(rows):
    """The same cells under seconds, in which larger slopes take fewer steps, and under steps."""
    steps = [row | {"steps": int(2000 * (1 - 0.02 * (row["slope"] or 0)))} for row in rows]
    return [*(row | SECONDS | {"cell_id": f"{row['cell_id']}s"} for row in steps), *rows]


@pytest.fixture(scope="module")
def on_two_nodes(rows, tmp_path_factory):
    """Two studies: of a node that adds nothing, and of one that adds 0.05."""
    folders = [tmp_path_factory.mktemp("nodes") / "results" / "local" for _ in range(2)]
    return [
        read_study(blocked_by_node(folder, timed(rows), adds=adds))
        for folder, adds in zip(folders, (0.0, 0.05), strict=True)
    ]


def assert_alike(one, other):
    pd.testing.assert_frame_equal(one, other, check_exact=False, **ROUNDED)


@pytest.mark.parametrize(
    "make",
    [
        lambda study: compare(study, PRIMARY),
        lambda study: best_fixed(study, PRIMARY),
        lambda study: time_splits(study, None, PRIMARY),
        lambda study: axis_survival(study, PRIMARY).drop(columns="sentence"),
    ],
    ids=["compare", "best_fixed", "time_splits", "axis_survival"],
)
def test_what_a_node_adds_changes_no_comparison(on_two_nodes, make):
    without, with_it = map(make, on_two_nodes)
    assert len(with_it)
    assert_alike(with_it, without)


def test_what_a_node_adds_moves_no_slope(on_two_nodes):
    one, other = (slope_curves(study, PRIMARY) for study in on_two_nodes)
    assert [curve.best for curve in one] == [curve.best for curve in other]
    assert [curve.best_set for curve in one] == [curve.best_set for curve in other]
    assert {curve.missing for curve in other} == {0}
    assert other[0].noise_sd == pytest.approx(one[0].noise_sd, rel=1e-6)


@pytest.mark.slow
def test_what_a_node_adds_changes_no_figure(on_two_nodes):
    drawn = [FigureData(next(iter(study.settings.values()))) for study in on_two_nodes]
    for name in ("contrasts", "paired"):
        assert_alike(getattr(drawn[0], name), getattr(drawn[1], name))
    # Unpaired seeds, the other design that is told of, would have what nodes add in their spread.
    paired = [found.resolution.here.query("design != 'unpaired'") for found in drawn]
    assert_alike(*paired)


def test_reruns_compare_and_are_in_no_mean(rows, tmp_path):
    """The mean that the decision prints is the mean of the table above it."""
    few = [row for row in rows if row["slope"] in (0.5, 0.9)]
    place = blocked_by_node(tmp_path / "results" / "local", few, adds=0.05)
    summary, _ = write_summary(read_study(place))
    section = summary.sections[0]
    (line,) = [line for line in section.lines if line[0] == "LeakyReLU² 0.5"]
    mean = line[section.headings.index("sliding (sd)")].split()[0]
    assert any(f"LeakyReLU² 0.5 ({mean} bits per byte" in s for s in summary.sentences)


def random_rows(seed):
    """A sweep with some of what goes wrong: cells that are missing, diverged, tainted or failed."""
    rng = np.random.default_rng(seed)
    some = [ACTIVATIONS[i] for i in sorted(rng.choice(len(ACTIVATIONS), 5, replace=False))]
    some = list(dict.fromkeys([*some, ("leaky_relu2", 0.5)]))
    rows = []
    for number in range(1, int(rng.integers(2, 6))):
        for kind, value in (("steps", 200.0), ("seconds", 60.0))[: int(seed % 2) + 1]:
            for name, slope in some:
                row = make_row(name, slope, number, budget_kind=kind, budget_value=value)
                row |= {key: row[key] + rng.normal(0, 0.003) for key in scores_of(row)}
                row["cell_id"] += kind
                fate = rng.choice(
                    ["here", "missing", "tainted", "diverged", "failed"],
                    p=[0.84, 0.04, 0.06, 0.03, 0.03],
                )
                if fate in ("diverged", "failed"):
                    row = lost(row, str(fate), "exit status 1")
                if fate == "tainted":
                    row |= {"tainted": True, "taint_reason": "a probe was slow"}
                if fate != "missing":
                    rows.append(row)
    return rows


# Every seed makes designs that were not seen before, and each is calibrated: seconds.
@pytest.mark.slow
@pytest.mark.parametrize("seed", [0])
def test_summary_report_and_figures_agree(seed, tmp_path):
    place = write_store(tmp_path / "results" / "local", random_rows(seed))
    facts = {"name": "local", "reference": REFERENCE, "pairing": ("seed", "node")[seed % 3 == 0]}
    (place / "sweep.json").write_text(json.dumps(facts), encoding="utf-8")
    summary, _ = write_summary(read_study(place))
    for setting in report_data(read_study(place)).settings:
        answer = setting.answer
        assert answer.decision.sentence in summary.sentences
        assert [
            sentence
            for sentence in sensitivity_sentences(setting.study)
            if not sentence.startswith("With ")  # the summary speaks of all settings together
            and sentence
            not in {said.replace(f" ({setting.name})", "") for said in summary.sentences}
        ] == []
        best = answer.best
        if best is not None and not pd.isna(best["resolved"]):
            assert answer.decision.resolved == bool(best["resolved"])
        drawn = optional(lambda: setting.figures.contrasts)  # noqa: B023
        if drawn is None:
            assert not answer.rows
            continue
        told = pd.DataFrame(answer.rows).sort_values("key").reset_index(drop=True)
        shown = drawn.sort_values("key").reset_index(drop=True)
        columns = ["key", "n", "difference", "half_width", "p_value", "comparisons", "noise_df"]
        pd.testing.assert_frame_equal(told[columns], shown[columns], check_dtype=False)
        assert list(told["resolved"].fillna(False)) == list(shown["resolved"].fillna(False))
        power = optional(lambda: setting.figures.resolution)  # noqa: B023
        if power is not None:
            assert power.here["noise_sd"].iloc[0] == pytest.approx(told["noise_sd"][0])
