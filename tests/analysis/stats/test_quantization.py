"""Claims about deltas: taken within a cell, at equal windows, with n and an interval."""

import itertools

import pytest

from analysis.rows.stages import STAGES
from analysis.stats.quantization import delta_stats, subtract, with_deltas
from trainer.config.config_errors import ConfigError


def test_only_scores_of_equal_windows_are_subtracted(cells):
    for after, before in itertools.permutations(STAGES, 2):
        if STAGES[after].windows == STAGES[before].windows:
            difference = subtract(cells, after, before)
            expected = [a - b for a, b in zip(cells[after], cells[before], strict=True)]
            assert difference.dropna().tolist() == [x for x in expected if x == x]
        else:
            with pytest.raises(ConfigError, match="mixes the windows"):
                subtract(cells, after, before)


def test_an_unknown_stage_is_refused(cells):
    with pytest.raises(ConfigError, match="Known: pre_quant_bpb"):
        subtract(cells, "post_quant_bbp", "pre_quant_bpb")


def test_a_delta_is_null_where_a_score_is(cells_with_losses):
    deltas = with_deltas(cells_with_losses)
    lost = cells_with_losses["state"] != "succeeded"
    assert (deltas["quant_delta"].isna() == lost).all()
    assert deltas["quant_delta_sliding"].isna().all()  # pre-quant was not scored in sliding windows


def test_the_sliding_delta_is_there_where_both_sliding_scores_are(frame_of, row_of):
    frame = frame_of([row_of("asqu", None, 1, pre_quant_sliding_bpb=2.0)])
    row = with_deltas(frame).iloc[0]
    assert row["quant_delta_sliding"] == row["post_quant_sliding_bpb"] - 2.0


def test_delta_statistics_carry_n_interval_and_windows(cells):
    stats = delta_stats(cells)
    assert set(stats["quantity"]) == {"quant_delta", "ttt_gain"}
    assert (stats["n"] == 3).all()
    assert stats["half_width"].notna().all()
    strides = stats.groupby("quantity")["stride"].unique().map(list).to_dict()
    assert strides == {"quant_delta": [128], "ttt_gain": [32]}
