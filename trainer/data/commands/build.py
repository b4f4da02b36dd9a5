"""``build --text FILES-OR-FOLDERS --vocab-size N --out DIR``: make a dataset of one's own text."""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TextIO

from trainer.data.building.build import VAL_FRACTION, TextBuild, build_from_text
from trainer.data.building.prepare import SHARD_TOKENS
from trainer.data.commands import Subparsers
from trainer.data.commands.summary import summary

TELL_EVERY_S = 1.0


def add_command(subparsers: Subparsers) -> None:
    command = subparsers.add_parser(
        "build", help="make a dataset of your own text: plain files, JSON lines, Parquet"
    )
    command.add_argument(
        "--text",
        type=Path,
        nargs="+",
        required=True,
        metavar="PATH",
        help="files, or folders with .txt, .md, .jsonl and .parquet files in them. A plain file is "
        "one document; a line of .jsonl is one and has a field text; a row of .parquet is one and "
        "has a column text",
    )
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="the new folder")
    command.add_argument(
        "--vocab-size", type=int, metavar="N", help="how many pieces to learn (at most 65536)"
    )
    command.add_argument(
        "--tokenizer", type=Path, metavar="FILE", help="a SentencePiece model, to learn none"
    )
    command.add_argument("--name", help="what recipes call the dataset, if not the folder's name")
    command.add_argument(
        "--val-fraction",
        type=float,
        default=VAL_FRACTION,
        metavar="F",
        help=f"the chance of a document to be for validation (default {VAL_FRACTION:g})",
    )
    command.add_argument("--shard-tokens", type=int, default=SHARD_TOKENS, metavar="N")
    command.add_argument(
        "--workers", type=int, metavar="N", help="processes that cut text (default: every core)"
    )
    command.add_argument(
        "--rebuild", action="store_true", help="replace a dataset of other text that is there"
    )


def run(options: argparse.Namespace) -> str:
    started = time.perf_counter()
    wanted = TextBuild(
        text=tuple(options.text),
        out=options.out,
        name=options.out.absolute().name if options.name is None else options.name,
        vocab_size=options.vocab_size,
        tokenizer=options.tokenizer,
        val_fraction=options.val_fraction,
        shard_tokens=options.shard_tokens,
        workers=options.workers if options.workers is not None else os.cpu_count() or 1,
        rebuild=options.rebuild,
    )
    return summary(build_from_text(wanted, Teller(sys.stderr)), time.perf_counter() - started)


class Teller:
    """Says how far a build has come, at most once in ``TELL_EVERY_S``."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._told_at_s = time.monotonic()

    def __call__(self, what: str, num_documents: int, num_bytes: int) -> None:
        now_s = time.monotonic()
        if now_s - self._told_at_s >= TELL_EVERY_S:
            self._told_at_s = now_s
            size = f"{num_bytes / 1e6:,.1f} MB"
            print(f"{what}: {num_documents:,} documents, {size}", file=self._stream, flush=True)
