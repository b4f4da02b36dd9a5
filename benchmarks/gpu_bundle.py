"""Collect the wheels that a bare machine with a GPU lacks, to be carried there in a folder.

Such a machine has Python 3.12 with torch, triton, numpy and pyarrow, and no network: ``make``
cannot install there. ``python -m benchmarks.gpu_bundle`` downloads the pinned versions and prints
what to type on the machine.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks.measured import ROOT

PACKAGES = (
    "annotated-types",
    "psutil",
    "pydantic",
    "pydantic-core",
    "safetensors",
    "sentencepiece",
    "typing-extensions",
    "typing-inspection",
)
PLATFORMS = ("2_28", "2_27", "2_17", "2_12", "2_5")
MAX_BYTES = 40 * 2**20


def download(folder: Path) -> list[Path]:
    """The wheels, at the versions that constraints.txt pins."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.whl"):  # two versions of one package stop an installation
        old.unlink()
    command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--python-version", "3.12"]
    for glibc in PLATFORMS:
        command += ["--platform", f"manylinux_{glibc}_x86_64"]
    command += ["--platform", "manylinux2014_x86_64", "--constraint", str(ROOT / "constraints.txt")]
    subprocess.run([*command, "--dest", str(folder), *PACKAGES], check=True)
    return sorted(folder.glob("*.whl"))


def what_to_type(folder: Path) -> str:
    """On the machine, in the project's folder, with ``folder`` in it."""
    return (
        f"python3 -m pip install -q --no-index --no-deps --target /tmp/site {folder}/*.whl && "
        "PYTHONPATH=/tmp/site python3 -m benchmarks.gpu_check --out gpu-check --minutes 9"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("gpu-wheels"), metavar="DIR")
    folder: Path = parser.parse_args().out
    wheels = download(folder)
    num_bytes = sum(wheel.stat().st_size for wheel in wheels)
    if num_bytes > MAX_BYTES:
        sys.exit(f"{folder}: {num_bytes} bytes of wheels, more than {MAX_BYTES} can be carried.")
    print(f"{folder}: {len(wheels)} wheels, {num_bytes >> 20} MiB. Carried in the project:")
    print(f"  {what_to_type(folder)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
