"""Is the data that this recipe asks for there? If not, build it.

python -m trainer.data prepare --recipe NAME-OR-PATH --root data [--set section.key=value]
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from trainer.contract import EXIT_BAD_INPUT
from trainer.data.corpus import stdlib_corpus
from trainer.data.prepare import Prepared, check_buildable, prepare
from trainer.recipe import load_recipe, parse_override
from trainer.strict import ConfigError


def main(argv: Sequence[str] | None = None) -> int:
    """0 if the dataset is there afterwards, 2 if the input cannot be used (see standard error)."""
    options = _parser().parse_args(argv)
    try:
        print(_prepare(options))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EXIT_BAD_INPUT
    except OSError as error:
        print(f"--root {options.root}: {error}. Name a folder to write to.", file=sys.stderr)
        return EXIT_BAD_INPUT
    return 0


def _prepare(options: argparse.Namespace) -> str:
    started = time.perf_counter()
    recipe = load_recipe(options.recipe, dict(map(parse_override, options.set)))
    check_buildable(recipe.data.dataset)
    prepared = prepare(
        recipe.data.dataset,
        recipe.model.vocab_size,
        options.root,
        stdlib_corpus(),
        rebuild=options.rebuild,
    )
    return _summary(prepared, time.perf_counter() - started)


def _summary(prepared: Prepared, elapsed_s: float) -> str:
    manifest = prepared.dataset.manifest
    where = prepared.dataset.directory
    status = f"{where} {'was' if prepared.status != 'up to date' else 'is'} {prepared.status}"
    note = f"\n  note        {prepared.note}" if prepared.note else ""
    bytes_per_token = manifest.val_bytes / manifest.num_val_tokens
    return (
        f"{status} ({elapsed_s:.1f} s){note}\n"
        f"  text        {manifest.source}, corpus {manifest.corpus_sha256[:16]}\n"
        f"  train       {manifest.num_train_documents:,} documents, "
        f"{manifest.num_train_tokens:,} tokens, {manifest.train_bytes:,} bytes\n"
        f"  validation  {manifest.num_val_documents:,} documents, "
        f"{manifest.num_val_tokens:,} tokens, {manifest.val_bytes:,} bytes, "
        f"{bytes_per_token:.3f} bytes per token"
    )


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
    return parser


if __name__ == "__main__":
    sys.exit(main())
