"""Claims about the split of a difference at equal time, and about the speed of nodes.

The planted sweeps follow the models that are fitted; that real runs do is not claimed.
"""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis.costs.node_speed import node_effects, node_sentences
from analysis.costs.time_split import time_splits
from analysis.stats.compare import compare
from tests.analysis.conftest import make_frame, make_row, make_study

STAGE = "post_quant_sliding_bpb"
REFERENCE = "leaky_relu2-s0.5"
GAMMA = -0.2  # BPB per log step
PER_STEP = {"leaky_relu2-s0.5": 0.0, "leaky_relu2-s0.9": -0.01, "asqu": -0.004}
SPEED = {"leaky_relu2-s0.5": 1.0, "leaky_relu2-s0.9": 1.0, "asqu": 1.02}  # step time
SEEDS = (1, 2, 3, 4)


@pytest.fixture
def planted():
    """Rows whose score is seed + activation + γ log steps, on nodes of these step times."""

    def rows(kind, size, *, noise=0.0, nodes=(1.0,), **changes):
        generator = np.random.default_rng([round(size), len(nodes)])
        found = []
        for i, seed in enumerate(SEEDS):
            for j, (key, gain) in enumerate(PER_STEP.items()):
                name, _, slope = key.partition("-s")
                node = (i + j) % len(nodes)
                step_ms = 100 * SPEED[key] * nodes[node]
                steps = round(size if kind == "steps" else 1000 * size / step_ms)
                score = 2.0 + 0.02 * seed + gain + GAMMA * math.log(steps)
                score += noise * generator.standard_normal()
                row = make_row(name, float(slope) if slope else None, seed)
                row |= {"budget_kind": kind, "budget_value": float(size), "steps": steps}
                row |= {"step_ms_p50": step_ms, "node": f"node{node}", STAGE: score}
                found.append(row | {"cell_id": f"{key}-{seed}-{kind}-{size:g}"} | changes)
        return found

    return rows


def split_of(table, key="asqu"):
    return table[table["key"] == key].iloc[0]


def curves_of(frame, slope_per_log_step, *, warmdown=1000):
    """A learning curve per cell: constant rate with a known slope, then a warmdown."""
    tables = []
    for row in frame.itertuples():
        steps = np.arange(1, row.steps + 1)
        facts = {"cell_id": row.cell_id, "key": row.key, "setting": row.setting, "seed": row.seed}
        tables.append(
            pd.DataFrame({"step": steps, "train_loss": 5 + slope_per_log_step * np.log(steps)})
            .assign(**facts, replicate=0, val_bpb=np.nan)
            .assign(lr_mult=np.minimum(1.0, (row.steps - steps) / warmdown))
        )
    return pd.concat(tables)


def test_the_parts_add_up_to_the_difference_of_the_ranking_whatever_the_source(planted):
    seconds = planted("seconds", 600, noise=0.001, nodes=(1.0, 1.1))
    for rows in (
        seconds,
        seconds + planted("steps", 6000, noise=0.001),
    ):
        frame = make_frame(rows)
        table = time_splits(make_study(frame), None, STAGE)
        told = table.dropna(subset=["per_step"])
        assert len(told) == len(table) > 0
        # Both parts are doubles of order 0.01, so their sum rounds in the eighteenth decimal.
        assert np.abs(told["per_step"] + told["from_steps"] - told["total"]).max() < 1e-16
        compared = compare(make_study(frame), STAGE).set_index(["setting", "key"])["difference"]
        assert (
            table.set_index(["setting", "key"])["total"]
            .eq(compared.reindex(table.set_index(["setting", "key"]).index))
            .all()
        )


def test_a_budget_of_steps_tells_the_effect_per_step(planted):
    frame = make_frame(planted("seconds", 600) + planted("steps", 6000))
    row = split_of(time_splits(make_study(frame), None, STAGE))
    assert row["method"] == "fixed steps"
    assert row["detail"] == "at 6000 steps, 4 paired seeds"
    assert row["per_step"] == pytest.approx(PER_STEP["asqu"], abs=1e-12)
    assert row["from_steps"] == pytest.approx(GAMMA * math.log(row["steps_ratio"]), abs=1e-12)
    assert row["steps_ratio"] == pytest.approx(1 / 1.02, rel=1e-3)


def test_between_two_budgets_of_steps_the_effect_is_interpolated_in_log_steps(planted):
    grown = [
        {**row, STAGE: row[STAGE] + (0.008 if row["activation"] == "asqu" else 0.0)}
        for row in planted("steps", 9000)
    ]
    frame = make_frame(planted("seconds", 600) + planted("steps", 4000) + grown)
    row = split_of(time_splits(make_study(frame), None, STAGE))
    share = math.log(6000 / 4000) / math.log(9000 / 4000)
    assert row["per_step"] == pytest.approx(PER_STEP["asqu"] + 0.008 * share, abs=1e-12)


def test_a_budget_of_far_fewer_steps_is_not_used(planted):
    frame = make_frame(planted("seconds", 600) + planted("steps", 200))
    row = split_of(time_splits(make_study(frame), None, STAGE))
    assert pd.isna(row["method"])
    assert pd.isna(row["per_step"])
    assert row["detail"].startswith("no budget of steps")


def test_nodes_of_unlike_speed_tell_the_effect_of_steps(planted):
    frame = make_frame(planted("seconds", 600, nodes=(1.0, 1.1), noise=1e-5))
    row = split_of(time_splits(make_study(frame), None, STAGE))
    assert row["method"] == "steps in the setting"
    wanted = GAMMA * math.log(row["steps_ratio"])
    assert abs(row["from_steps"] - wanted) <= row["from_steps_half_width"] < 1e-3


def test_nodes_that_hardly_differ_do_not_tell_it(planted):
    vague = make_frame(planted("seconds", 600, nodes=(1.0, 1.0002), noise=0.002))
    assert pd.isna(split_of(time_splits(make_study(vague), None, STAGE))["method"])


def test_the_learning_curve_is_the_last_resort_and_is_read_before_the_warmdown(planted):
    frame = make_frame(planted("seconds", 600))
    curves = curves_of(frame, -0.3)
    row = split_of(time_splits(make_study(frame), curves, STAGE))
    assert row["method"] == "learning curve (approximation)"
    bits = 20_000 / 60_000 / math.log(2)
    steps = row["steps"]
    wanted = -0.3 * bits * steps / (steps - 1000) * math.log(row["steps_ratio"])
    assert row["from_steps"] == pytest.approx(wanted, rel=1e-6)
    late = curves.assign(  # whatever the warmdown does to the loss, it is not read
        train_loss=curves["train_loss"] - 2.0 * (curves["lr_mult"] < 1)
    )
    again = split_of(time_splits(make_study(frame), late, STAGE))
    assert again["from_steps"] == row["from_steps"]


def test_tainted_cells_are_counted_and_change_no_number(planted):
    rows = planted("seconds", 600) + planted("steps", 6000)
    spoiled = [
        {**row, "tainted": True, "replicate": 1, STAGE: 9.0}
        for row in rows
        if row["activation"] == "asqu" and row["seed"] == 1 and row["budget_kind"] == "seconds"
    ]
    clean = split_of(time_splits(make_study(rows), None, STAGE))
    row = split_of(time_splits(make_study(rows + spoiled), None, STAGE))
    assert (clean["n_tainted"], row["n_tainted"]) == (0, 1)
    assert row["per_step"] == clean["per_step"]


def test_a_sweep_without_a_budget_of_seconds_has_nothing_to_split(planted):
    assert time_splits(make_study(planted("steps", 6000)), None, STAGE).empty


def test_the_speed_of_an_activation_is_told_apart_from_that_of_its_nodes(planted):
    rows = planted("seconds", 600, nodes=(1.0, 1.1, 0.97))
    table = node_effects(make_study(rows))
    ratios = table.set_index("key")["effect"]
    assert ratios["asqu"] == pytest.approx(1.02, rel=1e-9)
    assert ratios["leaky_relu2-s0.9"] == pytest.approx(1.0, rel=1e-9)
    mean = (1.0 * 1.1 * 0.97) ** (1 / 3)
    assert ratios["node1"] == pytest.approx(1.1 / mean, rel=1e-9)
    assert table["node_share"].iloc[0] == pytest.approx(1.0, abs=1e-9)


def test_an_activation_alone_on_its_node_is_not_compared(planted):
    rows = [
        {**row, "node": "alone" if row["activation"] == "asqu" else "shared"}
        for row in planted("seconds", 600)
    ]
    table = node_effects(make_study(rows))
    own = table[table["key"] == "asqu"].iloc[0]
    assert pd.isna(own["effect"])
    assert pd.isna(own["resolved"])
    assert "Not told apart from their nodes: ASQU" in node_sentences(table)[0]


def test_node_intervals_hold_the_planted_ratios(planted):
    """Simultaneous 95 % over 2 activations: of 20 sweeps at most 4 miss with p > 0.99."""
    generator = np.random.default_rng(5)
    frame = make_frame(planted("seconds", 600, nodes=(1.0, 1.05)))
    missed = 0
    for _ in range(20):
        noise = np.exp(0.002 * generator.standard_normal(len(frame)))
        noisy = frame.assign(step_ms_p50=frame["step_ms_p50"] * noise)
        table = node_effects(make_study(noisy)).set_index("key")
        wanted = {key: SPEED[key] for key in SPEED if key != REFERENCE}
        missed += any(not table.low[k] <= v <= table.high[k] for k, v in wanted.items())
    assert missed <= 4


def test_an_activation_with_a_diverged_seed_is_not_split(planted):
    rows = planted("seconds", 600) + planted("steps", 6000)
    frame = make_frame(rows)
    lost = (frame["key"] == "asqu") & (frame["seed"] == 1) & (frame["budget_kind"] == "seconds")
    frame.loc[lost, "state"] = "diverged"
    assert set(time_splits(make_study(frame), None, STAGE)["key"]) == {"leaky_relu2-s0.9"}


def test_unknown_steps_leave_the_parts_unknown(planted):
    frame = make_frame(planted("seconds", 600)).assign(steps=pd.NA)
    table = time_splits(make_study(frame.astype({"steps": "Int64"})), None, STAGE)
    assert len(table) == 2
    assert table["per_step"].isna().all()
    assert set(table["detail"]) == {"the steps are not known"}


def test_one_seed_has_parts_and_no_intervals(planted):
    rows = planted("seconds", 600) + planted("steps", 6000)
    table = time_splits(make_study([row for row in rows if row["seed"] == 1]), None, STAGE)
    assert table["per_step"].notna().all()
    assert table["per_step_half_width"].isna().all()


def test_seeds_that_were_run_until_the_best_was_known_give_parts_and_no_intervals(planted):
    frame = make_frame(planted("seconds", 600, noise=0.001))
    fixed, curves = make_study(frame), curves_of(frame, -0.3)
    stopped = replace(fixed, sweep=replace(fixed.sweep, standing=object()))
    widths = ["total_half_width", "per_step_half_width", "from_steps_half_width"]
    assert time_splits(fixed, curves, STAGE)[widths].notna().all(axis=None)
    table = time_splits(stopped, curves, STAGE)
    assert table["per_step"].notna().all()
    assert table[widths].isna().all(axis=None)
    assert table["unjudged"].str.contains("until the best was known").all()
