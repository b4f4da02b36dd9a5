"""Is the data that this recipe asks for there? If not, build it, or adopt what is.

python -m trainer.data prepare --recipe NAME-OR-PATH --root data [--set section.key=value]
python -m trainer.data adopt DIR --tokenizer FILE [--dataset NAME]
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from trainer.contract import EXIT_BAD_INPUT
from trainer.data.adopt import adopt
from trainer.data.corpus import stdlib_corpus
from trainer.data.manifest import Shard
from trainer.data.prepare import Prepared, check_buildable, find_adopted, prepare
from trainer.recipe import load_recipe, parse_override
from trainer.strict import ConfigError


def main(argv: Sequence[str] | None = None) -> int:
    """0 if the dataset is there afterwards, 2 if the input cannot be used (see standard error)."""
    options = _parser().parse_args(argv)
    started = time.perf_counter()
    try:
        prepared = _adopt(options) if options.command == "adopt" else _prepare(options)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EXIT_BAD_INPUT
    except OSError as error:
        where = f"--root {options.root}" if options.command == "prepare" else options.directory
        print(f"{where}: {error}. Name a folder to write to.", file=sys.stderr)
        return EXIT_BAD_INPUT
    print(_summary(prepared, time.perf_counter() - started))
    return 0


def _prepare(options: argparse.Namespace) -> Prepared:
    recipe = load_recipe(options.recipe, dict(map(parse_override, options.set)))
    dataset, vocab_size, root = recipe.data.dataset, recipe.model.vocab_size, options.root
    if not options.rebuild and (adopted := find_adopted(dataset, vocab_size, root)):
        return adopted
    check_buildable(dataset, root)
    return prepare(dataset, vocab_size, root, stdlib_corpus(), rebuild=options.rebuild)


def _adopt(options: argparse.Namespace) -> Prepared:
    return adopt(options.directory, options.tokenizer, options.dataset)


def _summary(prepared: Prepared, elapsed_s: float) -> str:
    manifest = prepared.dataset.manifest
    where = prepared.dataset.directory
    status = f"{where} {'was' if prepared.status != 'up to date' else 'is'} {prepared.status}"
    note = f"\n  note        {prepared.note}" if prepared.note else ""
    bytes_per_token = manifest.val_bytes / manifest.num_val_tokens
    return (
        f"{status} ({elapsed_s:.1f} s){note}\n"
        f"  text        {manifest.source}, corpus {manifest.corpus_sha256[:16]}\n"
        f"  train       {_count(manifest.train)}, {manifest.num_train_documents:,} documents, "
        f"{manifest.num_train_tokens:,} tokens, {manifest.train_bytes:,} bytes\n"
        f"  validation  {_count(manifest.validation)}, {manifest.num_val_documents:,} documents, "
        f"{manifest.num_val_tokens:,} tokens, {manifest.val_bytes:,} bytes, "
        f"{bytes_per_token:.3f} bytes per token"
    )


def _count(shards: Sequence[Shard]) -> str:
    return f"{len(shards)} shard{'' if len(shards) == 1 else 's'}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trainer.data")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("prepare", help="build a recipe's dataset if it is not there")
    command.add_argument("--recipe", required=True, help="a name in configs/recipes, or a .toml")
    command.add_argument("--root", type=Path, required=True, help="the folder of all datasets")
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="section.key=value",
        help="override the recipe",
    )
    command.add_argument(
        "--rebuild", action="store_true", help="replace a dataset that is there already"
    )
    command = commands.add_parser(
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
    return parser


if __name__ == "__main__":
    sys.exit(main())
