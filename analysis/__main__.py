"""What has a sweep found, what can it find, and what have others found?

``python -m analysis COMMAND --sweep NAME``, and ``python -m analysis import LOG… --pr N …``.
"""

import argparse
import sys
from collections.abc import Sequence

from analysis.figures.catalog import save_figures
from analysis.planning.power_text import power_summary
from analysis.planning.second_stage import write_second_stage
from analysis.published.command import add_import, import_command
from analysis.report.report import write_report
from analysis.report.summary import write_summary
from analysis.rows.read import sweep_place
from analysis.run_notebooks import run_notebooks
from analysis.text_table import show
from trainer.config.config_errors import ConfigError

EXIT_BAD_INPUT = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Do what ``argv`` asks for; 0, or 2 with one sentence on stderr where it cannot be done."""
    arguments = _parser().parse_args(argv)
    try:
        is_import = arguments.command == "import"
        paths = import_command(arguments) if is_import else _on_sweep(arguments)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EXIT_BAD_INPUT
    for path in paths:
        print(f"wrote {path}")
    return 0


def _on_sweep(arguments: argparse.Namespace) -> list[str]:
    place = sweep_place(arguments.results, arguments.sweep)
    if arguments.command in _OF_SWEEP:
        return _OF_SWEEP[arguments.command](place, arguments)
    return _COMMANDS[arguments.command](place)


def _figures(place: str) -> list[str]:
    return save_figures(place, tell=lambda line: print(f"not drawn: {line}"))


def _summary(place: str) -> list[str]:
    summary, path = write_summary(place)
    show(summary, sys.stdout)
    return [path]


def _power(place: str, arguments: argparse.Namespace) -> list[str]:
    show(power_summary(place, arguments.sweep), sys.stdout)
    return []


def _leaders(place: str, arguments: argparse.Namespace) -> list[str]:
    path = write_second_stage(
        arguments.sweep, place, keep=arguments.keep, seeds=arguments.seeds, out=arguments.out
    )
    return [str(path)]


# These need the sweep's own file, not its results alone.
_OF_SWEEP = {"power": _power, "leaders": _leaders}
_COMMANDS = {
    "figures": _figures,
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
        ("power", "say which difference its grid can resolve, and what others would need"),
        ("leaders", "write the sweep file of a second stage: the leaders under fresh seeds"),
    ):
        command = commands.add_parser(name, help=meaning, description=meaning)
        command.add_argument(
            "--sweep", required=True, help="name of the sweep, or path of its file"
        )
        command.add_argument(
            "--results", default="results", help="folder or URI that sweeps write to"
        )
        if name == "leaders":
            command.add_argument("--keep", type=int, default=3, help="how many (default: 3)")
            command.add_argument("--seeds", type=int, required=True, help="how many fresh seeds")
            command.add_argument("--out", help="default: NAME-stage2.toml beside the sweep's file")
    add_import(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
