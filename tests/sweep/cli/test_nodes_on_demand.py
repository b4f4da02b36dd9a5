"""Before the first node is up, and where nodes go away: what is asked and said of the cost."""

from dataclasses import replace

import pytest

from sweep.cli import verbs
from sweep.environment import Environment
from tests.support.pool import FakePool
from tests.support.trial import invocation, said
from trainer.config.config_errors import ConfigError


def on_demand(folder, old="", new=""):
    """A sweep of 12 cells on a cluster without a node, which grows to three."""
    run = invocation(folder, autoscale=3)
    file = folder / "trial.toml"
    file.write_text(file.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    return replace(
        run,
        environment=Environment(ray_address="head:6379", yes=False),
        connect=lambda address: FakePool(None, names=[]),
    )


def test_what_it_costs_is_asked_where_no_node_is_up_yet(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    run = on_demand(tmp_path, "cell_s = 1.0", "cell_s = 3600.0")
    with pytest.raises(ConfigError, match=r"about 12\.0 node-hours\. Confirm with YES=1"):
        verbs.run(run)
    assert "No node fits yet; up to 3 leases are asked for." in said(run)


COSTS = {
    "": "costs its cell at most 4.0 min of training",
    'checkpoints = { keep = "node" }\n': "warning: checkpoints.keep",
}


@pytest.mark.parametrize("keep", COSTS)
def test_a_plan_says_what_a_node_that_is_taken_away_costs(tmp_path, keep):
    run = on_demand(tmp_path, "", keep)
    verbs.plan(run)
    assert COSTS[keep] in said(run)


def test_what_is_timed_starts_from_zero(tmp_path):
    run = on_demand(tmp_path, "4steps", "4s")
    verbs.plan(run)
    assert "it starts from zero" in said(run)
