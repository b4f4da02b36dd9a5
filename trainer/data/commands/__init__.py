"""The commands of ``python -m trainer.data``, a module each; the table is in its ``__main__``."""

import argparse
from typing import Protocol, TypeAlias

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


class Command(Protocol):
    """What a module must have to be a line of the table."""

    def add_command(self, subparsers: Subparsers) -> None:
        """Add the parser of its options, under the name that the table has for it."""

    def run(self, options: argparse.Namespace) -> str:
        """Do it and say what came of it; ConfigError where the input cannot be used."""
