"""The files that bring up clusters are well-formed, and every flag in them is one that exists.

No claim about a real Slurm, which test_slurm.py has, or Kubernetes: docs/clusters.md says what was
tried.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sweep.__main__ import parser
from tests.support.commands import ROOT, wait_until

CLUSTERS = ROOT / "configs" / "clusters"
SBATCH, NODE = CLUSTERS / "sweep.sbatch", CLUSTERS / "node.sh"
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
LABEL = "activation-sweep-node"


@pytest.fixture(scope="module")
def ray_flags():
    """Every option of a command of the installed ray, those that its help hides among them."""
    code = (
        "import sys, json; from ray.scripts.scripts import cli;"
        "from ray.dashboard.modules.job.cli import job_cli_group as job;"
        "commands = cli.commands | {f'job {n}': c for n, c in job.commands.items()};"
        "print(json.dumps({n: [o for p in c.params for o in p.opts] for n, c in commands.items()}))"
    )
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment
    )
    commands = yaml.safe_load(done.stdout)
    return {name: set(options) for name, options in commands.items()}


@pytest.fixture(scope="module")
def rayjob():
    job, policy = yaml.safe_load_all((CLUSTERS / "rayjob.yaml").read_text(encoding="utf-8"))
    assert (job["kind"], policy["kind"]) == ("RayJob", "NetworkPolicy")
    return job["spec"]


@pytest.fixture(scope="module")
def workers(rayjob):
    (group,) = rayjob["rayClusterSpec"]["workerGroupSpecs"]
    return group


@pytest.mark.parametrize("script", [SBATCH, NODE], ids=lambda path: path.name)
def test_a_script_is_bash_that_stops_at_the_first_error(script):
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text(encoding="utf-8")
    assert text.startswith("#!/bin/bash\n")
    assert "\nset -euo pipefail\n" in text


def test_every_flag_of_the_batch_script_is_one_of_ray_start(ray_flags):
    text = SBATCH.read_text(encoding="utf-8").replace("\\\n", "")
    (common,) = re.findall(r"start=\(ray start (.*)\)", text)
    head, worker = re.findall(r'"\$\{start\[@\]\}" (.*)', text)
    assert set(FLAG.findall(f"{common} {head}")) <= ray_flags["start"]
    assert "--head" in head
    assert not {"--head", "--port", "--include-dashboard"} & set(FLAG.findall(f"{common} {worker}"))


def test_every_flag_of_the_script_for_rented_machines_is_one_of_ray_start(ray_flags):
    text = NODE.read_text(encoding="utf-8")
    (common,) = re.findall(r"common=\((.*?)\n\)", text, re.DOTALL)
    head, worker = re.findall(r"ray start (.*)", text)
    assert set(FLAG.findall(f"{common} {head} {worker}")) <= ray_flags["start"]
    assert f'--labels="{LABEL}=$name"' in common
    assert "--head" in head
    assert "--dashboard-host=127.0.0.1" in head
    assert not {"--head", "--port", "--include-dashboard"} & set(FLAG.findall(f"{common} {worker}"))


def test_every_command_in_the_document_has_flags_that_exist(ray_flags):
    text = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8").replace("\\\n", " ")
    calls = re.findall(r"^ *(?:\S+=\S+ )*ray (job \S+|\S+) ?(.*)", text, re.MULTILINE)
    assert {"start", "job submit", "get-auth-token"} <= {name for name, _ in calls}
    for name, arguments in calls:
        flags = set(FLAG.findall(arguments.partition(" -- ")[0]))
        assert flags <= ray_flags.get(name, set()), f"ray {name} {arguments}"


def test_the_rayjob_asks_for_what_the_driver_needs(rayjob, workers, ray_flags):
    cluster = rayjob["rayClusterSpec"]
    head = cluster["headGroupSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert head["serviceType"] == "ClusterIP"
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["autoscalerOptions"]["idleTimeoutSeconds"] > 0
    assert workers["minReplicas"] == 0 < workers["maxReplicas"]
    container = workers["template"]["spec"]["containers"][0]
    gpus = container["resources"]["limits"]["nvidia.com/gpu"]
    assert gpus == workers["rayStartParams"]["num-gpus"] == "8"
    volumes = {v["name"]: v for v in workers["template"]["spec"]["volumes"]}
    shared = next(m["name"] for m in container["volumeMounts"] if m["mountPath"] == "/dev/shm")
    assert volumes[shared]["emptyDir"]["medium"] == "Memory"
    for group in (head, workers):
        flags = {f"--{name}" for name in group["rayStartParams"]}
        assert flags <= ray_flags["start"]
        assert "--labels" not in flags  # KubeRay refuses them there
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())


def test_a_pods_ray_node_is_called_as_the_machine_that_it_is_on(workers):
    template = workers["template"]
    assert template["metadata"]["annotations"]["ray.io/overwrite-container-cmd"] == "true"
    container = template["spec"]["containers"][0]
    environment = {e["name"]: e for e in container["env"]}
    source = environment["NODE_NAME"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert source == "spec.nodeName"
    command = [*container["command"], *container["args"]]
    shown = subprocess.run(
        command,
        env={
            "PATH": os.environ["PATH"],
            "NODE_NAME": "gpu-7",
            "KUBERAY_GEN_RAY_START_CMD": """printf '[%s]' ray start --resources='{"a": 1}'""",
        },
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert shown == f'[ray][start][--resources={{"a": 1}}][--labels={LABEL}=gpu-7]'


def test_the_entrypoint_is_a_command_of_this_project(rayjob):
    python, dash_m, package, *arguments = shlex.split(rayjob["entrypoint"])
    assert (python, dash_m, package) == ("python", "-m", "sweep")
    assert parser().parse_args(arguments).verb
    for flag in ("--results", "--data"):  # the job's own folder goes away with the job
        assert arguments[arguments.index(flag) + 1].startswith("/")


def test_a_submitted_folder_leaves_out_what_is_large_or_secret():
    values = yaml.safe_load((CLUSTERS / "runtime-env.yaml").read_text(encoding="utf-8"))
    assert {"/.venv", "/results", "/data", "/.git"} <= set(values["excludes"])
    assert not set(values) - {"excludes", "env_vars"}
    assert all(isinstance(value, str) for value in values["env_vars"].values())


RAY = """#!{python}
import os, signal, sys
from pathlib import Path
if sys.argv[1] == "start":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    assert Path(os.environ["RAY_TMPDIR"]).stat().st_mode & 0o777 == 0o700
    Path("ray.started").write_text(" ".join([*sys.argv, os.environ["RAY_TMPDIR"]]))
    Path("step.pids").write_text(f"{os.getppid()} {os.getpid()}")
    print("what Ray says")
    Path(os.environ["RAY_TMPDIR"], "ray").mkdir()
    Path(os.environ["RAY_TMPDIR"], "ray", "ray_current_cluster").touch()
    signal.pause()
"""
PYTHON = """#!{python}
import signal, sys, time
from pathlib import Path
def wait_for(name):
    while not (Path(name).exists() and Path(name).read_text()):
        time.sleep(0.02)
    return int(Path(name).read_text())
verb = sys.argv[3]
if verb == "run":
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, lambda number, _: sys.exit(130))
Path(verb).write_text(" ".join(sys.argv[1:]))
sys.exit(wait_for(f"{verb}.code"))
"""
SRUN = """#!/bin/bash
while [[ "$1" == -* ]]; do
  [[ "$1" == --output=* ]] && exec >>"${1#*=}" 2>&1
  shift
done
SLURM_PROCID=0 SLURM_GPUS_ON_NODE=4 exec "$@"
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then
  echo "   NodeAddr=127.0.0.1 NodeHostName=n1"
else
  echo "$@" >scontrol.said
fi
"""
STAND_INS = {
    ".venv/bin/ray": RAY,
    ".venv/bin/python": PYTHON,
    "bin/srun": SRUN,
    "bin/scontrol": SCONTROL,
    "bin/scancel": "#!/bin/bash\nkill -TERM $(cat step.pids)\n",
}


class Batch:
    """The batch script at work, with stand-ins for Slurm, Ray and the driver."""

    def __init__(self, folder):
        self.folder = folder
        for name, text in STAND_INS.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace("{python}", sys.executable), encoding="utf-8")
            path.chmod(0o755)
        (folder / "plan.code").write_text("0")

    def start(self):
        slurm = {"SUBMIT_DIR": self.folder, "JOB_ID": 5, "JOB_NUM_NODES": 1, "CPUS_ON_NODE": 64}
        slurm |= {"GPUS_ON_NODE": 8}
        self.process = subprocess.Popen(
            ["bash", str(SBATCH)],
            cwd=self.folder,
            env={
                "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
                "SLURMD_NODENAME": "n1",
                **{f"SLURM_{name}": str(value) for name, value in slurm.items()},
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return self

    def has(self, name):
        return (self.folder / name).exists()

    def end(self):
        """The exit status, and the last line that was said, if any."""
        said, _ = self.process.communicate(timeout=60)
        assert "what Ray says" not in said
        return self.process.returncode, "".join(said.splitlines()[-1:])

    def requeued(self):
        said = self.folder / "scontrol.said"
        return said.exists() and said.read_text() == "requeue 5\n"


@pytest.fixture
def batch(tmp_path):
    batch = Batch(tmp_path)
    yield batch
    if batch.process.poll() is None:
        batch.process.kill()
        batch.process.communicate()


@pytest.fixture
def driving(batch):
    batch.start()
    wait_until(lambda: batch.has("run"), 60)
    return batch


@pytest.mark.parametrize(("code", "verdict"), [(0, "is done"), (2, "has failed"), (3, "is done")])
def test_the_batch_job_ends_as_the_driver_does(driving, code, verdict):
    (driving.folder / "run.code").write_text(str(code))
    status, last = driving.end()
    assert status == code
    assert last.startswith(f"The job {verdict}: ")
    assert (driving.folder / "run").read_text().startswith("-m sweep run --sweep slopes --results")
    assert not driving.requeued()
    *started, temporary = (driving.folder / "ray.started").read_text().split()
    assert {"--num-gpus=4", "--num-cpus=64", "--node-ip-address=127.0.0.1"} <= set(started)
    assert not Path(temporary).exists()


def test_a_job_whose_time_did_not_suffice_for_more_cells_is_requeued(driving):
    (driving.folder / "run.code").write_text("4")
    assert driving.end()[0] == 4
    assert driving.requeued()


@pytest.mark.parametrize(("number", "requeued"), [(signal.SIGUSR1, True), (signal.SIGINT, False)])
def test_the_driver_is_interrupted_and_the_job_goes_on_only_where_its_time_was_up(
    driving, number, requeued
):
    driving.process.send_signal(number)
    assert driving.end()[0] == 130
    assert driving.requeued() == requeued


@pytest.mark.parametrize(("number", "requeued"), [(signal.SIGUSR1, True), (signal.SIGINT, False)])
def test_a_signal_before_there_is_a_driver_is_not_lost(batch, number, requeued):
    (batch.folder / "plan.code").unlink()
    batch.start()
    wait_until(lambda: batch.has("plan"), 60)
    batch.process.send_signal(number)
    (batch.folder / "plan.code").write_text("0")
    assert batch.end()[0] == 130
    assert not batch.has("run")
    assert batch.requeued() == requeued


def test_what_is_wrong_with_the_sweep_is_said_before_ray_starts(batch):
    (batch.folder / "plan.code").write_text("2")
    assert batch.start().end()[0] == 2
    assert not batch.has("ray.started")


def test_an_environment_that_is_missing_is_named(batch):
    (batch.folder / ".venv/bin/ray").unlink()
    status, last = batch.start().end()
    assert status == 2
    assert last.startswith(f"error: {batch.folder}/.venv/bin/ray is not there")


@pytest.mark.parametrize("arguments", [(), ("head",), ("worker", "10.0.0.2"), ("boss", "10.0.0.1")])
def test_the_script_for_rented_machines_says_how_it_is_called(arguments):
    done = subprocess.run(["bash", str(NODE), *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert "node.sh head" in done.stderr


def test_a_machine_without_the_token_joins_nothing(tmp_path):
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(
        ["bash", str(NODE), "worker", "10.0.0.2", "10.0.0.1"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 2
    assert "copy it from the head" in done.stderr
    assert Path(tmp_path / ".ray").exists() is False
