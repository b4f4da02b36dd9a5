"""``inspect DIR``: what a dataset holds, and whether it is all that it says."""

import argparse
from pathlib import Path

from trainer.data.building.inspect import description, findings, inspect_dataset
from trainer.data.commands import Subparsers
from trainer.data.manifest import read_manifest


def add_command(subparsers: Subparsers) -> None:
    command = subparsers.add_parser(
        "inspect", help="print what a dataset holds and check all of it, the byte counts too"
    )
    command.add_argument("directory", type=Path, metavar="DIR", help="the dataset's folder")


def run(options: argparse.Namespace) -> str:
    # Printed first: it helps to know what was meant when something turns out to be wrong.
    print(*description(read_manifest(options.directory)), sep="\n", flush=True)
    return "\n".join(findings(inspect_dataset(options.directory)))
