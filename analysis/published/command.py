"""``python -m analysis import``: which logs, what are they logs of, and where do the rows go?"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.published.importer import PUBLISHED_RECIPES, claim_of, import_logs, write_rows
from trainer.activations import ACTIVATIONS
from trainer.config.config_errors import ConfigError

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_import(commands: "Commands") -> None:
    """Add the command to those of ``python -m analysis``."""
    meaning = "read training logs of published runs into rows of the store's schema"
    command = commands.add_parser("import", help=meaning, description=meaning)
    command.add_argument("logs", nargs="+", metavar="LOG", help="one finished run each")
    command.add_argument("--pr", type=int, required=True, help="the pull request that has the logs")
    command.add_argument("--activation", required=True, help=f"one of {', '.join(ACTIVATIONS)}")
    command.add_argument("--slope", type=float, help="negative slope of leaky_relu2, 0 to 1")
    command.add_argument("--activation-param", action="append", default=[], metavar="KEY=VALUE")
    command.add_argument("--recipe", required=True, help=f"one of {', '.join(PUBLISHED_RECIPES)}")
    command.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="what a run changed"
    )
    command.add_argument(
        "--out", required=True, metavar="FILE", help="a .parquet file, replaced if there"
    )


def import_command(arguments: argparse.Namespace) -> list[str]:
    """Import what ``arguments`` name; the files written. A ConfigError leaves no file."""
    claim = claim_of(
        pr=arguments.pr,
        recipe=arguments.recipe,
        activation=arguments.activation,
        params=_params(arguments),
        settings=arguments.set,
    )
    frame = import_logs(map(Path, arguments.logs), claim)
    for row in frame.dropna(subset=["notes"]).itertuples():
        print(f"{row.citation}: {row.notes}", file=sys.stderr)
    return [str(write_rows(frame, Path(arguments.out)))]


def _params(arguments: argparse.Namespace) -> dict[str, float]:
    params = {} if arguments.slope is None else {"slope": arguments.slope}
    for text in arguments.activation_param:
        key, _, value = text.partition("=")
        try:
            params[key] = float(value)
        except ValueError:
            raise ConfigError(
                f"--activation-param {text!r}: write name=number, such as init=0.25."
            ) from None
    return params
