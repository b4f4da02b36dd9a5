"""What tests of several rooms share."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.s3 import Service


@pytest.fixture(scope="session")
def s3() -> Iterator["Service"]:
    """A real S3 API on loopback."""
    from tests.support.s3 import s3_service  # moto takes a second, which most tests do not need

    with s3_service() as service:
        yield service
