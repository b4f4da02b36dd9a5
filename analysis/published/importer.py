"""Import training logs of published runs as rows, and check them against what the user claims.

A log says neither which activation ran nor which recipe it is: the user claims it, and whatever the
log does say of its configuration is held against the claim.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.number_format import counted, listed
from analysis.published.log_facts import LogFacts, read_log
from analysis.published.published_rows import published_frame, published_row
from sweep.store.files import open_files
from sweep.store.schema import SCHEMA
from trainer.activations import check_activation
from trainer.config import Recipe, load_recipe
from trainer.config.config_errors import ConfigError, did_you_mean

# The recipes that reproduce a published run, and the parameters of that run's model with a fixed β.
PUBLISHED_RECIPES = {"pr1035": 17_059_912, "pr549": 26_928_220, "pr1176": 27_038_812}


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


def import_logs(paths: Iterable[Path], claim: Claim) -> pd.DataFrame:
    """One row per log, with the columns of ``analysis.published.published_rows``.

    A ConfigError names file and line where a log is damaged, unfinished, not of the claimed recipe
    or activation, or of a seed that another of them has.
    """
    recipe = load_recipe(claim.recipe, claim.overrides)
    rows: dict[str, dict[str, Any]] = {}
    files: dict[str, str] = {}
    for path in paths:
        facts = read_log(path)
        _check(facts, claim, recipe)
        row = _row(facts, claim, path.name)
        if row["cell_id"] in rows:
            raise ConfigError(
                f"{facts.where}, line {facts.lines['seed']}: seed {row['seed']} of PR #{claim.pr}"
                f" with {row['label']} is in {files[row['cell_id']]} already; give each run once."
            )
        rows[row["cell_id"]], files[row["cell_id"]] = row, facts.where
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
        citation=f"PR #{claim.pr}, {name}",
        notes=_unknown_lines_note(facts),
        same=None,
    )


def _unknown_lines_note(facts: LogFacts) -> str | None:
    """A line that nobody knows is no reason to refuse a log, and none to be silent."""
    if not facts.unknown_lines:
        return None
    lines = counted(len(facts.unknown_lines), "line")
    return f"{lines} passed over, not of the grammar; the first is line {facts.unknown_lines[0]}"


def _check(facts: LogFacts, claim: Claim, recipe: Recipe) -> None:
    """Nothing, if all that the log says of its configuration is as claimed."""
    for key, (logged, kind) in facts.configured.items():
        claimed = _claimed(recipe, key)
        if logged != claimed:
            raise ConfigError(
                f"{facts.where}, line {facts.lines[kind]}: the log says {key} = {_word(logged)},"
                f" recipe {claim.recipe} has {_word(claimed)}. Is it a log of another recipe"
                f" ({', '.join(PUBLISHED_RECIPES)})? What a run changed of one is said by"
                " --set SECTION.KEY=VALUE."
            )
    _check_activation(facts, claim, recipe)


def _claimed(recipe: Recipe, key: str) -> object:
    """The value of ``section.key``; of a whole section, whether the recipe has it."""
    section, _, leaf = key.partition(".")
    return getattr(getattr(recipe, section), leaf) if leaf else getattr(recipe, section) is not None


def _word(value: object) -> object:
    return {True: "scored", False: "nothing"}[value] if isinstance(value, bool) else value


def _check_activation(facts: LogFacts, claim: Claim, recipe: Recipe) -> None:
    """The count of parameters tells what is learned, where the model has its published size."""
    resized = {key for key in claim.overrides if key.startswith("model.")} - _OF_NO_SIZE
    if resized:
        return
    fixed, model = PUBLISHED_RECIPES[claim.recipe], recipe.model
    learned = {"asqu": model.num_layers * model.mlp_hidden, "prelu2": model.num_layers}
    num_params = fixed + learned.get(claim.activation, 0)
    if facts.row["num_params"] != num_params:
        counts = {claim.activation: num_params, "asqu": fixed + learned["asqu"]}
        if claim.activation == "asqu":
            counts["no learned β"] = fixed
        raise ConfigError(
            f"{facts.where}, line {facts.lines['params']}: {facts.row['num_params']:,}"
            f" parameters, but {claim.recipe} has"
            f" {listed([f'{count:,} with {name}' for name, count in counts.items()])}."
            " Is it another activation, or another recipe?"
        )


_OF_NO_SIZE = {"model.qk_gain", "model.xsa_last_layers"}
