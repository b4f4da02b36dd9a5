"""What the report says of sizes and of the field's time limits."""

import json

from analysis.report.costs import limits_sentence, size_sentence
from tests.analysis.conftest import make_frame, make_rows


def spec_json(container):
    quantization = {"container": container, "compressor": "lzma", "preset": 6}
    return json.dumps({"recipe": {"quantization": quantization}})


def size(artifact_bytes, container="w_m"):
    changes = {"artifact_bytes": artifact_bytes, "config_json": spec_json(container)}
    return size_sentence(make_frame(make_rows(**changes)))


def test_a_size_is_told_with_its_container():
    assert "The largest has 415,900 bytes" in size_sentence(make_frame(make_rows()))
    assert "Written as" not in size_sentence(make_frame(make_rows()))
    assert "Written as w_m at lzma 6." in size(9_000_000)
    assert "Written as safetensors at lzma 6." in size(9_000_000, "safetensors")


def test_a_margin_that_a_layout_can_move_is_said_on_both_sides_of_the_cap():
    for artifact_bytes in (15_930_000, 16_000_000, 16_070_000):
        assert "may end on the other side" in size(artifact_bytes)
    for artifact_bytes in (15_900_000, 16_100_000):
        assert "may end on the other side" not in size(artifact_bytes)


def test_time_limits_are_counted_over_the_cells_that_tell():
    rows = make_rows(fits_train_cap=True)
    rows[0] |= {"fits_train_cap": None}
    rows[1] |= {"fits_eval_cap": False}
    rows[2] |= {"fits_eval_cap": True}
    assert limits_sentence(make_frame(rows)) == (
        "Training kept the recipe's limit in every one of 35 cells."
        " Evaluation kept the recipe's limit in 1 of 2 cells."
    )
    assert limits_sentence(make_frame(make_rows())) == ""
