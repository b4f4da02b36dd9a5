"""Import training logs of published runs as rows, and check them against what the user claims.

A log says neither which recipe it is nor, most of the time, which activation ran: the user claims
it, and whatever the log does say is held against the claim.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.number_format import counted
from analysis.published.claim_checks import (
    PUBLISHED_RECIPES,
    activation_difference,
    data_differences,
    recipe_differences,
    refusal,
    size_difference,
)
from analysis.published.log_facts import LogFacts, read_log
from analysis.published.published_rows import published_frame, published_row
from sweep.store.files import open_files
from sweep.store.schema import SCHEMA
from trainer.activations import check_activation
from trainer.config import Recipe, load_recipe
from trainer.config.config_errors import ConfigError, did_you_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What the user says of logs, since they do not say it themselves; it exists, or a ConfigError.

    ``overrides`` are recipe values that the run changed, by ``section.key``; None leaves one out.
    """

    pr: int
    recipe: str
    activation: str
    params: Mapping[str, float]
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.recipe not in PUBLISHED_RECIPES:
            known = list(PUBLISHED_RECIPES)
            raise ConfigError(
                f"--recipe {self.recipe!r} reproduces no published run."
                f"{did_you_mean(self.recipe, known)} Published are {', '.join(known)}; what a run"
                " changed of one is said by --set."
            )
        if self.pr < 1:
            raise ConfigError(
                f"--pr {self.pr}: the number of a pull request is needed, such as 1035."
            )
        check_activation(self.activation, self.params)


def import_logs(paths: Iterable[Path], claim: Claim, accept: Sequence[str] = ()) -> pd.DataFrame:
    """One row per log, with the columns of ``analysis.published.published_rows``.

    A ConfigError names file and line of every log that is damaged, unfinished, not of the claimed
    recipe or activation, or of a seed that another of them has. A person has looked at unknown
    lines that have a text of ``accept`` in them.
    """
    recipe = load_recipe(claim.recipe, claim.overrides)
    rows: dict[str, dict[str, Any]] = {}
    files: dict[str, str] = {}
    refused: list[str] = []
    for path in paths:
        try:
            facts = read_log(path, accept)
            _check(facts, claim, recipe)
            row = _row(facts, claim, path.name)
            _check_new(row, facts, files)
        except ConfigError as error:
            refused.append(str(error))
        else:
            rows[row["cell_id"]], files[row["cell_id"]] = row, facts.where
    if refused:
        others = [f"{len(refused)} logs are refused, so nothing is imported."] * (len(refused) > 1)
        raise ConfigError("\n".join([*refused, *others]))
    if not rows:
        raise ConfigError("no log was given; name one or more files.")
    return published_frame(list(rows.values()))


def write_rows(frame: pd.DataFrame, out: Path) -> Path:
    """Write the schema's columns of ``frame`` to the Parquet file ``out``."""
    if out.suffix != ".parquet":
        raise ConfigError(f"--out {out}: a name that ends in .parquet is needed.")
    table = pa.Table.from_pandas(frame[SCHEMA.names], schema=SCHEMA, preserve_index=False)
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(SCHEMA.metadata), sink)
    open_files(out.parent).replace(out.name, sink.getvalue().to_pybytes())
    return out


def load_imported(path: Path) -> pd.DataFrame:
    """What ``write_rows`` wrote, as ``import_logs`` gave it but for the notes."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise ConfigError(f"{path}: this cannot be read as Parquet ({error}).") from None
    rows = []
    for number, row in enumerate(table.to_pylist(), start=1):
        found = re.fullmatch(r"log: (PR #(\d+), .+)", row.get("evidence") or "")
        if found is None:
            raise ConfigError(
                f"{path}, row {number}: no row of an imported log; `python -m analysis import`"
                " writes them."
            )
        overrides = json.loads(row["set_json"])
        named = {
            "pr": int(found[2]),
            "stack": _stack(row["recipe"], overrides),
            "words": row["activation"],
            "hardware": _hardware(row["world_size"], row["device_name"]),
            "citation": found[1],
            "evidence_class": "log",
        }
        params = json.loads(row["params_json"])
        rows.append(published_row(**{**row, **named}, params=params, same=None))
    return published_frame(rows)


def _stack(recipe: str, overrides: Mapping[str, Any]) -> str:
    return "".join([recipe, *(f", {key} = {value}" for key, value in sorted(overrides.items()))])


def _hardware(world_size: int, gpu: str | None) -> str | None:
    return None if gpu is None else f"{world_size}x{gpu}"


def _check_new(row: Mapping[str, Any], facts: LogFacts, files: Mapping[str, str]) -> None:
    if row["cell_id"] in files:
        raise ConfigError(
            f"{facts.where}, line {facts.lines['seed']}: seed {row['seed']} of PR #{row['pr']}"
            f" with {row['label']} is in {files[row['cell_id']]} already; give each run once."
        )


def _row(facts: LogFacts, claim: Claim, name: str) -> dict[str, Any]:
    return published_row(
        **facts.row,
        pr=claim.pr,
        recipe=claim.recipe,
        stack=_stack(claim.recipe, claim.overrides),
        set_json=json.dumps(dict(sorted(claim.overrides.items())), separators=(",", ":")),
        activation=claim.activation,
        params=dict(claim.params),
        words=claim.activation,
        hardware=_hardware(facts.row["world_size"], facts.row["device_name"]),
        evidence_class="log",
        citation=f"PR #{claim.pr}, {name}{_accepted(facts)}",
        notes=_unknown_lines_note(facts),
        same=None,
    )


def _accepted(facts: LogFacts) -> str:
    """It goes with the row for good that a person answered for a line."""
    texts = ", ".join(map(repr, facts.accepted))
    return f" (accepted: lines with {texts})" if texts else ""


def _unknown_lines_note(facts: LogFacts) -> str | None:
    """A line that nobody knows is no reason to refuse a log, and none to be silent."""
    if not facts.unknown_lines:
        return None
    lines = counted(len(facts.unknown_lines), "line")
    return f"{lines} passed over, not of the grammar; the first is line {facts.unknown_lines[0]}"


def _check(facts: LogFacts, claim: Claim, recipe: Recipe) -> None:
    """Nothing, if all that the log says of its recipe, data and activation is as claimed."""
    what_to_do = (
        f". Is it a log of another recipe ({', '.join(PUBLISHED_RECIPES)})? What a run changed of"
        " one is said by --set SECTION.KEY=VALUE."
    )
    for difference in recipe_differences(facts, recipe, claim.recipe):
        raise refusal(facts, difference, what_to_do)
    for difference in data_differences(facts, recipe.data.dataset):
        raise refusal(facts, difference)
    named = activation_difference(facts, claim.activation, claim.params)
    size = size_difference(facts, recipe, claim.recipe, claim.overrides, claim.activation)
    if named is not None:
        raise refusal(facts, named, f", and {claim.activation} is claimed{_of(claim.params)}.")
    if size is not None:
        raise refusal(facts, size, "")


def _of(params: Mapping[str, float]) -> str:
    return "".join(f", {key} = {value:g}" for key, value in params.items())
