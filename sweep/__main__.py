"""``python -m sweep plan|run|status|show|rerun|logs|doctor|which``: the sweep from a terminal.

Exit status: 0 every cell is terminal, 3 some are not, 2 bad usage or configuration, 130
interrupted.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from sweep.cli import verbs
from sweep.cli.invocation import Invocation
from sweep.cli.selection import EXAMPLE, Selection
from sweep.cli.session import EXIT_BAD, EXIT_INTERRUPTED
from sweep.cluster.interface import Pool
from sweep.environment import read_environment
from trainer.config.config_errors import ConfigError

VERBS = ("plan", "run", "status", "show", "rerun", "logs", "doctor", "which")
LOOKING = ("status", "show", "logs")
PLANNING = ("plan", "run", "rerun")
MEANT_FOR = {
    "where": (*PLANNING, "status"),
    "limit": (*PLANNING, "status"),
    "refresh": PLANNING,
    "join": PLANNING,
}


def main(argv: list[str] | None = None) -> int:
    """Do what ``argv`` says; returns the exit status."""
    return answer(argv)[0]


def answer(argv: list[str] | None) -> tuple[int, bool]:
    """The exit status, and whether this process would end by itself."""
    arguments = _parse(argv)
    invocation = Invocation(
        environment=read_environment(),
        sweep_name=arguments.sweep,
        results=arguments.results,
        data=Path(arguments.data),
        console=Console(stderr=arguments.json or arguments.verb == "which"),
        connect=_connect,
        selection=Selection(arguments.where, arguments.limit),
        refresh=arguments.refresh,
        join=arguments.join,
        looks_only=arguments.verb in LOOKING,
    )
    status = _said(lambda: _dispatch(invocation, arguments))
    left = _said(invocation.close)  # an error is said before this, which can take a while
    return EXIT_INTERRUPTED if left == EXIT_INTERRUPTED else status, left is True


def _said(do: Callable[[], int]) -> int:
    """What ``do`` gives; what goes wrong is a sentence and an exit status."""
    try:
        return do()
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _dispatch(invocation: Invocation, arguments: argparse.Namespace) -> int:
    cell, as_json = arguments.cell, arguments.json
    match arguments.verb:
        case "run":
            return verbs.run_command(invocation)
        case "rerun":
            return verbs.rerun_command(invocation, cell, failed=arguments.failed)
        case "plan":
            return verbs.plan_command(invocation, as_json=as_json)
        case "status":
            return verbs.status_command(invocation, as_json=as_json)
        case "show":
            return verbs.show_command(invocation, cell, as_json=as_json)
        case "doctor":
            return verbs.doctor_command(invocation, as_json=as_json)
        case "logs":
            return verbs.logs_command(invocation, cell)
        case _:
            return verbs.which_command(invocation)


def _connect(address: str | None) -> Pool:
    from sweep.cluster.ray import RayPool

    return RayPool(address)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    """The arguments; one that its verb would pass over in silence is a mistake."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    for name, meant in MEANT_FOR.items():
        if getattr(arguments, name) not in (None, False) and arguments.verb not in meant:
            parser.error(
                f"--{name} means nothing to {arguments.verb}; it is for {', '.join(meant)}"
            )
    if arguments.limit is not None and arguments.limit < 1:
        parser.error(f"--limit {arguments.limit}: at least 1; without it, all that is planned")
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sweep", description=__doc__)
    parser.add_argument("verb", choices=VERBS)
    parser.add_argument("cell", nargs="?", help="a cell's name or id, or a prefix that only it has")
    parser.add_argument("--sweep", metavar="NAME-OR-PATH", help="default: what fits the machine")
    parser.add_argument("--results", metavar="ROOT", default="results")
    parser.add_argument("--data", metavar="ROOT", default="data")
    parser.add_argument("--where", metavar="CONDITION", help=f"only cells of which {EXAMPLE!r}")
    parser.add_argument("--limit", metavar="N", type=int, help="only the first N that are planned")
    parser.add_argument("--refresh", action="store_true", help="stale cells too: changed trainer")
    parser.add_argument("--join", action="store_true", help="help the driver that is running it")
    parser.add_argument("--failed", action="store_true", help="rerun: every cell that failed")
    parser.add_argument("--json", action="store_true", help="plan, status, show: as JSON on stdout")
    return parser


if __name__ == "__main__":
    status, ends = answer(None)
    if not ends:
        sys.stdout.flush()
        os._exit(status)  # Ray would wait at exit for a head that does not answer
    sys.exit(status)
