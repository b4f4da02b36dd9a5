"""``prepare --recipe NAME --root DIR``: make sure that the data of a recipe is there."""

import argparse
import time
from pathlib import Path

from trainer.config import load_recipe, parse_override
from trainer.config.config_errors import ConfigError
from trainer.data.building.corpus import stdlib_corpus
from trainer.data.building.prepare import Prepared, check_buildable, find_adopted, prepare
from trainer.data.commands import Subparsers
from trainer.data.commands.summary import summary
from trainer.data.download.export import is_export
from trainer.data.download.fetch import TRAIN_SHARDS, fetch
from trainer.data.download.wanted import Wanted


def add_command(subparsers: Subparsers) -> None:
    command = subparsers.add_parser(
        "prepare", help="build or fetch a recipe's dataset if it is not there"
    )
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
        "--rebuild", action="store_true", help="replace a dataset that was built here"
    )
    command.add_argument(
        "--train-shards",
        type=int,
        metavar="N",
        help="how many training shards of the FineWeb export the dataset is to have (as many as it "
        f"has, or {TRAIN_SHARDS}); a larger number than before adds the others",
    )
    command.add_argument(
        "--offline", action="store_true", help="fetch nothing: what is not there is an error"
    )


def run(options: argparse.Namespace) -> str:
    started = time.perf_counter()
    try:
        prepared = _prepare(options)
    except OSError as error:
        raise ConfigError(f"--root {options.root}: {error}. Name a folder to write to.") from None
    return summary(prepared, time.perf_counter() - started)


def _prepare(options: argparse.Namespace) -> Prepared:
    recipe = load_recipe(options.recipe, dict(map(parse_override, options.set)))
    dataset, vocab_size, root = recipe.data.dataset, recipe.model.vocab_size, options.root
    if is_export(dataset) and not options.rebuild:
        wanted = Wanted(
            dataset=dataset, vocab_size=vocab_size, root=root, train_shards=options.train_shards
        )
        return fetch(wanted, offline=options.offline)
    if options.train_shards is not None:
        raise ConfigError(
            f"--train-shards is for datasets of the FineWeb export, such as fineweb10B_sp1024; the "
            f"recipe's is {dataset!r}. Leave it out."
        )
    if not options.rebuild and (adopted := find_adopted(dataset, vocab_size, root)):
        return adopted
    check_buildable(dataset, root)
    return prepare(dataset, vocab_size, root, stdlib_corpus(), rebuild=options.rebuild)
