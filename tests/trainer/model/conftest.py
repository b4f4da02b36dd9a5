"""Triton's interpreter, in one process for all tests of the kernels."""

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from tests.support.interpreter import Interpreted, interpreter


@pytest.fixture(scope="session")
def interpreted() -> Iterator[Interpreted]:
    if find_spec("triton") is None:
        pytest.skip("Triton is not installed: it is for Linux, and of `pip install .[dev]` there")
    with interpreter() as call:
        yield call
