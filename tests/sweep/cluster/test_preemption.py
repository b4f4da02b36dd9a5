"""A node that is warned and then goes, as spot nodes do: its cells go on where they were.

The warning is SIGTERM to ``ray start --block``, as a container's first process gets it. Not
claimed: that every cloud gives one, or gives it in time.
"""

import json
import signal
from pathlib import Path

import pytest

from tests.support.chaos import SETTLE_S, Chaos
from tests.support.cluster import Cluster, program_of
from tests.support.settled import attempt_row, closed_attempts
from tests.support.tiny import build_tiny_dataset

NOTICE_S = 30.0  # that Ray gives by default before it ends what runs


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_warned_nodes_cell_goes_on_elsewhere_from_the_step_at_which_it_was_stopped(tmp_path):
    data = tmp_path / "data"
    build_tiny_dataset(data)
    with Cluster(names=("node-a", "node-b")) as cluster:
        sweep = Chaos(
            cluster, tmp_path, data, seed=1, replicates=1, steps=600, checkpoint_every_s=1e6
        )

        def steps():
            """Of the node's cell, as its rank says."""
            ranks = (rank for w in sweep.working() if w.node == "node-a" for rank in w.ranks)
            files = (Path(rank.cwd()) / "progress.json" for rank in ranks)
            return max((json.loads(file.read_bytes())["step"] or 0 for file in files), default=0)

        def rows():
            return [attempt_row(sweep.store, stem) for stem in closed_attempts(sweep.store)]

        try:
            sweep.wait(lambda: sweep.at_work() and steps() > 30, SETTLE_S, "30 steps are taken")
            first = next(p for p in cluster.machines["node-a"].processes() if ray_start(p))
            first.send_signal(signal.SIGTERM)
            sweep.wait(rows, NOTICE_S, "its attempt has ended before the node has")
            (ended,) = rows()
            assert (ended["state"], ended["failure"]) == ("interrupted", "preemption")
            assert ended["node"] == "node-a"
            sweep.wait(lambda: not sweep.driver.is_up, SETTLE_S, "the sweep has ended")
        finally:
            sweep.stop()
        again = [row for row in rows() if row["cell_id"] == ended["cell_id"]]
        (resumed,) = (row for row in again if row["state"] == "succeeded")
        assert resumed["node"] == "node-b"
        assert resumed["resumed_from_step"] > 30
        sweep.see_settled([sweep.driver])


def ray_start(process):
    return program_of(process)[2:4] == ["start", "--block"]
