"""One thread, as the trainer itself asks for, and one dataset for all tests of the trainer."""

import pytest
import torch

from tests.support.tiny import build_tiny_dataset

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """The dataset of the recipe ``tiny``; tests that damage it work on a copy."""
    return build_tiny_dataset(tmp_path_factory.mktemp("data"))
