"""What has a sweep found? ``python -m analysis COMMAND --sweep NAME``."""

import argparse
import sys
from collections.abc import Sequence

from analysis.figures import save_figures
from analysis.load import sweep_place
from analysis.notebooks_run import run_notebooks
from analysis.report import write_report
from analysis.table import show, write_summary
from trainer.strict import ConfigError

EXIT_BAD_INPUT = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Do what ``argv`` asks for; 0, or 2 with one sentence on stderr where it cannot be done."""
    arguments = _parser().parse_args(argv)
    try:
        place = sweep_place(arguments.results, arguments.sweep)
        paths = _COMMANDS[arguments.command](place)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EXIT_BAD_INPUT
    for path in paths:
        print(f"wrote {path}")
    return 0


def _summary(place: str) -> list[str]:
    summary, path = write_summary(place)
    show(summary, sys.stdout)
    return [path]


_COMMANDS = {
    "figures": save_figures,
    "summary": _summary,
    "report": write_report,
    "notebooks": run_notebooks,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m analysis", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, meaning in (
        ("figures", "draw every figure as PNG and SVG into the sweep's figures/"),
        ("summary", "print the table and the verdict, and write summary.md"),
        ("report", "write report.html, one page that needs nothing else, and report.md"),
        ("notebooks", "execute the notebooks on the sweep into its notebooks/"),
    ):
        command = commands.add_parser(name, help=meaning, description=meaning)
        command.add_argument(
            "--sweep", required=True, help="name of the sweep, or path of its file"
        )
        command.add_argument(
            "--results", default="results", help="folder or URI that sweeps write to"
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
