"""Two drivers on one cluster of Ray: each gets its share as cells end, and all when it is alone.

The board on which they show each other their claims is killed meanwhile. Cells wait for a file of
their node, so nothing depends on who is fast. Not claimed: machines that are apart from each other.
"""

import sys
from collections import Counter
from pathlib import Path

import pytest

from sweep.store.store import Store
from tests.support.cluster import BOARD, PATIENT, Cluster, Machine, program_of
from tests.support.commands import ROOT, wait_until
from tests.support.settled import attempt_row, closed_attempts
from tests.support.tiny import build_tiny_dataset

NODES = ("node-a", "node-b", "node-c", "node-d")
PATIENCE_S = 300.0  # against hanging alone
SWEEP = """
recipe = "tiny"
seeds = {seeds}
budgets = ["2steps"]
reference = "relu2"
estimate_cell_s = 4.0
activations = [{{ name = "relu2" }}, {{ name = "asqu" }}]

[node]
cpus = 1

[limits]
no_progress_s = 600.0
slow_phase_s = 600.0
"""


class Sweep:
    """A driver of its own, and what its results say."""

    def __init__(self, cluster, folder, data, name, seeds):
        (folder / f"{name}.toml").write_text(SWEEP.format(seeds=list(range(seeds))))
        self.store, self.num_cells = Store(folder / "results" / name), 2 * seeds
        command = [sys.executable, "-m", "sweep", "run", "--sweep", str(folder / f"{name}.toml")]
        command += ["--results", str(folder / "results"), "--data", str(data)]
        variables = {**cluster.variables, "YES": "1"}
        self.driver = Machine.boot("driver", command, folder / f"{name}.log", variables, ROOT)

    @property
    def nodes(self):
        """Where it has a cell running."""
        assert self.driver.is_up, self.driver.text()
        return sorted(note["node"] for _, note in self.store.running())

    def says(self, text):
        assert self.driver.is_up, self.driver.text()
        return any(text in (said.sharing or "") for said in self.store.progress().values())

    def see_ended(self):
        """Every cell is answered by its first attempt."""
        wait_until(lambda: not self.driver.is_up, PATIENCE_S)
        assert self.driver.init.returncode == 0, self.driver.text()
        folder = Path(self.store.place)
        rows = [attempt_row(folder, stem) for stem in closed_attempts(folder)]
        assert Counter(row["state"] for row in rows) == {"succeeded": self.num_cells}
        assert len({row["cell_id"] for row in rows}) == self.num_cells


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_second_driver_gets_half_as_cells_end_and_the_first_all_after_it(tmp_path):
    data, sweeps = tmp_path / "data", []
    build_tiny_dataset(data)
    with Cluster(names=NODES, settings=PATIENT) as cluster:

        def start(name, seeds):
            sweeps.append(Sweep(cluster, tmp_path, data, name, seeds))
            return sweeps[-1]

        def hold(how):
            """End the cells that wait; hold those that begin later."""
            for node in NODES:
                cluster.spoil(node, how)

        def await_cells(how):
            for node in NODES:
                wait_until(lambda node=node: cluster.has_waiting(node, how), PATIENCE_S)

        try:
            hold("wait 0")
            first = start("first", 6)
            await_cells("wait 0")
            second = start("second", 2)
            wait_until(lambda: second.says("0 of 2 leases so far"), PATIENCE_S)
            wait_until(lambda: first.says("gives back 2 of 4 leases as cells end"), PATIENCE_S)
            hold("wait 1")
            await_cells("wait 1")
            halves = first.nodes, second.nodes
            assert [len(half) for half in halves] == [2, 2]
            (board,) = boards(cluster)
            board.kill()
            wait_until(lambda: boards(cluster) not in ([], [board]), PATIENCE_S)
            hold("wait 2")
            await_cells("wait 2")
            assert (first.nodes, second.nodes) == halves
            hold("wait 3")
            await_cells("wait 3")
            assert first.nodes == list(NODES)
            second.see_ended()
            hold("no more")
            first.see_ended()
            wait_until(lambda: not boards(cluster), PATIENCE_S)
        finally:
            for sweep in sweeps:
                sweep.driver.kill()


def boards(cluster):
    processes = [process for machine in cluster.processes().values() for process in machine]
    return [p for p in processes if " ".join(program_of(p)).startswith(BOARD)]
