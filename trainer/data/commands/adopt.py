"""``adopt DIR --tokenizer FILE [--dataset NAME]``: use shards that are there already."""

import argparse
import time
from pathlib import Path

from trainer.data.building.adopt import adopt
from trainer.data.commands import Subparsers
from trainer.data.commands.summary import summary


def add_command(subparsers: Subparsers) -> None:
    command = subparsers.add_parser(
        "adopt", help="make a dataset of shards that are there already, reading all of them"
    )
    command.add_argument("directory", type=Path, metavar="DIR", help="the folder of the shards")
    command.add_argument(
        "--tokenizer",
        type=Path,
        required=True,
        metavar="FILE",
        help="the SentencePiece model that they were written with; it is copied beside them",
    )
    command.add_argument("--dataset", metavar="NAME", help="its name, if not that of the folder")


def run(options: argparse.Namespace) -> str:
    started = time.perf_counter()
    adopted = adopt(options.directory, options.tokenizer, options.dataset)
    return summary(adopted, time.perf_counter() - started)
