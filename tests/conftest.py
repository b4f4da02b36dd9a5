"""What tests of several rooms share."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tests.support.s3 import Service

# A busy machine is no finding: properties are judged by what they say, not by how long it takes.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture(scope="session")
def s3() -> Iterator["Service"]:
    """A real S3 API on loopback."""
    from tests.support.s3 import s3_service  # moto takes a second, which most tests do not need

    with s3_service() as service:
        yield service
