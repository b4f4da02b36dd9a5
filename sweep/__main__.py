"""The command line of the sweep: ``python -m sweep VERB``, which is plan, run, stop, status, watch,
show, rerun, logs, collect, doctor, draft and which.

Exit status: 0 every cell is terminal, 3 some are not, 4 some are not because the job's time did not
suffice for more, 2 bad usage or configuration, 130 interrupted.
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
from sweep.cli.stop import stop
from sweep.cluster.interface import Pool
from sweep.environment import read_environment
from trainer.config.config_errors import ConfigError
from trainer.system.printable import printable

EXIT_UNREAD = 141  # as a shell says of what SIGPIPE has ended
READ_ONLY = (verbs.status, verbs.watch, verbs.show, verbs.logs, verbs.collect, stop)


def main(argv: list[str] | None = None) -> int:
    """Do what ``argv`` says; returns the exit status."""
    return run_command_line(argv)[0]


def run_command_line(argv: list[str] | None) -> tuple[int, bool]:
    """The exit status, and whether this process would end by itself."""
    arguments = parser().parse_args(argv)
    invocation = Invocation(
        environment=read_environment(),
        sweep_name=arguments.sweep,
        results=arguments.results,
        data=Path(arguments.data),
        console=Console(stderr=arguments.json or arguments.verb is verbs.which),
        connect=_connect,
        cell=arguments.cell,
        follow=arguments.follow,
        failed=arguments.failed,
        selection=Selection(arguments.where, arguments.limit),
        refresh=arguments.refresh,
        until=arguments.until,
        autoscale=arguments.autoscale,
        join=arguments.join,
        now=arguments.now,
        leases=arguments.leases,
        needs_data=arguments.needs_data,
        as_json=arguments.json,
        script=arguments.script,
        name=arguments.name,
        force=arguments.force,
        needs_results_only=arguments.verb in READ_ONLY,
    )
    status = _exit_status(lambda: arguments.verb(invocation))
    closed = _exit_status(invocation.close)  # an error is said before this, which can take a while
    return EXIT_INTERRUPTED if closed == EXIT_INTERRUPTED else status, closed is True


def _exit_status(do: Callable[[], int]) -> int:
    """What ``do`` returns; an error is a sentence and an exit status."""
    try:
        status = do()
        sys.stdout.flush()
    except BrokenPipeError:  # who reads, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_UNREAD
    except ConfigError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return EXIT_BAD
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    return status


def _connect(address: str | None) -> Pool:
    from sweep.cluster.ray import RayPool

    return RayPool(address)


def parser() -> argparse.ArgumentParser:
    """Every verb takes the places; each takes the further options that mean something to it."""
    places, cell, followed, failed, as_json, selected, planned, prepared, asked, drafted = (
        argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
        for _ in range(10)
    )
    places.add_argument("--sweep", metavar="NAME-OR-PATH", help="default: what fits the machine")
    places.add_argument("--results", metavar="ROOT", help="default: results")
    places.add_argument("--data", metavar="ROOT", help="default: data")
    cell.add_argument("cell", nargs="?", help="a cell's name or id, or a prefix that only it has")
    followed.add_argument("--follow", action="store_true", help="go on until the attempt ends")
    failed.add_argument("--failed", action="store_true", help="every cell that failed")
    as_json.add_argument("--json", action="store_true", help="as JSON on stdout")
    selected.add_argument("--where", metavar="CONDITION", help=f"only cells of which {EXAMPLE!r}")
    selected.add_argument("--limit", metavar="N", type=_at_least_one, help="only the first N")
    planned.add_argument("--refresh", action="store_true", help="stale cells too: changed trainer")
    planned.add_argument(
        "--until", metavar="BPB", type=float, help="stop when what is best is known up to BPB"
    )
    planned.add_argument(
        "--autoscale",
        metavar="N",
        type=_at_least_one,
        help="ask for up to N leases: the cluster grows on demand",
    )
    planned.add_argument("--join", action="store_true", help="help the driver that is running it")
    prepared.add_argument("--needs-data", action="store_true", help="an error if it is missing")
    asked.add_argument("--now", action="store_true", help="stop what runs instead of waiting")
    asked.add_argument("--leases", metavar="N", type=_at_least_one, help="hold at most N instead")
    drafted.add_argument("--script", metavar="PATH", help="a training script of your own")
    drafted.add_argument("--name", metavar="NAME", help="the recipe's; default: the script's")
    drafted.add_argument("--force", action="store_true", help="write over a recipe of that name")

    options = {
        verbs.plan: (selected, planned, prepared, as_json),
        verbs.run: (selected, planned),
        stop: (asked,),
        verbs.status: (selected, as_json),
        verbs.watch: (selected,),
        verbs.show: (cell, as_json),
        verbs.rerun: (cell, failed, selected, planned),
        verbs.logs: (cell, followed),
        verbs.collect: (),
        verbs.doctor: (as_json,),
        verbs.draft: (drafted,),
        verbs.which: (),
    }
    whole = argparse.ArgumentParser(
        prog="python -m sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    whole.set_defaults(sweep=None, results="results", data="data", cell=None, where=None)
    whole.set_defaults(script=None, name=None, force=False)
    whole.set_defaults(follow=False, until=None, autoscale=None, now=False, leases=None)
    whole.set_defaults(limit=None, failed=False, refresh=False, join=False, json=False)
    whole.set_defaults(needs_data=False)
    subparsers = whole.add_subparsers(required=True, metavar="VERB")
    for verb, parents in options.items():
        summary = (verb.__doc__ or "").partition("\n")[0]
        subparsers.add_parser(
            verb.__name__, help=summary, description=summary, parents=[places, *parents]
        ).set_defaults(verb=verb)
    return whole


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: at least 1; or leave it out")
    return number


if __name__ == "__main__":
    status, ends_by_itself = run_command_line(None)
    if not ends_by_itself:
        sys.stdout.flush()
        os._exit(status)  # Ray would wait at exit for a head that does not answer
    sys.exit(status)
