"""Claims about deltas: taken within a cell, at equal windows, with n and an interval."""

from analysis.rows.stages import DELTAS, STAGES
from analysis.stats.quantization import delta_stats, with_deltas
from tests.analysis.conftest import make_frame, make_row


def test_only_scores_of_equal_windows_are_subtracted():
    for name, delta in DELTAS.items():
        assert STAGES[delta.after].windows == STAGES[delta.before].windows, name


def test_a_delta_is_null_where_a_score_is(cells_with_losses):
    deltas = with_deltas(cells_with_losses)
    lost = cells_with_losses["state"] != "succeeded"
    assert (deltas["quant_delta"].isna() == lost).all()
    assert deltas["quant_delta_sliding"].isna().all()  # pre-quant was not scored in sliding windows


def test_the_sliding_delta_is_there_where_both_sliding_scores_are():
    frame = make_frame([make_row("asqu", None, 1, pre_quant_sliding_bpb=2.0)])
    row = with_deltas(frame).iloc[0]
    assert row["quant_delta_sliding"] == row["post_quant_sliding_bpb"] - 2.0


def test_delta_statistics_carry_n_interval_and_windows(cells):
    stats = delta_stats(cells)
    assert set(stats["quantity"]) == {"quant_delta", "ttt_gain"}
    assert (stats["n"] == 3).all()
    assert stats["half_width"].notna().all()
    strides = stats.groupby("quantity")["stride"].unique().map(list).to_dict()
    assert strides == {"quant_delta": [128], "ttt_gain": [32]}
