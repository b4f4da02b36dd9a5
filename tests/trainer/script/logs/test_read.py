"""What a script printed is read by its recipe's rules alone, and a contradiction is no number."""

import math

import pytest

from tests.support.script_spec import script_spec
from trainer.config.config_errors import ConfigError
from trainer.config.script import Read
from trainer.contract import ScriptReport
from trainer.script.logs.read import read_output
from trainer.script.patching import render
from trainer.script.report import make_report
from trainer.script.source.packing import pack

LOG = """\
seed:42
train_loader:dataset:some-text train_shards:1
model_params:17059912
world_size:1 grad_accum_steps:8
train_batch_tokens:1000 train_seq_len:8 iterations:4 warmup_steps:1 max_wallclock_seconds:0.000
mlp_act:leaky_relu_sq slope:0.5
step:2/4 train_loss:3.5000 train_time:20ms step_avg:10.00ms
step:4/4 train_loss:3.0000 train_time:44ms step_avg:11.00ms
step:4/4 val_loss:2.9000 val_bpb:1.7000 train_time:44ms step_avg:11.00ms
DIAGNOSTIC post_ema val_loss:2.8000 val_bpb:1.6500 eval_time:100ms
Code size: 100 bytes
Serialized model int6+lzma: 900 bytes
Total submission size int6+lzma: 1000 bytes
final_int6_roundtrip val_loss:2.8123 val_bpb:1.6612 eval_time:200ms
final_int6_roundtrip_exact val_loss:2.81234567 val_bpb:1.66123456
final_int6_sliding_window val_loss:2.7000 val_bpb:1.6000 stride:4 eval_time:300ms
final_int6_sliding_window_exact val_loss:2.70001234 val_bpb:1.60004321
"""
STAGES = {
    "pre_quant": {"label": "DIAGNOSTIC post_ema", "window": 8, "stride": 8},
    "post_quant": {"label": "final_int6_roundtrip", "window": 8, "stride": 8},
    "sliding": {"label": "final_int6_sliding_window", "window": 8, "stride": 4},
}
OTHER_LOSS = "step:2/4 train_loss:3.4 train_time:1ms step_avg:1ms"
READ = {"forms": ["parameter-golf"], **STAGES}


def report(log: str = LOG, weighed: int | None = None, read=READ, **spec) -> ScriptReport:
    asked = script_spec("pass", read=read, **spec)
    reading = read_output(log.split("\n"), asked.recipe.script.read, "output")
    return make_report(asked, render(asked), reading, weighed, "output")


def refusal(*arguments, **spec) -> str:
    with pytest.raises(ConfigError) as caught:
        report(*arguments, **spec)
    return str(caught.value)


def test_each_value_comes_from_its_line():
    found = report()
    assert (found.state, found.steps, found.tokens, found.train_s) == ("succeeded", 4, 4000, 0.044)
    assert (found.step_ms_p50, found.train_loss, found.num_params) == (11.0, 3.0, 17059912)
    assert (found.pre_quant_bpb, found.pre_quant_loss) == (1.65, 2.8)
    assert (found.post_quant_bpb, found.post_quant_loss) == (1.66123456, 2.81234567)
    assert found.post_quant_sliding_bpb == 1.60004321
    assert (found.model_bytes, found.code_bytes, found.artifact_bytes) == (900, 100, 1000)
    assert (found.fits_cap, found.fits_train_cap, found.fits_eval_cap) == (True, True, True)
    assert found.eval_s == 0.5
    assert (found.window, found.stride) == (8, 4)
    assert found.footing == {
        "pre_quant_bpb": (8, 8),
        "post_quant_bpb": (8, 8),
        "post_quant_sliding_bpb": (8, 4),
    }
    assert found.ttt_bpb is found.slot_bpb is found.peak_memory_bytes is None


def test_without_the_shared_forms_nothing_is_known_but_what_the_recipe_names():
    read = {
        "lines": [r"^seed:(?P<seed>\d+)"],
        "post_quant": {"pattern": r"trip_exact.*bpb:(?P<bpb>\S+)"},
    }
    found = report(read=read)
    assert found.post_quant_bpb == 1.66123456
    assert found.footing == {"post_quant_bpb": None}
    assert found.steps is found.num_params is found.artifact_bytes is found.window is None


def test_a_score_is_no_stage_unless_the_recipe_names_its_label():
    found = report(read={"forms": ["parameter-golf"], "sliding": STAGES["sliding"]})
    assert found.pre_quant_bpb is found.post_quant_bpb is None
    assert found.post_quant_sliding_bpb == 1.60004321


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("seed:42", "seed:43", "the cell asks for 42"),
        ("dataset:some-text", "dataset:other", "its dataset is other"),
        ("world_size:1 ", "world_size:8 ", "its world_size is 8"),
        ("iterations:4", "iterations:5", "its iterations is 5"),
        ("slope:0.5", "slope:0.7", "a slope of 0.7"),
        ("leaky_relu_sq slope:0.5", "relu_sq", "activation relu2"),
        ("final_int6_roundtrip", "final_int5_roundtrip", "did not print post_quant"),
        ("val_bpb:1.6612 ", "val_bpb:1.6712 ", "two lines give the stage post_quant differently"),
        ("size: 100 bytes", "size: 101 bytes", "which are not 1,000 together"),
        ("step:4/4 train", "step:5/5 train", "trained to step 5"),
        ("step:4/4 val_loss", f"{OTHER_LOSS}\nstep:4/4 val_loss", "two runs"),
        ("Code size: 100", "Code size: 99 bytes\nCode size: 100", "give code_bytes differently"),
    ],
)  # fmt: skip
def test_a_contradiction_is_refused_with_its_line(old, new, says):
    assert old in LOG
    message = refusal(LOG.replace(old, new))
    assert says in message


def test_the_median_step_is_of_the_steps_between_two_that_are_printed():
    first = "step:1/4 train_loss:9.0 train_time:90ms step_avg:90.00ms\n"
    slow_start = LOG.replace("step:2/4 train", f"{first}step:2/4 train").replace("20ms", "100ms")
    found = report(slow_start.replace("train_time:44ms", "train_time:124ms"))
    assert found.step_ms_p50 == 12.0  # the first took 90, and the mean of all is 31


def test_a_packed_script_is_weighed_as_it_would_be_submitted():
    packing = 'import zlib, base64\nexec(zlib.decompress(base64.b85decode("PAYLOAD")))\n'
    found = report(packed=packing)
    assert found.code_bytes == len(pack("pass", packing))
    assert found.artifact_bytes == 900 + found.code_bytes


def test_a_printed_size_that_is_not_the_files_is_refused():
    assert report(weighed=900).model_bytes == 900
    assert "says 900" in refusal(LOG, 901)


CURVE = "step:5/{n} train_loss:3.0 train_time:50ms step_avg:10.00ms\n"
SCORED = "step:{s}/{n} val_loss:{loss} val_bpb:1.7000 train_time:{ms}ms step_avg:10.00ms\n"
END = "final_int6_roundtrip val_loss:2.8 val_bpb:1.66\n"


@pytest.mark.parametrize(
    ("budget", "s", "n", "ms", "wrong"),
    [
        ("10steps", 10, 10, 100, None),
        ("10steps", 7, 10, 70, "it ended at step 7"),
        ("10steps", 0, 10, 0, None),  # scored before, and not after
        ("10steps", 20, 20, 200, "it counts 20 iterations"),
        ("10steps", 10, 20, 100, "it counts 20 iterations"),
        ("10s", 20, 20, 200, "its 20 iterations were over after 0.2 s"),
        ("10s", 20, 20, 10_000, None),
        ("10s", 900, 1000, 9_000, None),  # it keeps a second for what comes after
    ],
)
def test_the_budget_is_what_ends_the_training(budget, s, n, ms, wrong):
    read = {key: READ[key] for key in ("forms", "post_quant")}
    asked = {"read": read, "budget": budget, "env": {"SEED": "{seed}"}}
    log = (CURVE + SCORED + END).format(s=s, n=n, ms=ms, loss="2.9000")
    if wrong is None:
        assert report(log, **asked).state == "succeeded"
    else:
        assert wrong in refusal(log, **asked)


def test_a_run_that_diverges_may_end_at_once():
    log = (CURVE + SCORED).format(s=7, n=10, ms=70, loss="nan")
    assert report(log, budget="10steps", env={"SEED": "{seed}"}).state == "diverged"


def test_a_timed_cell_is_held_against_the_printed_cap():
    timed = LOG.replace("seconds:0.000", "seconds:600.000").replace("/4 ", "/20000 ")
    timed = timed.replace("iterations:4", "iterations:20000")
    asked = {"budget": "600s", "env": {"SEED": "{seed}"}}
    assert report(timed, **asked).steps == 4
    assert "its cap_s is 60" in refusal(timed.replace("600.000", "60.000"), **asked)


def test_a_name_of_the_scripts_own_is_told_by_the_recipe():
    own = LOG.replace("leaky_relu_sq", "lrsq_v2")
    assert "activation lrsqv2" in refusal(own)
    assert report(own, activation_names={"leaky_relu2": "lrsq_v2"}).state == "succeeded"


@pytest.mark.parametrize("number", ["nan", "inf"])
def test_a_score_that_is_no_number_is_a_divergence_and_keeps_no_score(number):
    found = report(
        LOG.replace("val_bpb:1.60004321", f"val_bpb:{number}").replace("1.6000 ", f"{number} ")
    )
    assert found.state == "diverged"
    assert "sliding" in (found.reason or "")
    assert found.post_quant_bpb is None


def test_a_run_that_stops_at_a_loss_that_is_nan_has_diverged_though_lines_are_missing():
    cut = LOG[: LOG.index("step:4/4 val")].replace("loss:3.0000", "loss:nan")
    found = report(cut)
    assert (found.state, found.reason) == ("diverged", "train_loss is nan at step 4")
    assert found.train_loss is None


def test_source_that_stands_before_the_run_is_not_read():
    source = "print('final_int6_roundtrip val_loss:9.0 val_bpb:9.0')\nseed:7"
    ruler = "=" * 100
    assert report(f"{source}\n{ruler}\nnvidia\n{ruler}\n{LOG}").post_quant_bpb == 1.66123456


def test_rules_that_cannot_mean_anything_are_refused():
    with pytest.raises(ValueError, match="no metric at all"):
        Read.model_validate({"forms": ["parameter-golf"]})
    with pytest.raises(ValueError, match="sliding score"):
        Read.model_validate({"post_quant": {"label": "x", "window": 8, "stride": 4}})
    with pytest.raises(ValueError, match="contiguous score"):
        Read.model_validate({"sliding": {"label": "x", "window": 8, "stride": 8}})
    with pytest.raises(ValueError, match="no regular expression"):
        Read.model_validate({"lines": ["("], "ttt": {"label": "x"}})
    with pytest.raises(ValueError, match="known are"):
        Read.model_validate({"lines": ["(?P<sed>.)"], "ttt": {"label": "x"}})
    with pytest.raises(ValueError, match="groups"):
        Read.model_validate({"ttt": {"pattern": "(?P<loss>.)"}})
    with pytest.raises(ValueError, match="one of them"):
        Read.model_validate({"ttt": {"pattern": "(?P<bpb>.)", "label": "x"}})
    with pytest.raises(ValueError, match="slot_legal"):
        Read.model_validate({"slot": {"label": "x"}})


def test_numbers_with_thousands_and_large_seeds_are_read_exactly():
    seed = 2**62 + 1
    read = {
        "lines": [r"seed:(?P<seed>\d+)", "params (?P<num_params>[0-9,]+)"],
        "ttt": {"label": "t"},
    }
    found = report(
        f"seed:{seed}\nparams 17,059,912\nt val_loss:1.0 val_bpb:1.5\n", read=read, seed=seed
    )
    assert (found.num_params, found.ttt_bpb) == (17059912, 1.5)
    assert not math.isnan(found.ttt_bpb or math.nan)
