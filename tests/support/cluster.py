"""A Ray cluster of several machines on this one, and the ways in which machines fail.

A machine is one process (tests/support/init.py) with ``ray start --block`` below it, an address of
its own on the loopback device, and a lasting name. Whatever runs on it is found below that process.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.support.commands import alive, environment, poll

INIT = Path(__file__).with_name("init.py")
BAD_NODE = Path(__file__).with_name("bad_node.py")
RAY = str(Path(sys.executable).with_name("ray"))
HEAD = "head"
START_S = 60.0
UP = "Ray runtime started"
KILL_S = 10.0
OBJECT_STORE_BYTES = 80_000_000  # Ray accepts no less
BOARD = "ray::Board"  # of the driver that came first (sweep/cluster/board.py)
NO_AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent", "ray::IDLE", BOARD)

# Ray takes a node for dead after so long, and a driver its head for gone. Nodes are given longer:
# an agent without its head has to end by itself, as under Ray's default of 60 s.
HEALTH_CHECKS_S, RECONNECT_S, NODE_RECONNECT_S = 3.0, 4.0, 40.0
HASTY = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",  # a test that has imported Ray has switched it off
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}
PATIENT = {key: value for key, value in HASTY.items() if "health_check" not in key}
NOTICE_S = 30.0  # that Ray gives by default to what runs on a node that is sent SIGTERM
RECONNECT = "RAY_gcs_rpc_server_reconnect_timeout_s"


@dataclass(frozen=True, slots=True)
class Machine:
    """What runs below one init: a node of the cluster, or the driver."""

    name: str
    init: "subprocess.Popen[bytes]"
    log: Path

    @classmethod
    def boot(
        cls, name: str, command: Sequence[str], log: Path, variables: Mapping[str, str], cwd: Path
    ) -> "Machine":
        with log.open("ab") as output:
            init = subprocess.Popen(
                [sys.executable, str(INIT), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(**variables),
                cwd=cwd,
                start_new_session=True,
            )
        return cls(name, init, log)

    @property
    def is_up(self) -> bool:
        """Something of it is left."""
        return self.init.poll() is None

    def processes(self) -> list[psutil.Process]:
        """All that runs on it, without the init."""
        return below([self.init.pid])[self.init.pid]

    def kill(self) -> None:
        """Everything at once, as when the power goes."""
        deadline_s = time.monotonic() + KILL_S
        while self.is_up:
            for process in self.processes():
                with contextlib.suppress(psutil.Error):
                    process.kill()
            assert time.monotonic() < deadline_s, f"{self.name} cannot be killed"
            time.sleep(0.02)

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


@dataclass
class Cluster:
    """A head without resources, and ``names`` with ``cpus`` and as many ``gpus`` declared each."""

    names: Sequence[str] = ("node-a", "node-b", "node-c")
    cpus: int = 1
    gpus: int = 1
    settings: Mapping[str, str] = field(default_factory=lambda: HASTY)
    address: str = ""
    machines: dict[str, Machine] = field(default_factory=dict)
    _folder: Path = field(init=False)
    _started: int = 0

    def __enter__(self) -> "Cluster":
        self._folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short: Unix sockets
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def variables(self) -> dict[str, str]:
        """What leads a driver to it."""
        return {**self.settings, RECONNECT: f"{RECONNECT_S:g}", "RAY_ADDRESS": self.address}

    def start(self) -> None:
        """Bring up the head, then every node."""
        head = self._boot(HEAD, ["--head", "--port=0", "--include-dashboard=false"], 0, 0)
        self.address = _wait_for(head, r"--address='([^']+)'")
        for name in self.names:
            self._boot_node(name)
        for machine in self.machines.values():
            _wait_for(machine, UP)

    def tend(self) -> list[str]:
        """Replace nodes that have gone by themselves, as an operator would; returns their names.

        Ray with little patience takes a node of a busy machine for dead at times.
        """
        gone = [name for name in self.names if not self.machines[name].is_up]
        for name in gone:
            self.replace(name)
        return gone

    @property
    def is_complete(self) -> bool:
        return all(UP in machine.text() for machine in self.machines.values())

    def replace(self, name: str) -> None:
        """Boot ``name`` anew, in place of what is left of it."""
        self.machines[name].kill()
        self._boot_node(name)

    def processes(self) -> dict[str, list[psutil.Process]]:
        """By the name of the machine, from one look."""
        found = below([machine.init.pid for machine in self.machines.values()])
        return {name: found[machine.init.pid] for name, machine in self.machines.items()}

    def gcs(self) -> psutil.Process:
        """The head's one process that everything else depends on."""
        return self._process(HEAD, "gcs_server")

    def raylet(self, name: str) -> psutil.Process:
        return self._process(name, "raylet")

    def spoil(self, name: str, how: str) -> None:
        """From now on every cell that begins on ``name`` meets tests/support/bad_node.py."""
        bad = self._site(name) / "bad"
        bad.with_suffix(".new").write_text(how)
        bad.with_suffix(".new").replace(bad)  # at once: cells look at it while they wait

    def has_waiting(self, name: str, how: str) -> bool:
        """Whether a cell has begun on ``name`` that waits since it was spoilt so."""
        return (self._site(name) / how).exists()

    def mend(self, name: str) -> None:
        (self._site(name) / "bad").unlink()

    def stop(self) -> None:
        for machine in self.machines.values():
            machine.kill()
        self.machines.clear()

    def restart(self) -> None:
        """Bring everything up anew, as Ray does after the loss of its head."""
        self.stop()
        self.start()

    def _process(self, name: str, program: str) -> psutil.Process:
        (found,) = (p for p in self.machines[name].processes() if p.name() == program)
        return found

    def _site(self, name: str) -> Path:
        """A folder of Python modules that the machine ``name`` alone has."""
        site = self._folder / "sites" / name
        if not site.exists():
            site.mkdir(parents=True)
            shutil.copy(BAD_NODE, site / "sitecustomize.py")
        return site

    def _boot_node(self, name: str) -> None:
        own = f"127.0.0.{2 + self.names.index(name)}"
        options = [f"--address={self.address}", f"--node-ip-address={own}"]
        self._boot(name, options, self.cpus, self.gpus)

    def _boot(self, name: str, options: Sequence[str], cpus: int, gpus: int) -> Machine:
        self._started += 1
        folder = self._folder / f"{self._started}"
        command = [RAY, "start", "--block", *options, f"--temp-dir={folder}"]
        command += [f"--num-cpus={cpus}", f"--num-gpus={gpus}", "--include-log-monitor=false"]
        command += [f"--object-store-memory={OBJECT_STORE_BYTES}"]
        command += [f"--labels=activation-sweep-node={name}"]
        log = self._folder / f"{self._started}-{name}.log"
        path = [str(self._site(name)), *filter(None, [os.environ.get("PYTHONPATH")])]
        variables = {**self.settings, RECONNECT: f"{NODE_RECONNECT_S:g}"}
        variables["PYTHONPATH"] = os.pathsep.join(path)
        self.machines[name] = Machine.boot(name, command, log, variables, self._folder)
        return self.machines[name]


def below(roots: Collection[int]) -> dict[int, list[psutil.Process]]:
    """What runs below each of ``roots``, from one look at all processes: it is asked for often."""
    children: dict[int, list[int]] = defaultdict(list)
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            parent = int(entry.read_bytes().rpartition(b")")[2].split()[1])
            children[parent].append(int(entry.parent.name))
    return {root: alive(list(_processes(_closure(root, children)))) for root in roots}


def _closure(root: int, children: Mapping[int, Sequence[int]]) -> Iterator[int]:
    for child in children.get(root, ()):
        yield child
        yield from _closure(child, children)


def _processes(pids: Iterable[int]) -> Iterator[psutil.Process]:
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            yield psutil.Process(pid)


def program_of(process: psutil.Process) -> list[str]:
    """Its command line; empty if it has gone."""
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def is_rank(process: psutil.Process) -> bool:
    line = program_of(process)
    return "--spec" in line and "trainer" in line


def is_server(process: psutil.Process) -> bool:
    """What ranks are forked from."""
    return "trainer.fork_server.server" in program_of(process)


def is_driver(process: psutil.Process) -> bool:
    return program_of(process)[1:4] == ["-m", "sweep", "run"]


def is_ray_start(process: psutil.Process) -> bool:
    """The first process of a node, which is what a container's is told that it ends."""
    return program_of(process)[2:4] == ["start", "--block"]


def is_agent(process: psutil.Process) -> bool:
    """A worker of Ray that is not one of Ray's own, nor the board."""
    line = program_of(process)
    return bool(line) and line[0].startswith("ray::") and not line[0].startswith(NO_AGENTS)


def ours(machine: Machine) -> list[psutil.Process]:
    """Agents, their fork servers, and ranks."""
    return [p for p in machine.processes() if is_agent(p) or is_server(p) or is_rank(p)]


def describe(process: psutil.Process) -> str:
    """For people: ``rank 4711 (stopped)``."""
    try:
        line = process.cmdline()
        name = (line or [process.name()])[0].rpartition("/")[2]
        name = "rank" if is_rank(process) else "driver" if is_driver(process) else name
        return f"{name} {process.pid} ({process.status()})"
    except psutil.Error:
        return f"process {process.pid}, gone"


def resume(process: psutil.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGCONT)


def _wait_for(machine: Machine, pattern: str) -> str:
    """What ``pattern`` finds in the machine's output."""

    def said() -> re.Match[str] | None:
        assert machine.is_up, f"{machine.name} did not come up:\n{machine.text()}"
        return re.search(pattern, machine.text())

    assert poll(said, START_S) is not None, f"{machine.name} is not up:\n{machine.text()}"
    match = said()
    assert match is not None
    return match[1] if match.groups() else match[0]
