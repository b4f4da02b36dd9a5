"""A Slurm cluster of namespaces on this machine: a login node and four nodes, for tests.

Every node has a network, processes, a host name, /tmp and /dev/shm of its own; the file system is
shared, as on a cluster. Users, configuration and network live in the namespaces alone, so all of it
is gone with the processes, which end with the test's. Needs root, Linux and the packages.
"""

import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.commands import poll, wait_until

PACKAGES = "slurm-wlm munge iproute2 util-linux procps"
PROGRAMS = ("slurmctld", "slurmd", "munged", "ip", "unshare", "nsenter", "setpriv", "ps")
LOGIN = "login"
GPUS = {"n1": 8, "n2": 8, "n3": 4, "n4": 0}
USERS = {"ada": 20001, "bob": 20002}
ADDRESS = {name: f"10.77.0.{10 + i}" for i, name in enumerate([LOGIN, *GPUS])}
CPUS = 2

SLURM = """
ClusterName=namespaces
SlurmctldHost={login}({login_address})
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={base}/munge.socket,cred_expire=5
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool/%n
SlurmctldPidFile={base}/slurmctld.pid
SlurmdPidFile={base}/slurmd.%n.pid
SlurmctldLogFile={base}/slurmctld.log
SlurmdLogFile={base}/slurmd.%n.log
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
ReturnToService=2
SlurmdTimeout=20
KillWait=30
MinJobAge=3600
{nodes}
PartitionName=main Nodes={names} Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """What is missing for a cluster here; None where one can be built."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "a Slurm of namespaces needs root on Linux"
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    return f"{', '.join(missing)} missing: install {PACKAGES}" if missing else None


@contextmanager
def slurm_cluster() -> Iterator["SlurmCluster"]:
    """A cluster that is up; nothing of it is left afterwards."""
    base = Path(tempfile.mkdtemp(prefix="slurm-", dir="/var/tmp"))
    base.chmod(0o755)
    cluster = SlurmCluster(base)
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()
        shutil.rmtree(base)


@dataclass
class SlurmCluster:
    """``base`` holds configuration, homes and logs."""

    base: Path
    _nodes: "dict[str, subprocess.Popen[bytes]]" = field(default_factory=dict)
    _switch: "subprocess.Popen[bytes] | None" = None

    def up(self) -> None:
        self._write_configuration()
        self._switch = self._hold("unshare", "--net", "sleep", "infinity")
        wait_until(lambda: _has_own_network(self._switch.pid), 10)
        self._on_switch("link add br0 type bridge")
        self._on_switch("link set br0 up")
        for name in (LOGIN, *GPUS):
            self.start(name)
        assert poll(self.is_idle, 60, 1.0) is not None, "the nodes do not come up"

    def is_idle(self) -> bool:
        """Every node is up, and none is in use."""
        return self.run("sinfo --noheader --format=%t || true").split() == ["idle"]

    def down(self) -> None:
        for name in list(self._nodes):
            self.cut_power(name)
        if self._switch is not None:
            self._switch.kill()
            self._switch.wait()

    def start(self, name: str) -> None:
        """Switch a node on."""
        mounts = [
            f"mount --bind {shlex.quote(str(source))} {target}"
            for source, target in (
                (self.base / "etc", "/etc"),
                (self.base / "tmp" / name, "/tmp"),
            )
        ]
        if name == LOGIN:
            files = " ".join(f"--{f}-file={self.base}/munge.{f}" for f in ("key", "pid", "seed"))
            munged = f"munged --foreground --force {files} --socket={self.base}/munge.socket"
            daemons = f"{munged} & sleep 1; slurmctld -D"
        else:
            daemons = f"slurmd -D -N {name}"
        boot = [
            f"exec >{self.base}/{name}.out 2>&1",
            "set -e",
            "cd /",
            f"hostname {name}",
            *_readable_python(),
            *mounts,
            "mount -t tmpfs -o size=4g,mode=1777 shm /dev/shm",
            "until ip link show eth0; do sleep 0.1; done",
            f"{daemons} & while :; do sleep 1000; done",
        ]
        (self.base / "spool" / name).mkdir(parents=True, exist_ok=True)
        temporary = self.base / "tmp" / name
        shutil.rmtree(temporary, ignore_errors=True)  # as after any start
        temporary.mkdir(parents=True)
        temporary.chmod(0o1777)
        flags = "--net --pid --mount --uts --ipc --mount-proc --fork --kill-child"
        node = self._hold("unshare", *flags.split(), "bash", "-c", "\n".join(boot))
        self._nodes[name] = node
        wait_until(lambda: _has_own_network(node.pid), 10)
        self._on_switch(f"link add {name} type veth peer name eth0 netns {node.pid}")
        self._on_switch(f"link set {name} master br0 up")
        inside = ["nsenter", "-t", str(node.pid), "--net", "ip"]
        for command in (
            "link set lo up",
            f"addr add {ADDRESS[name]}/24 dev eth0",
            "link set eth0 up",
        ):
            subprocess.run([*inside, *command.split()], check=True)

    def cut_power(self, name: str) -> None:
        """Every process of a node is killed, and has gone."""
        node = self._nodes.pop(name)
        first = _first_process(node)
        if first is None:
            node.kill()
        else:
            os.kill(first, signal.SIGKILL)  # the kernel ends the others before this one has ended
        node.wait()
        # The other end of its cable goes with it, but a moment later.
        subprocess.run(self._ip(f"link del {name}"), stderr=subprocess.DEVNULL)

    def run(
        self,
        command: str,
        *,
        node: str = LOGIN,
        user: str | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> str:
        """What ``command`` prints, typed at ``node`` by ``user`` in his home; root if None."""
        first = _first_process(self._nodes[node])
        home = self.home(user) if user is not None else self.base
        become = []
        if user is not None:
            number = str(USERS[user])
            become = ["setpriv", "--reuid", number, "--regid", number, "--clear-groups"]
        environment = {"PATH": os.environ["PATH"], "HOME": str(home), **(variables or {})}
        done = subprocess.run(
            ["nsenter", "-t", str(first), "-a", *become, "bash", "-c", f"cd {home} && {command}"],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{command}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def home(self, user: str) -> Path:
        return self.base / "home" / user

    def processes(self, node: str, user: str) -> list[str]:
        """Command lines of a user's processes at a node."""
        found = self.run(f"ps -u {USERS[user]} -o args= || true", node=node)
        return found.splitlines()

    def files(self, node: str) -> list[str]:
        """What lies in a node's /tmp and /dev/shm."""
        return self.run("ls -A /tmp /dev/shm | grep -v ':$' || true", node=node).split()

    def _write_configuration(self) -> None:
        etc = self.base / "etc"  # whole: a file that this machine replaces would lose its mount
        subprocess.run(["cp", "--archive", "/etc", str(etc)], check=True)
        (etc / "slurm").mkdir(exist_ok=True)
        (self.base / "state").mkdir()
        nodes = "\n".join(
            f"NodeName={name} NodeAddr={ADDRESS[name]} CPUs={CPUS} RealMemory=1000 Gres=gpu:{gpus}"
            for name, gpus in GPUS.items()
        )
        text = SLURM.format(
            base=self.base,
            login=LOGIN,
            login_address=ADDRESS[LOGIN],
            nodes=nodes.replace(" Gres=gpu:0", ""),
            names=",".join(GPUS),
        )
        (etc / "slurm/slurm.conf").write_text(text)
        (etc / "slurm/cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")  # 22.05 looks for one
        gres = []
        for name, gpus in GPUS.items():
            for i in range(gpus):
                device = self.base / f"gpu-{name}-{i}"
                os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))  # /dev/null by any name
                gres.append(f"NodeName={name} Name=gpu File={device}\n")
        (etc / "slurm/gres.conf").write_text("".join(gres))
        hosts = [f"{address} {name}\n" for name, address in ADDRESS.items()]
        (etc / "hosts").write_text("127.0.0.1 localhost\n" + "".join(hosts))
        for name, line in (("passwd", "{u}:x:{i}:{i}::{h}:/bin/bash\n"), ("group", "{u}:x:{i}:\n")):
            ours = [line.format(u=u, i=i, h=self.home(u)) for u, i in USERS.items()]
            with (etc / name).open("a") as file:
                file.write("".join(ours))
        for user, number in USERS.items():
            self.home(user).mkdir(parents=True)
            os.chown(self.home(user), number, number)
        key = self.base / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)

    def _hold(self, *command: str) -> "subprocess.Popen[bytes]":
        """A process that ends with this one, and that the nodes hang on."""
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _ip(self, arguments: str) -> list[str]:
        return ["nsenter", "-t", str(self._switch.pid), "--net", "ip", *arguments.split()]

    def _on_switch(self, arguments: str) -> None:
        subprocess.run(self._ip(arguments), check=True)


def _has_own_network(pid: int) -> bool:
    mine = Path("/proc/self/ns/net").readlink()
    return Path(f"/proc/{pid}/ns/net").readlink() != mine


def _first_process(node: "subprocess.Popen[bytes]") -> int | None:
    """Process 1 of a node, as this machine numbers it; None where it has not begun or has ended."""
    children = Path(f"/proc/{node.pid}/task/{node.pid}/children").read_text().split()
    return int(children[0]) if children else None


def _readable_python() -> list[str]:
    """Commands that let other users reach this interpreter where it lies in a closed folder."""
    tops = {}
    for prefix in {Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve()}:
        closed = [folder for folder in prefix.parents if not folder.stat().st_mode & 0o001]
        if closed:
            tops[shlex.quote(str(prefix))] = shlex.quote(str(closed[-1]))
    kept = {prefix: f"/mnt/{i}" for i, prefix in enumerate(tops)}
    return [
        "mount -t tmpfs kept /mnt",
        *(f"mkdir {place}; mount --bind {prefix} {place}" for prefix, place in kept.items()),
        *(f"mount -t tmpfs -o mode=755 closed {top}" for top in set(tops.values())),
        *(f"mkdir -p {prefix}; mount --move {place} {prefix}" for prefix, place in kept.items()),
    ]
