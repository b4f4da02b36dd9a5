"""A published log gives what its run scored or is refused with the line; never another number."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.published.log_facts import LogFacts, parse_log
from tests.support.logs import (
    REFERENCE,
    RULER,
    Scores,
    baseline_log,
    changed,
    record_log,
    scored,
    without,
)
from trainer.config.config_errors import ConfigError

needs_reference = pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"{REFERENCE} is not there")
WITH_SLOT = Scores(pre=1.1303, post=1.13863255, sliding=1.11520768, ttt=1.11164189, slot=1.09566416)
LOGS = {
    "baseline": baseline_log(),
    "baseline without preamble": baseline_log(preamble=False),
    "record": record_log(),
    "record without TTT": record_log(Scores(ttt=None)),
    "SLOT and GPTQ": record_log(WITH_SLOT, gptq=True),
}
BASELINE, RECORD, SLOT = LOGS["baseline"], LOGS["record"], LOGS["SLOT and GPTQ"]


def refusal(log):
    with pytest.raises(ConfigError) as told:
        parse_log(log, "some.log")
    return str(told.value)


def line_of(log, begin):
    return next(i for i, line in enumerate(log.split("\n"), 1) if line.startswith(begin))


def test_post_quant_is_the_round_trip_where_the_name_says_so():
    row = parse_log(BASELINE, "some.log").row
    assert row["post_quant_bpb"] == 1.22963083
    assert row["post_quant_sliding_bpb"] is None


def test_the_sliding_score_under_the_name_of_a_round_trip_is_no_round_trip():
    facts = parse_log(RECORD, "some.log")
    assert facts.row["post_quant_bpb"] == 1.14518023
    assert facts.row["post_quant_sliding_bpb"] == 1.12165091
    alone = parse_log(without(RECORD, "final_int8_zlib_roundtrip_exact"), "some.log")
    assert said_otherwise(alone, facts) == set()


def test_a_round_trip_that_is_named_by_the_sliding_line_alone_is_refused():
    log = without(without(RECORD, "final_int6_roundtrip "), "final_int6_roundtrip_exact")
    assert "final_int6_roundtrip" in refusal(log)


def test_the_name_must_carry_the_sliding_score_where_the_artifact_has_six_bits():
    name = "final_int8_zlib_roundtrip_exact "
    other = changed(RECORD, name + scored(1.12165091, 8), name + scored(1.14518023, 8))
    assert f"line {line_of(other, name)}" in refusal(other)


def test_a_second_stride_is_not_taken_for_the_first():
    log = changed(RECORD, " stride:64 eval_time:74066ms", " stride:32 eval_time:74066ms") + (
        f"final_int6_sliding_window_s64 {scored(1.1305)} stride:64 eval_time:9ms\n"
        f"final_int6_sliding_window_s64_exact {scored(1.1305, 8)}\n"
    )
    row = parse_log(log, "some.log").row
    assert (row["stride"], row["post_quant_sliding_bpb"]) == (32, 1.12165091)


def test_pre_quant_is_of_the_weights_that_were_quantized():
    assert parse_log(BASELINE, "").row["pre_quant_bpb"] == 1.2236  # raw, the last validation
    assert (
        parse_log(RECORD, "").row["pre_quant_bpb"] == 1.1369
    )  # averaged, not the validation of 1.1379


def test_parts_of_rank_0_are_no_score():
    assert parse_log(RECORD, "").row["ttt_bpb"] == 1.11922988
    cut = RECORD[: RECORD.index("ttt_sliding:done")]
    assert "ttt_sliding:start" in refusal(cut)


def test_what_stands_before_the_run_changes_nothing_but_versions_and_gpus():
    alone = parse_log(LOGS["baseline without preamble"], "some.log")
    whole = parse_log(BASELINE, "some.log")
    assert whole.preamble.gpus == ("NVIDIA Made-up 5000",) * 2
    assert (whole.preamble.python, whole.preamble.torch) == ("3.11.14", "2.7.1+cu128")
    row = whole.row | {name: alone.row[name] for name in ("python", "torch", "device_name")}
    assert replace(whole, row=row, preamble=alone.preamble, lines=alone.lines) == alone


def test_sizes_are_those_of_the_compressed_model():
    row = parse_log(BASELINE, "").row
    assert (row["model_bytes"], row["code_bytes"]) == (15_846_700, 48_313)
    assert row["artifact_bytes"] == 15_895_013


def test_the_budget_is_the_cap_if_that_ended_training():
    assert parse_log(BASELINE, "").row["budget_kind"] == "steps"
    facts = parse_log(SLOT, "")
    assert (facts.row["budget_kind"], facts.row["budget_value"]) == ("seconds", 600.0)
    assert facts.row["train_s"] == 590.1  # 10 s went to GPTQ
    assert facts.configured["quantization.matrices"][0] == "gptq"


@pytest.mark.parametrize(
    ("log", "line", "said"),
    [
        (changed(RECORD, "bpb:1.11922988", "bpb:nan"), "legal_ttt_exact", "not a finite number"),
        (changed(RECORD, "seed:1337", "seed:one"), "seed:", "damaged"),
        (RECORD + RECORD, "val_bpb:enabled", "two runs"),
        (BASELINE + BASELINE, RULER, "two runs"),
        (BASELINE.replace(RULER + "\n", "", 1), RULER, "1 rulers"),
        (changed(RECORD, "val_bpb:1.14518023", "val_bpb:1.14618023"), "final_int6_r", "says 1.146"),
        (changed(RECORD, f"final_int6_roundtrip {scored(1.14518023)}",
                 f"final_int6_roundtrip {scored(1.14538023)}"), "final_int6_roundtrip ", "says 1."),
        (changed(RECORD, "lzma: 15887928", "lzma: 15887929"), "Total submission size i", "add up"),
        (without(RECORD, "stopping_early"), "step:7100", "killed"),
        (without(BASELINE, "step:10000/10000 val"), "step:9000/10000 val", "went on to step 10000"),
        (changed(RECORD, "step:6500/9000 train", "step:65/9000 train"), "step:65/", "comes after"),
        (changed(RECORD, "step:4000/9000 train", "step:4000/900 train"), "step:4000/900 ", "says"),
        (without(RECORD, "legal_ttt_exact"), "legal_ttt ", "legal_ttt_exact"),
        (without(SLOT, "final_slot_exact"), "final_slot ", "final_slot_exact"),
        (RECORD + "quantized_ttt_phased val_bpb:1.06\n", "quantized_ttt", "not known"),
        (RECORD + "some new score: bpb 1.06\n", "some new", "not known"),
        (RECORD.rstrip("\n")[:-3], "legal_ttt_exact", "damaged"),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_refused_with_its_line(log, line, said):
    told = refusal(log)
    assert told.startswith("some.log, line ")
    assert said in told
    numbers = [i for i, text in enumerate(log.split("\n"), 1) if text.startswith(line)]
    assert int(re.match(r"some\.log, line (\d+)", told)[1]) in numbers


@pytest.mark.parametrize("log", ["", "\n", "no log\nat all\n", BASELINE.partition(RULER)[2]])
def test_what_is_no_finished_run_is_refused_with_what_is_missing(log):
    assert "some.log" in refusal(log)


@pytest.mark.parametrize("name", ["baseline", "record", "SLOT and GPTQ"])
def test_a_run_that_was_killed_is_refused_wherever_that_was(name):
    lines = LOGS[name].rstrip("\n").split("\n")
    last = {"baseline": "final_int8_zlib_roundtrip_exact"}
    end = line_of(LOGS[name], last.get(name, "final_int6_sliding_window_exact"))
    whole = parse_log(LOGS[name], "some.log")
    for count in range(len(lines)):
        try:
            facts = parse_log("\n".join(lines[:count]), "some.log")
        except ConfigError:
            continue
        # Cut before TTT or SLOT began, it is the log of a run without them: an importer's claim of
        # a recipe that has them tells the two apart.
        assert count >= end
        assert said_otherwise(facts, whole) == set()


def said_otherwise(facts: LogFacts, whole: LogFacts) -> set[str]:
    """What ``facts`` says, and not as ``whole`` does; what it does not say is not in it."""
    one, other = (found.row | found.configured for found in (facts, whole))
    return {
        name
        for name, value in one.items()
        if name not in ABOUT_RUN and value not in (None, other.get(name))
    }


# Read before the run, and told by the absence of lines: the claim of the user decides.
ABOUT_RUN = {"python", "torch", "device_name", "stride", "ttt", "slot"}


@given(name=st.sampled_from(sorted(LOGS)), draw=st.data())
def test_lines_that_are_lost_never_change_a_number(name, draw):
    lines = LOGS[name].split("\n")
    lost = draw.draw(st.sets(st.integers(0, len(lines) - 1), min_size=1, max_size=3))
    check_without(lines, lost)


@needs_reference
@pytest.mark.parametrize("name", ["pr1035_asqu_seed1337.log", "pr549_leaky0.5_seed1337.log"])
def test_no_line_of_a_real_log_can_be_lost_and_change_a_number(name):
    lines = (REFERENCE / "logs" / name).read_text(encoding="utf-8").split("\n")
    kept = [i for i, line in enumerate(lines) if "ttt_chunk" not in line]
    for lost in kept:
        check_without(lines, {lost})


def check_without(lines, lost):
    """Either refused, or every number is as in the whole log, or absent."""
    whole = parse_log("\n".join(lines), "some.log")
    try:
        facts = parse_log("\n".join(x for i, x in enumerate(lines) if i not in lost), "some.log")
    except ConfigError:
        return
    assert said_otherwise(facts, whole) == set()


@pytest.mark.parametrize("name", sorted(LOGS))
def test_a_digit_of_a_score_that_is_wrong_is_noticed(name):
    """Any one digit of an exact score, but the last three: those nothing else in a log confirms."""
    log = LOGS[name]
    for match in re.finditer(
        r"_exact val_loss:\S+ val_bpb:(\d\.\d{5})\d{3}", log[log.rfind(RULER) :]
    ):
        begin = max(0, log.rfind(RULER)) + match.start(1)
        for place in [0, *range(2, len(match[1]))]:
            digit = log[begin + place]
            wrong = log[: begin + place] + str((int(digit) + 5) % 10) + log[begin + place + 1 :]
            assert "some.log, line" in refusal(wrong)


@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_the_ends_of_lines_do_not_matter(end):
    assert parse_log(RECORD.replace("\n", end), "") == parse_log(RECORD, "")


def test_lines_that_nobody_knows_and_that_say_no_score_are_counted():
    facts = parse_log("/lib/x.py:3: FutureWarning: old\n" + RECORD, "")
    assert facts.unknown_lines == (1,)
    assert said_otherwise(facts, parse_log(RECORD, "")) == set()
