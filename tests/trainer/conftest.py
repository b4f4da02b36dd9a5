"""One thread, as the trainer itself asks for, and one dataset for all tests of the trainer."""

import pytest
import torch

from tests.support.export import dataset_files, fetch, published_files
from tests.support.hub import FakeHub
from tests.support.tiny import build_tiny_dataset

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """The dataset of the recipe ``tiny``; tests that damage it work on a copy."""
    return build_tiny_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """The files of a small FineWeb export."""
    return published_files(tmp_path_factory.mktemp("published"))


@pytest.fixture
def server(published):
    """A server of that export, whose files and answers a test may change."""
    with FakeHub(dict(published)).running() as hub:
        yield hub


@pytest.fixture(scope="session")
def undisturbed(published, tmp_path_factory):
    """What a fetch of all of it leaves, if nothing goes wrong."""
    root = tmp_path_factory.mktemp("undisturbed")
    with FakeHub(dict(published)).running():
        fetch(root)
    return dataset_files(root)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"
