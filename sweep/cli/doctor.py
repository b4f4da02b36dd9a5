"""The results of the preflight checks as ``make doctor`` prints them, for people or as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sweep.messages import CheckResult, Status
from trainer.system.printable import printable

EXIT_FIT, EXIT_UNFIT = 0, 2
STYLES = {
    "pass": "green",
    "warn": "yellow",
    "refuse": "bold red",
    "unknown": "magenta",
    "n/a": "dim",
}


def show_checks(
    found: Mapping[str, Sequence[CheckResult] | None], console: Console, *, as_json: bool = False
) -> int:
    """Say what was found on each node, None without an answer; 0 if none refuses, else 2."""
    if as_json:
        nodes = {n: None if r is None else list(map(asdict, r)) for n, r in found.items()}
        print(json.dumps(nodes, indent=1))
    for node, results in found.items() if not as_json else ():
        if results is None:
            console.print(Text(printable(f"{node} did not answer."), STYLES["refuse"]))
        else:
            _show_node(results, console, node)
    fit = all(r is not None and not _names(r, "refuse") for r in found.values())
    return EXIT_FIT if fit else EXIT_UNFIT


def _show_node(results: Sequence[CheckResult], console: Console, node: str) -> None:
    """The results of one node, and what to do about those that do not pass."""
    title = Text(printable(f"Preflight of {node}"))
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in ("check", "status", "what was found"):
        table.add_column(column, overflow="fold", no_wrap=column == "status")
    for result in (result for result in results if result.status != "n/a"):
        styled = Text(result.status, STYLES[result.status])
        table.add_row(Text(result.name), styled, Text(printable(result.detail)))
    console.print(table)
    if not_applicable := _names(results, "n/a"):
        console.print(Text(f"not needed by this sweep: {not_applicable}", STYLES["n/a"]))
    for result in sorted(results, key=lambda result: result.status):  # refuse before warn
        if result.status in ("refuse", "warn"):
            console.print()
            remedy = Text(f"{result.name}: ", STYLES[result.status])
            console.print(remedy.append(printable(result.remedy), "default"))
    console.print()
    console.print(_verdict(results), soft_wrap=True)


def _verdict(results: Sequence[CheckResult]) -> Text:
    refused, warned, unknown = (_names(results, s) for s in ("refuse", "warn", "unknown"))
    text = Text("Fit for this sweep.", STYLES["pass"])
    if refused:
        text = Text(f"Not fit for this sweep: {refused}.", STYLES["refuse"])
    text.append(f" Warned of: {warned}." if warned else "", "default")
    text.append(f" Not known here, which is no pass: {unknown}." if unknown else "", "default")
    return text


def _names(results: Sequence[CheckResult], status: Status) -> str:
    return ", ".join(result.name for result in results if result.status == status)
