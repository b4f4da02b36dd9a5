"""A Ray of one's own that is slow to start is tried once more; any other failure is not."""

import os
from importlib import import_module
from unittest import mock

import pytest

from trainer.config.config_errors import ConfigError

SLOW = "The current node timed out during startup. This could happen because ..."


@pytest.mark.parametrize(
    ("address", "said", "starts"),
    [(None, SLOW, 2), (None, "no space is left", 1), ("ray://head", SLOW, 1)],
)
def test_a_start_is_repeated_once_where_it_was_slow(monkeypatch, address, said, starts):
    with mock.patch.dict(os.environ):  # it sets what Ray reads there
        ray_cluster = import_module("sweep.cluster.ray")
    tried = []

    def start(**settings):
        tried.append(settings)
        raise RuntimeError(said)

    monkeypatch.setattr(ray_cluster.ray, "init", start)
    monkeypatch.setattr(ray_cluster, "Watchdog", lambda: None)
    with pytest.raises(ConfigError, match="Ray c"):
        ray_cluster.RayPool(address)
    assert len(tried) == starts
