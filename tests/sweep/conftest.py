"""Places to keep results (a folder, a bucket behind a real S3 API, memory), and a quick driver."""

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


@pytest.fixture
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver looks around all the time, so that no test waits for its next look."""
    monkeypatch.setattr("sweep.driver.driver.LOOK_EVERY_S", 0.01)
    monkeypatch.setattr("sweep.driver.driver.TICK_S", 0.01)
    monkeypatch.setattr("sweep.driver.driver.POLL_EVERY_S", 0.05)
