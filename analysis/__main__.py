"""The verbs of ``python -m analysis``: figures, report, power, leaders, submission, import, …

``python -m analysis VERB --sweep NAME``, ``python -m analysis import LOG… --pr N …``, and
``python -m analysis import --dry-run FOLDER``.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from analysis.figures.catalog import save_figures
from analysis.planning.power_summary import power_summary
from analysis.planning.second_stage import write_second_stage
from analysis.published.claim_checks import PUBLISHED_RECIPES
from analysis.published.importer import Claim, import_logs, write_rows
from analysis.published.log_verdicts import log_files, verdicts
from analysis.report.report import write_report
from analysis.report.summary import write_summary
from analysis.rows.read import sweep_place
from analysis.study import read_study
from analysis.submission.claim import About, read_claim
from analysis.submission.folder import write_submission
from analysis.text_table import show
from sweep.store.collect import collect_if_behind
from sweep.store.files import StoreError
from sweep.store.store import Store
from trainer.activations import ACTIVATIONS
from trainer.config import parse_override
from trainer.config.config_errors import ConfigError
from trainer.contract import STAGE_COLUMNS

EXIT_BAD_INPUT = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Do what ``argv`` asks for; 0, or 2 with one sentence on stderr where it cannot be done."""
    arguments = _parser().parse_args(argv)
    try:
        for path in arguments.run(arguments):
            print(f"wrote {path}")
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EXIT_BAD_INPUT
    return 0


def _summary(arguments: argparse.Namespace) -> Iterator[str]:
    study = read_study(_place(arguments))
    if arguments.figures:
        yield from save_figures(study, tell=_not_drawn)
    summary, path = write_summary(study)
    show(summary, sys.stdout)
    yield path


def _power(arguments: argparse.Namespace) -> list[str]:
    show(power_summary(_place(arguments), arguments.sweep, zone=arguments.until), sys.stdout)
    return []


def _not_drawn(line: str) -> None:
    print(f"not drawn: {line}")


def _notebooks(arguments: argparse.Namespace) -> list[str]:
    from analysis.run_notebooks import run_notebooks  # 0.5 s of jupyter that no other verb needs

    return run_notebooks(_place(arguments))


def _leaders(arguments: argparse.Namespace) -> list[str]:
    path = write_second_stage(
        arguments.sweep,
        _place(arguments),
        keep=arguments.keep,
        seeds=arguments.seeds,
        out=arguments.out,
    )
    return [str(path)]


def _submission(arguments: argparse.Namespace) -> list[str]:
    names = {field.name for field in fields(About)}
    about = About(**{n: v for n, v in vars(arguments).items() if n in names and v is not None})
    claim = read_claim(
        _place(arguments),
        arguments.activation,
        about,
        setting=arguments.setting,
        stage=arguments.stage,
    )
    path, warnings = write_submission(claim, arguments.out, force=arguments.force)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return [str(path)]


_CLAIM = ("pr", "recipe", "activation", "out")


def _import(arguments: argparse.Namespace) -> list[str]:
    """Import the logs, or say what each would be read as; a ConfigError leaves no file."""
    logs = log_files(map(Path, arguments.logs))
    if arguments.dry_run:
        show(verdicts(logs, arguments.accept), sys.stdout)
        return []
    missing = [f"--{name}" for name in _CLAIM if getattr(arguments, name) is None]
    if missing:
        raise ConfigError(
            f"import: {', '.join(missing)} must be given, or --dry-run, which needs no claim."
        )
    claim = Claim(
        pr=arguments.pr,
        recipe=arguments.recipe,
        activation=arguments.activation,
        params=_activation_params(arguments),
        overrides=dict(map(parse_override, arguments.set)),
    )
    frame = import_logs(logs, claim, arguments.accept)
    for row in frame.dropna(subset=["notes"]).itertuples():
        print(f"{row.citation}: {row.notes}", file=sys.stderr)
    return [str(write_rows(frame, Path(arguments.out)))]


def _activation_params(arguments: argparse.Namespace) -> dict[str, float]:
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


def _place(arguments: argparse.Namespace) -> str:
    """Where the sweep's results are, with what has ended since they were last put together."""
    place = sweep_place(arguments.results, arguments.sweep)
    try:
        collect_if_behind(Store(place))
    except StoreError as error:
        print(f"warning: {error} Shown is what was put together before.", file=sys.stderr)
    return place


_Run = Callable[[argparse.Namespace], Iterable[str]]
_SWEEP_VERBS: dict[str, tuple[_Run, str]] = {
    "figures": (
        lambda given: save_figures(read_study(_place(given)), tell=_not_drawn),
        "draw every figure as PNG and SVG into the sweep's figures/",
    ),
    "summary": (_summary, "print the table and the decision, and write summary.md"),
    "report": (
        lambda given: write_report(_place(given), figures=given.figures, tell=_not_drawn),
        "write report.html, one page that needs nothing else, and report.md",
    ),
    "notebooks": (
        _notebooks,
        "execute the notebooks on the sweep into its notebooks/",
    ),
    "power": (_power, "say which difference its grid can resolve, and what others would need"),
    "leaders": (_leaders, "write the sweep file of a second stage: the leaders under fresh seeds"),
    "submission": (_submission, "make a records folder of one activation of a sweep over a script"),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m analysis", description=__doc__)
    verbs = parser.add_subparsers(dest="command", required=True)
    for name, (run, meaning) in _SWEEP_VERBS.items():
        verb = verbs.add_parser(name, help=meaning, description=meaning)
        verb.set_defaults(run=run)
        verb.add_argument("--sweep", required=True, help="name of the sweep, or path of its file")
        verb.add_argument("--results", default="results", help="folder or URI that sweeps write to")
    verbs.choices["power"].add_argument(
        "--until", metavar="BPB", type=float, help="the zone of a sweep that stops when it knows"
    )
    drawn = "what `figures` writes too, drawn from the same values"
    for name in ("summary", "report"):
        verbs.choices[name].add_argument("--figures", action="store_true", help=drawn)
    leaders = verbs.choices["leaders"]
    leaders.add_argument("--keep", type=int, default=3, help="how many (default: 3)")
    leaders.add_argument("--seeds", type=int, required=True, help="how many fresh seeds")
    leaders.add_argument("--out", help="default: NAME-stage2.toml beside the sweep's file")
    _add_submission(verbs.choices["submission"])
    meaning = "read training logs of published runs into rows of the store's schema"
    verb = verbs.add_parser("import", help=meaning, description=meaning)
    verb.set_defaults(run=_import)
    verb.add_argument(
        "logs", nargs="+", metavar="LOG", help="one finished run each, or a folder of them"
    )
    verb.add_argument(
        "--dry-run",
        action="store_true",
        help="needs no claim and writes nothing: print what each log would be read as, or why not",
    )
    verb.add_argument(
        "--accept",
        action="append",
        default=[],
        metavar="TEXT",
        help="a person has looked at unknown lines that have TEXT in them",
    )
    verb.add_argument("--pr", type=int, help="the pull request that has the logs")
    verb.add_argument("--activation", help=f"one of {', '.join(ACTIVATIONS)}")
    verb.add_argument("--slope", type=float, help="negative slope of leaky_relu2, 0 to 1")
    verb.add_argument("--activation-param", action="append", default=[], metavar="KEY=VALUE")
    verb.add_argument("--recipe", help=f"one of {', '.join(PUBLISHED_RECIPES)}")
    verb.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="what a run changed"
    )
    verb.add_argument("--out", metavar="FILE", help="a .parquet file, replaced if there")
    return parser


def _add_submission(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--activation", required=True, metavar="KEY", help="as leaky_relu2-s0.3")
    verb.add_argument("--setting", help="which one, where the sweep has several")
    verb.add_argument(
        "--stage", choices=STAGE_COLUMNS, help="whose score is claimed (default: the tested one)"
    )
    verb.add_argument(
        "--out", type=Path, metavar="DIR", help="default: records/track_TRACK/DATE_NAME"
    )
    verb.add_argument("--force", action="store_true", help="replace a submission that is there")
    for name in ("author", "github-id", "name", "blurb", "track"):
        verb.add_argument(f"--{name}", metavar="TEXT")
    verb.add_argument("--record-bpb", type=float, help="the score of the current record")
    verb.add_argument("--record-nats", type=float, help="margin (default: the sweep file's)")
    verb.add_argument("--record-p", type=float, help="level (default: the sweep file's)")


if __name__ == "__main__":
    sys.exit(main())
