"""Summary, report and figures say the same of the same rows, however the sweep was blocked."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.costs.axes import axis_survival
from analysis.costs.budgets import time_splits
from analysis.figures.inputs import given
from analysis.report.inputs import cases, load_inputs
from analysis.report.summary import write_summary
from analysis.rows.read import load_cells, load_replicates, load_sweep, settings
from analysis.rows.stages import PRIMARY
from analysis.stats.compare import contrasts
from analysis.stats.ranking import design_of, with_companions
from analysis.stats.sensitivity import beside_sentences
from analysis.stats.slope_curve import best_fixed, slope_curves
from sweep.store.schema import SCHEMA
from tests.analysis.conftest import ACTIVATIONS, KEYS, REFERENCE, lost, make_row, write_store

SECONDS = {"budget_kind": "seconds", "budget_value": 60.0}
ROUNDED = {"rtol": 1e-6, "atol": 1e-9}  # 0.05 is added and taken off again, in another order


def scores_of(row):
    return [name for name in row if name.endswith("_bpb") and row[name] is not None]


def on_node(row, node, adds):
    return row | {"node": node} | {name: row[name] + adds for name in scores_of(row)}


def blocked_by_node(folder, rows, *, adds):
    """Slopes from 0.6 on moved to node b, which adds ``adds`` to every score; companions went."""
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
    """(cells, compared, sweep, place): a node that adds nothing, and one that adds 0.05."""
    found = []
    for adds in (0.0, 0.05):
        folder = tmp_path_factory.mktemp("nodes") / "results" / "local"
        place = blocked_by_node(folder, timed(rows), adds=adds)
        cells = load_cells(place)
        sweep = load_sweep(place, cells)
        compared = with_companions(cells, load_replicates(place), sweep)
        found.append((cells, compared, sweep, place))
    return found


def assert_alike(one, other):
    pd.testing.assert_frame_equal(one, other, check_exact=False, **ROUNDED)


@pytest.mark.parametrize(
    "compare",
    [
        lambda frame, **design: contrasts(frame, PRIMARY, REFERENCE, **design),
        lambda frame, **design: best_fixed(frame, PRIMARY, **design),
        lambda frame, **design: time_splits(frame, None, PRIMARY, REFERENCE, **design),
        lambda frame, **design: axis_survival(frame, PRIMARY, REFERENCE, **design).drop(
            columns="sentence"
        ),
    ],
    ids=["contrasts", "best_fixed", "time_splits", "axis_survival"],
)
def test_what_a_node_adds_changes_no_comparison(on_two_nodes, compare):
    (_, without, sweep, _), (_, with_it, _, _) = on_two_nodes
    found = compare(with_it, design=design_of(sweep))
    assert len(found)
    assert_alike(found, compare(without, design=design_of(sweep)))


def test_what_a_node_adds_moves_no_slope(on_two_nodes):
    (_, without, sweep, _), (_, with_it, _, _) = on_two_nodes
    one, other = (
        slope_curves(frame, PRIMARY, design=design_of(sweep)) for frame in (without, with_it)
    )
    assert [curve.best for curve in one] == [curve.best for curve in other]
    assert [curve.best_set for curve in one] == [curve.best_set for curve in other]
    assert {curve.missing for curve in other} == {0}
    assert other[0].noise_sd == pytest.approx(one[0].noise_sd, rel=1e-6)


@pytest.mark.slow
def test_what_a_node_adds_changes_no_figure(on_two_nodes):
    names = ("contrasts", "paired", "power")
    drawn = []
    for cells, _, sweep, place in on_two_nodes:
        here = cells[cells["setting"] == settings(cells)[0]]
        drawn.append(given(here, sweep, names, place=place))
    for name in ("contrasts", "paired"):
        assert_alike(getattr(drawn[0], name), getattr(drawn[1], name))
    # Unpaired seeds, the other design that is told of, would have what nodes add in their spread.
    paired = [found.power.here.query("design != 'unpaired'") for found in drawn]
    assert_alike(*paired)


def test_companions_compare_and_are_in_no_mean(rows, tmp_path):
    """The mean that the verdict prints is the mean of the table above it."""
    few = [row for row in rows if row["slope"] in (0.5, 0.9)]
    place = blocked_by_node(tmp_path / "results" / "local", few, adds=0.05)
    summary, _ = write_summary(place)
    section = summary.sections[0]
    (line,) = [line for line in section.lines if line[0] == "LeakyReLU² 0.5"]
    entry = line[section.headings.index("sliding")]
    assert any(f"LeakyReLU² 0.5 ({entry} bits per byte" in s for s in summary.sentences)


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
@pytest.mark.parametrize("seed", range(4))
def test_summary_report_and_figures_agree(seed, tmp_path):
    place = write_store(tmp_path / "results" / "local", random_rows(seed))
    facts = {"name": "local", "reference": REFERENCE, "pairing": ("seed", "node")[seed % 3 == 0]}
    (place / "sweep.json").write_text(json.dumps(facts), encoding="utf-8")
    summary, _ = write_summary(place)
    for case in cases(load_inputs(place)):
        assert case.answer.verdict.sentence in summary.sentences
        assert [
            sentence
            for sentence in beside_sentences(case.compared, case.sweep)
            if not sentence.startswith("With ")  # the summary speaks of all settings together
            and sentence not in {said.replace(f" ({case.name})", "") for said in summary.sentences}
        ] == []
        best = case.answer.best
        if best is not None and not pd.isna(best["resolved"]):
            assert case.answer.verdict.resolved == bool(best["resolved"])
        drawn = case.known.contrasts
        if drawn is None:
            assert not case.answer.rows
            continue
        told = pd.DataFrame(case.answer.rows).sort_values("key").reset_index(drop=True)
        shown = drawn.sort_values("key").reset_index(drop=True)
        columns = ["key", "n", "difference", "half_width", "p_value", "comparisons", "noise_df"]
        pd.testing.assert_frame_equal(told[columns], shown[columns], check_dtype=False)
        assert list(told["resolved"].fillna(False)) == list(shown["resolved"].fillna(False))
        if case.known.power is not None:
            assert case.known.power.here["noise_sd"].iloc[0] == pytest.approx(told["noise_sd"][0])


def test_the_design_follows_from_the_sweep(sweep):
    assert design_of(sweep).pairing == "seed"
    assert design_of(dataclasses.replace(sweep, pairing="node")).anchor == REFERENCE
