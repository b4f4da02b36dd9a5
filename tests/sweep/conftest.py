"""Places to keep results in: a folder, a bucket behind a real S3 API, and memory."""

import secrets
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def place_on(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[str], str]:
    """``place_on(kind)`` is a new place of that kind."""

    def new(kind: str) -> str:
        if kind == "s3":
            return f"s3://{request.getfixturevalue('s3').bucket()}/results/sweep"
        if kind == "memory":
            return f"memory://{secrets.token_hex(8)}/sweep"
        return str(tmp_path / "results" / "sweep")

    return new


@pytest.fixture(params=["local", "s3"])
def shared(request: pytest.FixtureRequest, place_on: Callable[[str], str]) -> str:
    """A place that several processes see."""
    return place_on(request.param)
