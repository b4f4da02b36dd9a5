"""A long sweep on a cluster that is being broken: its driver, who is at work, how it must end.

What is done to it is in tests/support/rounds.py. Every wait has a deadline; one that passes is an
error that tells what happened until then, and the sweep's folder stays.
"""

import contextlib
import itertools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from sweep.spec.grid import Cell
from tests.support.cluster import (
    Cluster,
    Machine,
    describe,
    is_agent,
    is_rank,
    is_server,
)
from tests.support.commands import ROOT, alive, poll
from tests.support.settled import (
    assert_settled,
    attempt_row,
    cells_of_file,
    closed_attempts,
    open_attempts,
    started_cells,
    undisturbed,
)
from trainer.config.config_errors import ConfigError
from trainer.contract import SPEC_FILE, read_spec, spec_hash

SETTLE_S = 600.0
GONE_S = 15.0  # what is killed is gone by then, and everything below it; it takes less than one
NUM_LEASES, REPLICATES, STEPS = 2, 400, 60

NO_PROGRESS_S, SLOW_PHASE_S = 5.0, 15.0
STRIKES, STRIKE_AGE_S = 3, 60.0  # a node that was mended is there again soon
AGENT_SILENCE_S, DRIVER_SILENCE_S = 4.0, 5.0
SWEEP = """
recipe = "tiny"
seeds = [{seed}]
budgets = ["{steps}steps"]
replicates = {replicates}
reference = "relu2"
estimate_cell_s = 4.0
log_every = 1
activations = [{{ name = "relu2" }}, {{ name = "asqu" }}]

[node]
cpus = 1
max_leases = {leases}

[limits]
no_progress_s = {no_progress_s}
slow_phase_s = {slow_phase_s}
agent_silence_s = {agent_silence_s}
driver_silence_s = {driver_silence_s}
grace_s = 60.0

[retries]
infrastructure = 50
hang = 50
strikes = {strikes}
strike_age_s = {strike_age_s}

[checkpoints]
keep = "node"
every_s = {every_s}
folder = "{checkpoints}"
"""


class Unrecovered(AssertionError):  # noqa: N818  (it is what happened, not a fault of the caller)
    """A round or a sweep that did not come out as it must."""


@dataclass(frozen=True, slots=True)
class Working:
    """An agent that has ranks, and its node."""

    node: str
    agent: psutil.Process
    ranks: tuple[psutil.Process, ...]
    servers: tuple[psutil.Process, ...] = ()

    @property
    def processes(self) -> list[psutil.Process]:
        return [self.agent, *self.ranks, *self.servers]


@dataclass
class Chaos:
    """One sweep in ``folder`` on ``cluster``, its driver, and the faults it has met."""

    cluster: Cluster
    folder: Path
    data: Path
    seed: int
    replicates: int = REPLICATES
    steps: int = STEPS
    checkpoint_every_s: float = 0.2
    driver: Machine = field(init=False)
    timeline: list[str] = field(default_factory=list)
    _earlier: list[Machine] = field(default_factory=list)
    _states: dict[str, str] = field(default_factory=dict)
    _ids: Mapping[str, str] = field(init=False)
    _start_s: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write_sweep(self.replicates)
        self._ids = {spec_hash(cell.spec): cell.id for cell in self.cells()}
        self.driver = self.boot_driver()

    @property
    def store(self) -> Path:
        return self.folder / "results" / "chaos"

    @property
    def file(self) -> Path:
        return self.folder / "chaos.toml"

    def finish(self) -> list[dict[str, Any]]:
        """End the sweep at what was begun: see that it is settled, as if undisturbed.

        The driver is killed once more, and its next run has a grid that is cut to the replicates
        that were reached: so a sweep has as many cells as its rounds took time for.
        """
        try:
            self.driver.kill()
            started = started_cells(self.store)
            reached = [c.spec.replicate for c in self.cells() if c.id in started]
            self._write_sweep(max(reached) + 1)
            self.start_driver()
            self.wait(lambda: not self.driver.is_up, SETTLE_S, "what was begun is settled")
            return self.see_settled([self.driver])
        except Exception as error:
            raise self.failure(f"at the end: {error}") from error

    def see_settled(self, drivers: Sequence[Machine]) -> list[dict[str, Any]]:
        """All ``drivers`` have ended well, nothing is left, and every row is as it must be.

        One that has nothing to do while another runs the last cells ends with 3: not settled yet.
        """
        statuses = sorted(driver.init.returncode for driver in drivers)
        assert statuses[0] == 0, f"drivers ended with {statuses}"
        assert set(statuses) <= {0, 3}, f"drivers ended with {statuses}"
        self.wait(lambda: not alive(self.ours()), GONE_S, "no agent and no rank is left")
        expected = undisturbed(self.cells(), self.folder / "undisturbed")
        attempts = assert_settled(self.store, self.cells(), expected)
        resumed = sum(row.get("resumed_from_step") is not None for row in attempts)
        self.note(f"{len(self.cells())} cells, {len(attempts)} attempts, {resumed} resumed")
        return attempts

    def cells(self) -> list[Cell]:
        return cells_of_file(self.file, self.data)

    def start_driver(self) -> None:
        """Start the sweep again, in place of a driver that is gone or ending."""
        self._earlier.append(self.driver)
        self.driver = self.boot_driver()

    def boot_driver(self, *options: str) -> Machine:
        """A driver of this sweep, and perhaps not the only one."""
        command = [sys.executable, "-m", "sweep", "run", "--sweep", str(self.file)]
        command += ["--results", str(self.folder / "results"), "--data", str(self.data)]
        log, settings = self.folder / "driver.log", {**self.cluster.variables, "YES": "1"}
        return Machine.boot("driver", [*command, *options], log, settings, ROOT)

    def stop(self) -> None:
        for driver in (*self._earlier, self.driver):
            driver.kill()

    def working(self) -> list[Working]:
        """Every agent that has ranks and is not stopped."""
        found = []
        for name, processes in self.cluster.processes().items():
            for agent in filter(is_agent, processes):
                with contextlib.suppress(psutil.Error):
                    below = [p for p in processes if p.ppid() == agent.pid]
                    ranks = tuple(filter(is_rank, below))
                    if ranks and agent.status() != psutil.STATUS_STOPPED:
                        found.append(Working(name, agent, ranks, tuple(filter(is_server, below))))
        return found

    def at_work(self) -> bool:
        """All nodes are up, all leases have ranks. A driver that has ended is an error."""
        for name in self.cluster.tend():
            self.note(f"{name} had gone by itself and comes back")
        assert self.driver.is_up, f"the driver has ended with {self.driver.init.returncode}"
        return self.cluster.is_complete and len(self.working()) >= NUM_LEASES

    def num_successes(self) -> int:
        """Of the attempts that are closed."""
        for stem in closed_attempts(self.store) - set(self._states):
            self._states[stem] = attempt_row(self.store, stem)["state"]
        return list(self._states.values()).count("succeeded")

    def attempts_of(self, processes: Sequence[psutil.Process]) -> frozenset[str]:
        """Stems of the open attempts that the ranks among ``processes`` are making."""
        cells = set()
        for rank in filter(is_rank, processes):
            with contextlib.suppress(psutil.Error, ConfigError):  # it has just ended
                cells.add(self._ids[spec_hash(read_spec(Path(rank.cwd()) / SPEC_FILE))])
        return frozenset(
            stem for stem in open_attempts(self.store) if stem.rpartition("-")[0] in cells
        )

    def ours(self) -> list[psutil.Process]:
        """Agents, their fork servers, and ranks on all nodes."""
        everywhere = itertools.chain(*self.cluster.processes().values())
        return [p for p in everywhere if is_agent(p) or is_server(p) or is_rank(p)]

    def wait(self, condition: Callable[[], object], deadline_s: float, what: str) -> float:
        taken_s = poll(condition, deadline_s)
        if taken_s is None:
            raise Unrecovered(f"not within {deadline_s:g} s: {what}")
        self.note(f"{what}: after {taken_s:.1f} s")
        return taken_s

    def note(self, text: str) -> None:
        self.timeline.append(f"{self.now_s:7.1f} s  {text}")

    @property
    def now_s(self) -> float:
        return time.monotonic() - self._start_s

    def failure(self, what: str) -> Unrecovered:
        self.note(f"FAILED: {what}")
        running = [f"  {describe(process)}" for process in alive(self.ours())]
        parts = [what, *self.timeline, "agents and ranks that run:", *running]
        parts += [f"everything is kept in {self.folder}; the driver said last:"]
        return Unrecovered("\n".join([*parts, self.driver.text()[-3000:]]))

    def _write_sweep(self, replicates: int) -> None:
        text = SWEEP.format(
            seed=self.seed,
            steps=self.steps,
            every_s=self.checkpoint_every_s,
            replicates=replicates,
            leases=NUM_LEASES,
            no_progress_s=NO_PROGRESS_S,
            slow_phase_s=SLOW_PHASE_S,
            agent_silence_s=AGENT_SILENCE_S,
            driver_silence_s=DRIVER_SILENCE_S,
            checkpoints=self.folder / "checkpoints",
            strikes=STRIKES,
            strike_age_s=STRIKE_AGE_S,
        )
        self.file.write_text(text, encoding="utf-8")
