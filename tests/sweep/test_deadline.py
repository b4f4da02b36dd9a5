"""A call that does not return in time is left behind; any other is as if it were made here."""

import subprocess
import sys
import threading

import pytest

from sweep.deadline import call_with_deadline
from tests.support.commands import ROOT

HANGS = """
import threading
from sweep.deadline import run_in_background
run_in_background(threading.Event().wait)
"""


def test_a_call_gives_what_it_returns_or_raises_unless_it_takes_too_long():
    assert call_with_deadline(60.0, lambda: 7) == 7
    assert call_with_deadline(60.0, lambda: None) is None
    with pytest.raises(KeyError):
        call_with_deadline(60.0, lambda: {}["absent"])
    let_go = threading.Event()
    with pytest.raises(TimeoutError, match=r"no answer within 0\.05 s"):
        call_with_deadline(0.05, let_go.wait)
    let_go.set()


def test_a_call_that_never_returns_keeps_no_process_from_ending():
    subprocess.run([sys.executable, "-c", HANGS], cwd=ROOT, check=True, timeout=60)
