"""``stage``: make sure that a node has the data that a cell asks for, and say where it lies.

Run on a node before any cell of it; what is printed is the folder to read.
"""

import argparse
from pathlib import Path

from trainer.config.config_errors import ConfigError
from trainer.data.building.corpus import stdlib_corpus
from trainer.data.building.prepare import is_buildable, prepare
from trainer.data.commands import Subparsers
from trainer.data.download.export import is_export
from trainer.data.download.fetch import fetch
from trainer.data.download.wanted import Wanted
from trainer.data.manifest import Manifest, open_dataset, read_manifest
from trainer.data.stage import stage


def add_command(subparsers: Subparsers) -> None:
    command = subparsers.add_parser("stage", help="bring a cell's data to this node (for agents)")
    command.add_argument("--data", type=Path, required=True, help="where the data lies elsewhere")
    command.add_argument("--dataset", required=True)
    command.add_argument("--vocab-size", type=int, required=True)
    command.add_argument("--corpus", required=True, metavar="SHA256")
    command.add_argument("--tokenizer", required=True, metavar="SHA256")
    command.add_argument("--train-shards", type=int, metavar="N")
    command.add_argument("--cache", type=Path, metavar="DIR", help="a folder on this node's disk")
    command.add_argument("--missing", choices=("refuse", "fetch"), default="refuse")


def run(options: argparse.Namespace) -> str:
    given: Path = options.data
    brought = not given.is_dir() and options.missing == "fetch"
    source = _bring(options) if brought else given
    _check_content(source, read_manifest(source), options)
    if options.cache is None or brought:
        open_dataset(source, options.vocab_size)
        return str(source)
    return str(stage(source, options.cache))


def _bring(options: argparse.Namespace) -> Path:
    """The folder of data that was fetched or built on this node, beside others of its name."""
    root: Path = options.data.parent
    if options.cache is not None:
        root = options.cache / f"{options.corpus[:16]}-{options.tokenizer[:16]}"
    if is_export(options.dataset):
        wanted = Wanted(
            dataset=options.dataset,
            vocab_size=options.vocab_size,
            root=root,
            train_shards=options.train_shards,
        )
        return fetch(wanted).dataset.directory
    if is_buildable(options.dataset):
        return prepare(options.dataset, options.vocab_size, root, stdlib_corpus()).dataset.directory
    raise ConfigError(
        f"{options.data}: not on this node, and dataset {options.dataset!r} can be fetched from "
        f"nowhere. Put it at this path on every node."
    )


def _check_content(source: Path, manifest: Manifest, options: argparse.Namespace) -> None:
    found = manifest.corpus_sha256, manifest.tokenizer_sha256
    if found != (options.corpus, options.tokenizer):
        raise ConfigError(
            f"{source}: the sweep asks for corpus {options.corpus[:12]} and tokenizer "
            f"{options.tokenizer[:12]}, on this node are {found[0][:12]} and {found[1][:12]}. Make "
            f"the data the same on every node."
        )
