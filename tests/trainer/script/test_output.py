"""The lines of an output are those of its log, however they come and whatever ends them."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.script_spec import script_recipe
from trainer.config.config_errors import ConfigError
from trainer.contract import PROGRESS_FILE
from trainer.script import output
from trainer.script.output import Output


@pytest.fixture
def made(tmp_path):
    """An output by the shared forms, and the phase that it says."""
    out = Output(script_recipe("pass").script, tmp_path, io.BytesIO())
    return out, lambda: json.loads((tmp_path / PROGRESS_FILE).read_text())["phase"]


@given(st.lists(st.integers(1, 9), max_size=9))
def test_it_does_not_matter_where_the_output_is_cut(tmp_path_factory, sizes):
    data = "ab\r\n\nµ\rc\n".encode() + b"\xff\nend"
    log = io.BytesIO()
    out = Output(script_recipe("pass").script, tmp_path_factory.mktemp("run"), log)
    for size in [*sizes, len(data)]:
        out.feed(data[:size])
        data = data[size:]
    out.end()
    assert out.lines == ["ab", "", "µ", "c", "\ufffd", "end"]
    assert log.getvalue() == b"ab\r\n\n\xc2\xb5\rc\n\xff\nend"


def test_only_training_may_not_fall_silent(made):
    out, phase = made
    out.feed(b"seed:1\n")
    assert phase() == output.QUIET
    out.feed(b"step:1/4 train_loss:3.0000 train_time:1ms step_avg:1.00ms\n\n")
    assert phase() == "train"
    out.feed(b"Serialized model int6+lzma: 900 bytes\n")
    assert phase() == output.QUIET


def test_more_than_can_be_kept_is_refused(made, monkeypatch):
    monkeypatch.setattr(output, "MAX_BYTES", 10)
    with pytest.raises(ConfigError, match="printed more than"):
        made[0].feed(b"x" * 11)
