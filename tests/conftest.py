"""What tests of several rooms share."""

import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tests.support.s3 import Service

# A shell ignores Ctrl-C for what it starts in the background, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
# A busy machine is no finding: properties are judged by what they say, not by how long it takes.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let one worker run a file's tests, so that its fixtures are made once (``--dist loadgroup``).

    A file may name a group that it shares with others: those that start Ray, or a bucket.
    """
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))


@pytest.fixture(scope="session")
def s3() -> Iterator["Service"]:
    """A real S3 API on loopback."""
    from tests.support.s3 import s3_service  # moto takes a second, which most tests do not need

    with s3_service() as service:
        yield service
