"""A specification goes in, a report comes out, and neither is taken unless it is whole."""

import json
import math

import pytest

from tests.support.tiny import tiny_spec
from trainer.config.config_errors import ConfigError
from trainer.contract import (
    Report,
    parse_report,
    read_spec,
    recipe_hash,
)

SHA = "0" * 64
GOOD = {
    "contract_version": 1,
    "state": "succeeded",
    "reason": None,
    "steps": 4,
    "tokens": 1024,
    "resumed_from_step": None,
    "train_s": 1.5,
    "step_ms_p50": 10.0,
    "step_ms_p99": 20.0,
    "train_loss": 6.0,
    "val_tokens": 512,
    "val_bytes": 1500,
    "window": 32,
    "stride": 16,
    "pre_quant_loss": 6.1,
    "pre_quant_bpb": 3.0,
    "pre_quant_sliding_bpb": None,
    "post_quant_loss": 6.2,
    "post_quant_bpb": 3.1,
    "post_quant_sliding_bpb": 3.05,
    "ttt_bpb": None,
    "slot_bpb": None,
    "slot_legal": None,
    "beta_mean": 0.25,
    "beta_std": 0.0,
    "floored_rows": 0.0,
    "pruned_codes": None,
    "gptq_fallbacks": None,
    "num_params": 1000,
    "model_bytes": 2000,
    "code_bytes": 100,
    "trainer_source_bytes": 150_000,
    "artifact_bytes": 2100,
    "fits_cap": True,
    "fits_train_cap": True,
    "fits_eval_cap": True,
    "world_size": 1,
    "device": "cpu",
    "device_name": "a processor",
    "dtype": "float32",
    "attention_backend": "torch_sdpa",
    "mlp_backend": "torch",
    "compile_misses": None,
    "peak_memory_bytes": 10**8,
    "setup_s": 1.0,
    "warmup_s": 1.0,
    "score_s": 1.0,
    "ttt_s": 0.0,
    "slot_s": None,
    "pack_s": 0.1,
    "overlap_s": None,
    "idle_s": None,
    "mechanism_s": 0.1,
    "calibrate_s": None,
    "eval_s": 0.4,
    "probe_before_ms": None,
    "probe_after_ms": None,
    "allreduce_before_ms": None,
    "allreduce_after_ms": None,
    "corpus_sha256": SHA,
    "tokenizer_sha256": SHA,
    "recipe_hash": "0123456789abcdef",
    "spec_hash": "0123456789abcdef",
    "trainer_hash": SHA,
    "python": "3.11.7",
    "torch": "2.8.0",
}
SCORES = ("pre_quant_bpb", "post_quant_bpb", "post_quant_sliding_bpb", "val_tokens", "val_bytes")
SCORES = (*SCORES, "model_bytes", "artifact_bytes")


def parsed(**changes):
    return parse_report(json.dumps(GOOD | changes))


def without(name):
    return json.dumps({key: value for key, value in GOOD.items() if key != name})


# -- reports


def test_a_good_report_is_read_as_it_is_written():
    report = parsed()
    assert report.model_dump() == GOOD
    assert parse_report(report.model_dump_json()) == report


def test_the_fields_of_this_file_are_those_of_the_contract():
    assert set(GOOD) == set(Report.model_fields)


def test_a_missing_field_is_refused_by_name():
    for name in set(GOOD) - {"contract_version"}:
        with pytest.raises(ConfigError, match=rf"report\.json: {name}: .* required"):
            parse_report(without(name))


def test_a_value_that_does_not_belong_there_is_refused_by_name():
    """Of another type, no number, or negative; a loss may be negative in principle."""
    for name, good in GOOD.items():
        others = () if good is None else ("text", 1.5, True, [], {})
        wrong = [value for value in others if not isinstance(value, type(good))]
        wrong += [math.nan, math.inf, -math.inf] if isinstance(good, float) else []
        if type(good) in (int, float) and name not in ("beta_mean", "train_loss"):
            wrong.append(-1)
        for value in wrong:
            with pytest.raises(ConfigError, match=name):
                parsed(**{name: value})


def test_an_unknown_field_is_refused():
    with pytest.raises(ConfigError, match="surprise: unknown key"):
        parsed(surprise=1)


def test_a_success_without_its_scores_is_refused():
    for name in SCORES:
        with pytest.raises(ConfigError, match=f"succeeded but {name} is absent"):
            parsed(**{name: None})


def test_a_diverged_report_has_a_reason_and_may_lack_scores():
    absent = dict.fromkeys(SCORES)
    assert parsed(state="diverged", reason="the loss is not finite", **absent).state == "diverged"
    with pytest.raises(ConfigError, match="diverged but reason is absent"):
        parsed(state="diverged", **absent)


def test_text_that_is_no_report_is_refused():
    for text in ("", "{", "[]", "3", "null", '"text"', without("state")[:-5]):
        with pytest.raises(ConfigError, match=r"report\.json"):
            parse_report(text)


# -- specifications


def test_a_specification_is_read_as_it_is_written(data_dir, tmp_path):
    spec = tiny_spec(data_dir)
    path = tmp_path / "spec.json"
    path.write_text(spec.model_dump_json())
    assert read_spec(path) == spec
    assert recipe_hash(read_spec(path).recipe) == recipe_hash(spec.recipe)


def test_a_specification_that_does_not_fit_is_refused_by_name(data_dir, tmp_path):
    path, good = tmp_path / "spec.json", tiny_spec(data_dir).model_dump(mode="json")
    for change, message in (
        ({"budget": "200"}, "number and its unit"),
        ({"seed": -1}, "seed"),
        ({"seed": "7"}, "seed"),
        ({"seed": 1.0}, "seed"),
        ({"device": "tpu"}, "device"),
        ({"dtype": "float16"}, "dtype"),
        ({"threads": 0}, "threads"),
        ({"log_every": 0}, "log_every"),
        ({"corpus_sha256": "abc"}, "corpus_sha256"),
        ({"contract_version": 2}, "contract_version"),
        ({"surprise": 1}, "surprise: unknown key"),
        ({"activation": {"name": "relu3", "params": {}}}, "relu3"),
        ({"activation": {"name": "leaky_relu2", "params": {"slope": 2.0}}}, "outside its range"),
        ({"recipe": {}}, r"recipe\.data: .* required"),
    ):
        assert_refused(path, json.dumps(good | change).encode(), message)
    for content, message in (
        (b"{", "not JSON"),
        (b"[]", "not an object"),
        (b"\xff\xfe", "not JSON"),
    ):
        assert_refused(path, content, message)


def assert_refused(path, content, message):
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_spec(path)
    assert str(path) in str(caught.value)


def test_a_specification_that_is_not_there_is_refused_by_name(tmp_path):
    for path in (tmp_path / "spec.json", tmp_path):
        with pytest.raises(ConfigError, match=f"{path}: this cannot be read"):
            read_spec(path)
