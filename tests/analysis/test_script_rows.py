"""Claims about rows of a script: what is told of them, what is compared, and what is left out."""

import json
import re

import pytest

from analysis.conclusions.decision import decide
from analysis.figures import figure_data
from analysis.figures.captions import take_caption
from analysis.figures.catalog import draw, draw_or_reason
from analysis.figures.figure_data import FigureData
from analysis.report import report as report_module
from analysis.report.html import render_html
from analysis.report.report import make_report
from analysis.report.report_data import report_data
from analysis.report.summary import summarize
from analysis.rows.checks import check_cells
from analysis.rows.scoring import scoring_of, stage_title
from analysis.stats.aa_control import aa_controls
from analysis.stats.compare import compare, nats_per_bpb
from analysis.stats.quantization import with_deltas
from analysis.study import read_study
from analysis.text_table import plain
from tests.analysis.conftest import make_frame
from tests.support.page import parsed
from tests.support.script_rows import CONTIGUOUS, SLIDING, script_row, script_rows
from trainer.config.config_errors import ConfigError

pytestmark = pytest.mark.usefixtures("few_draws")

POST_ALONE = {"post_quant_bpb": CONTIGUOUS}
UNKNOWN = {"pre_quant_bpb": CONTIGUOUS, "post_quant_bpb": None}


@pytest.fixture
def study_of(store_of):
    return lambda footing, **changes: read_study(store_of(script_rows(footing, **changes)))


@pytest.mark.parametrize(
    ("stages", "tested"),
    [
        (("pre_quant_bpb", "post_quant_bpb", "post_quant_sliding_bpb"), "post_quant_sliding_bpb"),
        (("pre_quant_bpb", "post_quant_bpb", "ttt_bpb"), "post_quant_bpb"),
        (("pre_quant_bpb", "ttt_bpb"), "ttt_bpb"),
        (("pre_quant_bpb",), "pre_quant_bpb"),
    ],
)
def test_the_tested_stage_is_the_first_that_the_script_prints(study_of, stages, tested):
    study = study_of(dict.fromkeys(stages))
    assert study.primary == tested
    assert {decision.quantity for decision in decide(study)} == {tested}
    for setting in study.settings.values():
        assert setting.derive(lambda rows: rows.iloc[:0]).primary == tested


def test_a_delta_needs_two_known_footings_that_are_equal():
    footings = {
        "equal": {"pre_quant_bpb": CONTIGUOUS, "post_quant_bpb": CONTIGUOUS},
        "unlike": {"pre_quant_bpb": CONTIGUOUS, "post_quant_bpb": (1024, 1024)},
        "one unknown": UNKNOWN,
        "both unknown": {"pre_quant_bpb": None, "post_quant_bpb": None},
    }
    rows = [script_row(0.5, seed, footing) for seed, footing in enumerate(footings.values())]
    deltas = with_deltas(make_frame(rows))["quant_delta"]
    first = rows[0]["post_quant_bpb"] - rows[0]["pre_quant_bpb"]
    assert deltas.fillna(0.0).tolist() == [first, 0.0, 0.0, 0.0]


def test_windows_come_from_the_footing_and_never_from_the_name_of_the_stage():
    footing = {"post_quant_bpb": None, "post_quant_sliding_bpb": SLIDING, "ttt_bpb": CONTIGUOUS}
    frame = make_frame(script_rows(footing))
    assert stage_title(frame, "post_quant_bpb") == "post-quant, windows not recorded"
    assert stage_title(frame, "post_quant_sliding_bpb") == "post-quant, sliding"
    assert stage_title(frame, "ttt_bpb") == "test-time training, contiguous"
    assert stage_title(frame, "ttt_gain").endswith("windows not recorded")
    assert (scoring_of(frame, "ttt_bpb")["window"], scoring_of(frame, "ttt_bpb")["stride"]) == (
        2048,
        2048,
    )


@pytest.mark.parametrize("footing", [POST_ALONE, UNKNOWN])
def test_summary_report_and_figures_come_through(study_of, footing, monkeypatch):
    """What a script does not tell is left out with a sentence; unknown windows are said so."""
    study = study_of(footing)
    monkeypatch.setattr(report_module, "pictures", lambda names, setting: ())  # seconds each
    monkeypatch.setattr(figure_data, "achieved", lambda study: [])  # the power of its grid
    page = parsed(render_html(make_report(report_data(study)))).text()
    summary = plain(summarize(study))
    data = FigureData(study)
    caption, _ = take_caption(draw("differences", data), b"")
    for text in (page, summary, caption):
        told = re.findall(
            r"post-quant(?:: |, )(windows not recorded|contiguous|windows of 2048)", text, re.I
        )
        assert told
        assert all((one == "windows not recorded") == (footing is UNKNOWN) for one in told)
    for name in ("quant_delta", "pace", "mechanism", "learning_curves"):
        assert isinstance(draw_or_reason(name, data), str), name


def test_footings_of_one_setting_are_alike():
    rows = script_rows(POST_ALONE)
    check_cells(make_frame(rows), "here")
    other = rows[0] | {"footing_json": json.dumps({"post_quant_bpb": SLIDING})}
    with pytest.raises(ConfigError, match="2 windows and strides"):
        check_cells(make_frame([other, *rows[1:]]), "here")


def test_nats_come_from_a_loss_beside_the_bits_and_not_from_losses_of_several_texts():
    rows = [
        row | {"post_quant_loss": 1.69 * row["post_quant_bpb"]} for row in script_rows(POST_ALONE)
    ]
    assert nats_per_bpb(make_frame(rows)) == pytest.approx(1.69)
    assert nats_per_bpb(make_frame(script_rows(POST_ALONE))) is None
    rows[0]["post_quant_loss"] *= 1.01
    assert nats_per_bpb(make_frame(rows)) is None


def test_two_names_of_one_function_need_not_agree_in_a_script(study_of, store_of):
    rows = script_rows(POST_ALONE)
    zero = [
        row | {"slope": 0.0, "neg_beta": 0.0, "params_json": '{"slope": 0.0}'}
        for row in rows
        if row["slope"] == 0.3
    ]
    named = [row | {"cell_id": f"z{row['seed']}", "cell": f"z{row['seed']}"} for row in zero]
    relu2 = [
        row
        | {"activation": "relu2", "slope": None, "params_json": "{}", "cell_id": f"r{row['seed']}"}
        for row in zero
    ]
    (control,) = aa_controls(read_study(store_of([*rows, *named, *relu2])))
    assert (control["n"], control["must_agree"]) == (3, False)


def test_the_comparison_is_that_of_the_tested_stage(study_of):
    study = study_of(POST_ALONE)
    rows = compare(study, study.primary)
    assert len(rows) == 2
    assert set(rows["quantity"]) == {"post_quant_bpb"}
    assert set(rows["window"]) == set(rows["stride"]) == {2048}
