"""The batch script on a real Slurm of four nodes: to the end, and through whatever ends it earlier.

Run by `make test-cluster`; docs/clusters.md says what came of it. Not claimed: real GPUs, several
real machines, a Slurm that contains jobs by cgroups.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sweep.store.store import Store
from tests.support.commands import ROOT, poll
from tests.support.slurm import GPUS, USERS, slurm_cluster, why_not

STOPPED = "The job was stopped; requeued or submitted again, it goes on."
WAIT_S = 600  # against hanging alone; nothing is judged by it
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.timeout(3 * WAIT_S),
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]

SWEEP = """
recipe = "tiny"
seeds = {seeds}
budgets = ["{steps}steps"]
reference = "relu2"
estimate_cell_s = 10.0

[[activations]]
name = "relu2"

[[activations]]
name = "leaky_relu2"
slope = 0.5

[node]
cpus = 2
gpus = {gpus}

[limits]
grace_s = 10.0
"""


def wait(condition):
    """Ask every second, for each question is a process."""
    assert poll(condition, WAIT_S, 1.0) is not None, f"waited {WAIT_S} s in vain"


@pytest.fixture(scope="module")
def cluster():
    with slurm_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def data(cluster):
    folder = cluster.base / "data"
    prepare = ["-m", "trainer.data", "prepare", "--recipe", "tiny", "--root", str(folder)]
    subprocess.run([sys.executable, *prepare, "--offline"], check=True, cwd=ROOT)
    return folder


class Account:
    """A user with a checkout in his home, who submits jobs and reads what they left."""

    def __init__(self, cluster, user, data):
        self.cluster, self.user, self.data = cluster, user, data
        self.checkout = cluster.home(user) / "checkout"
        if not self.checkout.exists():
            _copy_project(self.checkout)
            cluster.run(f"chown -R {user}: {self.checkout}")
        self.sweep = "none"

    def write_sweep(self, name, *, cells=2, steps=4, gpus=0):
        assert cells % 2 == 0
        text = SWEEP.format(seeds=list(range(1, cells // 2 + 1)), steps=steps, gpus=gpus)
        (self.checkout / f"{name}.toml").write_text(text)
        self.sweep = name

    def run(self, command, **variables):
        variables |= {"SWEEP": f"{self.sweep}.toml", "DATA": str(self.data)}
        variables["PYTHONPATH"] = str(self.checkout)
        return self.cluster.run(f"cd checkout && {command}", user=self.user, variables=variables)

    def submit(self, *options, **variables):
        flags = " ".join(["--parsable", "--gpus-per-node=0", *options])
        return self.run(f"sbatch {flags} configs/clusters/sweep.sbatch", **variables).strip()

    def job(self, job):
        words = self.run(f"scontrol --oneliner show job {job}").split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait_for(self, job, *states):
        wait(lambda: self.job(job)["JobState"] in states)
        return self.job(job)

    def end(self, job):
        """The exit status of a job and its log, when it has ended."""
        found = self.wait_for(job, "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
        return int(found["ExitCode"].partition(":")[0]), self.log(job)

    def log(self, job):
        path = self.checkout / f"activation-sweep-{job}.log"
        return path.read_text() if path.exists() else ""

    def rows(self):
        return Store(self.checkout / "results" / self.sweep).read().rows

    def wait_until_begun(self, num_attempts):
        attempts = self.checkout / "results" / self.sweep / "attempts"
        wait(lambda: len(list(attempts.glob("*.start"))) >= num_attempts)

    def minutes_since_start(self, job):
        return int(self.run(f"squeue --noheader --job={job} --format=%M").split(":")[0])

    def wait_until_gone(self):
        """No process of the user is left on a node, and no file but checkpoints and kernels."""
        kept = {f"activation-sweep-{number}" for number in USERS.values()}

        def left(node):
            files = set(self.cluster.files(node)) - kept
            return self.cluster.processes(node, self.user) or files

        wait(lambda: not any(left(node) for node in GPUS))


def _copy_project(target: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        check=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    for name in listed:
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    (target / ".venv").symlink_to(sys.prefix)


@pytest.fixture
def ada(cluster, data):
    return Account(cluster, "ada", data)


@pytest.fixture
def bob(cluster, data):
    return Account(cluster, "bob", data)


def last_line(log):
    return log.splitlines()[-1]


def states(rows):
    return sorted(row["state"] for row in rows)


def test_a_sweep_on_one_node_and_on_two_ends_and_leaves_the_nodes_clean(ada):
    """Whatever it leaves is a checkpoint or compiled; and the nodes are whatever Slurm gives."""
    ada.write_sweep("one")
    status, log = ada.end(ada.submit())
    assert status == 0
    assert states(ada.rows()) == ["succeeded"] * 2
    assert last_line(log) == "The job is done: every cell is settled."
    assert "Ray runtime started" not in log
    ada.wait_until_gone()

    ada.write_sweep("two", cells=4)
    assert ada.end(ada.submit("--nodes=2", INTERFACE="eth0"))[0] == 0
    assert states(ada.rows()) == ["succeeded"] * 4
    assert len({row["node"] for row in ada.rows()}) == 2
    ada.wait_until_gone()


def test_an_interface_that_is_not_there_is_named_before_ray_starts(ada):
    ada.write_sweep("elsewhere")
    status, log = ada.end(ada.submit(INTERFACE="ib7"))
    assert status == 2
    assert last_line(log).startswith("error: no IPv4 address of ib7: INTERFACE= names the network")


def test_a_job_that_is_interrupted_lets_running_cells_finish_and_another_goes_on(ada):
    ada.write_sweep("interrupted", cells=4)
    job = ada.submit()
    ada.wait_until_begun(1)
    ada.run(f"scancel --batch --signal=INT {job}")
    status, log = ada.end(job)
    assert status == 130
    assert last_line(log) == STOPPED
    assert states(ada.rows()) == ["succeeded"]
    assert ada.end(ada.submit())[0] == 0
    assert states(ada.rows()) == ["succeeded"] * 4


def test_signals_before_there_is_a_driver_are_heard(ada):
    ada.write_sweep("early")
    job = ada.submit()
    ada.wait_for(job, "RUNNING")
    for _ in range(3):
        ada.run(f"scancel --batch --signal=INT {job}")
    assert ada.end(job)[0] == 130
    assert states(ada.rows()) == []


def test_at_its_time_limit_a_job_is_requeued_and_goes_on_each_time(ada):
    ada.write_sweep("limited", steps=100_000)  # it ends in no case by itself
    job = ada.submit("--signal=B:USR1@30")
    for num_limits in (1, 2):
        ada.wait_until_begun(num_limits)
        minutes = ada.minutes_since_start(job)
        ada.cluster.run(f"scontrol update JobId={job} TimeLimit={minutes + 2}")
        wait(lambda num=num_limits: ada.job(job)["Restarts"] == str(num))
        ada.cluster.run(f"scontrol update JobId={job} TimeLimit=60")
        assert states(ada.rows()) == ["interrupted"] * num_limits
        assert all("SIGUSR1" in row["reason"] for row in ada.rows())
    ada.wait_until_begun(3)
    ada.run(f"scancel {job}")
    ada.wait_for(job, "CANCELLED")
    ada.wait_until_gone()


def test_cancelled_cells_are_interrupted_with_a_reason_and_nothing_of_ours_is_left(ada):
    ada.write_sweep("cancelled", cells=2, steps=4000)
    job = ada.submit("--nodes=2")
    ada.wait_until_begun(2)
    ada.run(f"scancel {job}")
    ada.wait_for(job, "CANCELLED")
    ada.wait_until_gone()
    assert states(ada.rows()) == ["interrupted"] * 2
    assert all("SIGTERM" in row["reason"] for row in ada.rows())
    assert last_line(ada.log(job)) == STOPPED


@pytest.mark.parametrize("which", ["the worker", "the head"])
def test_a_job_that_loses_a_node_is_requeued_and_goes_on(ada, which):
    ada.write_sweep(which.replace(" ", "-"), cells=4)
    job = ada.submit("--nodes=2")
    ada.wait_until_begun(1)
    head = ada.job(job)["BatchHost"]
    (worker,) = {"n1", "n2"} - {head}
    lost = head if which == "the head" else worker
    ada.cluster.cut_power(lost)
    try:
        wait(lambda: ada.job(job)["Restarts"] == "1")
        assert ada.end(job)[0] == 0
    finally:
        ada.cluster.start(lost)
    done = {row["cell_id"] for row in ada.rows() if row["state"] == "succeeded"}
    assert len(done) == 4
    wait(ada.cluster.is_idle)


def test_two_users_work_side_by_side_and_one_after_the_other(cluster, ada, bob):
    cluster.run("mkdir -m 700 /tmp/ray", node="n1", user="ada")  # as a Ray of hers may have left it
    jobs = []
    for account, node in ((ada, "n1"), (bob, "n2"), (bob, "n1")):
        account.write_sweep(f"shared-{node}")
        jobs.append((account, account.submit(f"--nodelist={node}")))
    assert [account.end(job)[0] for account, job in jobs] == [0, 0, 0]
    assert {row["node"] for row in bob.rows()} == {"n1"}
    cluster.run("rmdir /tmp/ray", node="n1", user="ada")
    for account in (ada, bob):
        account.wait_until_gone()


@pytest.mark.parametrize(("node", "gpus"), [("n1", 8), ("n3", 4), ("n4", 0)])
def test_ray_has_the_gpus_that_were_asked_for(ada, node, gpus):
    """The driver says them where no node has enough."""
    ada.write_sweep("greedy", gpus=9)
    status, log = ada.end(ada.submit(f"--nodelist={node}", f"--gpus-per-node={gpus}"))
    assert status == 2
    assert last_line(log) == "The job has failed: the error stands above."
    has = f"{gpus} GPUs and " * bool(gpus) + "2 CPUs"
    assert f"{node} has {has}" in log
