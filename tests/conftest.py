"""What tests of several rooms share."""

import os
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from tests.support.s3 import Service

# Those that start Ray or type a document's commands begin first, for they take longest: a worker
# has one of these groups and then all else. A third worker on two cores gains nothing: agents run
# below everyone else's priority, and wait for it.
LONGEST = {
    "tests/sweep/test_chaos.py": "cluster",
    "tests/sweep/cluster/test_shared_cluster.py": "cluster",
    "tests/sweep/cluster/test_preemption.py": "cluster",
    "tests/sweep/cli/test_command.py": "ray",
    "tests/sweep/cluster/test_head.py": "ray",
    "tests/sweep/cluster/test_pool.py": "ray",
    "tests/sweep/test_script_sweep.py": "ray",
    "tests/test_readme.py": "documents",
    "tests/test_scripts_document.py": "documents",
}

# Workers that share cores gain nothing from threads of numpy's and torch's.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell ignores Ctrl-C for what it starts in the background, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
# A busy machine is no finding: properties are judged by what they say, not by how long it takes.
settings.register_profile(
    "busy", deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("busy")


class ByFile(LoadScopeScheduling):
    """Gives the tests of a file to one worker, so that its fixtures are made once.

    The marker ``xdist_group`` would say the same; xdist 3.8 does not see it under pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return LONGEST.get(file, file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    config.option.loadscopereorder = False  # in the order of collection, the longest first
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.nodeid.partition("::")[0] not in LONGEST)


@pytest.fixture(scope="session", autouse=True)
def without_waiting_for_the_disk() -> Iterator[None]:
    """No test cuts the power: a sync sees that its file is open, which costs no milliseconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)
        yield


@pytest.fixture(scope="session")
def s3() -> Iterator["Service"]:
    """A real S3 API on loopback."""
    from tests.support.s3 import s3_service  # moto takes a second, which most tests do not need

    with s3_service() as service:
        yield service
