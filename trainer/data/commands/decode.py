"""``decode DIR [--split val] [--start 0] [--count 200]``: what text do these tokens stand for?"""

import argparse
from pathlib import Path

from trainer.data.building.inspect import span_text
from trainer.data.commands import Subparsers


def add_command(subparsers: Subparsers) -> None:
    command = subparsers.add_parser("decode", help="print a span of a dataset as text")
    command.add_argument("directory", type=Path, metavar="DIR", help="the dataset's folder")
    command.add_argument("--split", choices=("train", "val"), default="val")
    command.add_argument(
        "--start", type=int, default=0, metavar="N", help="the first token's number"
    )
    command.add_argument("--count", type=int, default=200, metavar="N", help="how many tokens")
    command.add_argument(
        "--pieces", action="store_true", help="show the pieces themselves, with bars between them"
    )


def run(options: argparse.Namespace) -> str:
    return span_text(
        options.directory, options.split, options.start, options.count, pieces=options.pieces
    )
