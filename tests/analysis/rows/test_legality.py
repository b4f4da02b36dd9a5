"""A score that was fitted on what it scores is shown, marked, and never ranked."""

import pytest

from analysis.report.summary import summarize
from analysis.stats.compare import compare
from analysis.stats.per_seed import seed_stats
from analysis.text_table import plain
from tests.analysis.conftest import make_frame, make_rows, make_study
from trainer.config.config_errors import ConfigError

pytestmark = pytest.mark.usefixtures("few_draws")


def with_slot(*, legal):
    """Every cell has a SLOT score that is lower than all its others."""
    rows = [row | {"slot_bpb": row["ttt_bpb"] - 0.02, "slot_legal": legal} for row in make_rows()]
    return make_frame(rows)


def test_an_illegal_score_is_not_ranked_in_the_statistics():
    table = seed_stats(with_slot(legal=False), ("ttt_bpb", "slot_bpb"))
    assert table.loc[table["quantity"] == "ttt_bpb", "ranked"].all()
    assert not table.loc[table["quantity"] == "slot_bpb", "ranked"].any()
    assert table.loc[table["quantity"] == "slot_bpb", "mean"].notna().all()


def test_comparing_activations_by_an_illegal_score_is_refused():
    """One row of which nobody says that it is legal is enough."""
    one = with_slot(legal=True)
    one.loc[0, "slot_legal"] = False
    for frame in (with_slot(legal=False), one):
        gain = frame["slot_bpb"] - frame["post_quant_sliding_bpb"]
        for quantity in ("slot_bpb", "slot_gain"):
            with pytest.raises(ConfigError, match=r"no legal score.*slot\.mode = causal"):
                compare(make_study(frame.assign(slot_gain=gain)), quantity)


def test_a_legal_score_is_ranked_as_any_other():
    frame = with_slot(legal=True)
    assert len(compare(make_study(frame), "slot_bpb")) == len(compare(make_study(frame), "ttt_bpb"))
    assert seed_stats(frame, ("slot_bpb",))["ranked"].all()


def test_the_table_shows_it_and_says_so():
    few = ["relu2", "leaky_relu2-s0.5", "asqu"]
    illegal, legal = with_slot(legal=False), with_slot(legal=True)
    illegal, legal = (frame[frame["key"].isin(few)] for frame in (illegal, legal))
    text = plain(summarize(make_study(illegal)))
    assert "SLOT" in text.splitlines()[1]
    assert "SLOT was fitted on the targets that it scores: not a legal score" in text
    assert "not a legal score" not in plain(summarize(make_study(legal)))
    assert "SLOT" not in plain(summarize(make_study(legal.assign(slot_bpb=float("nan")))))
