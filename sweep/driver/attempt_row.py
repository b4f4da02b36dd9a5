"""Check an agent's delivery, and put cell, attempt and report into the columns of a row."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sweep.cluster.interface import Lease
from sweep.messages import Delivery
from sweep.provenance import Revision
from sweep.schedule.plan import Task
from sweep.spec.grid import Cell
from sweep.store.schema import SCHEMA, TIMING
from sweep.store.store import Attempt
from trainer.config.config_errors import ConfigError
from trainer.contract import (
    Report,
    RunSpec,
    ScriptReport,
    ScriptSpec,
    canonical_json,
    parse_report,
    parse_script_report,
    recipe_hash,
    spec_hash,
    spec_values,
)
from trainer.system.printable import printable

_FROM_AGENT = frozenset(column.name for column in TIMING) - set(Report.model_fields)


@dataclass(frozen=True, slots=True)
class Versions:
    """Which driver it is, and what it runs with."""

    driver: str
    revision: Revision
    ray: str
    trainer_hash: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an attempt. ``report`` is None unless the state is terminal.

    ``to_confirm``: of a divergence alone, whether it is to be repeated on another node.
    """

    state: str
    reason: str | None
    report: Report | ScriptReport | None
    failure: str | None = None
    signature: str | None = None
    to_confirm: bool | None = None


def check_delivery(cell: Cell, delivery: Delivery) -> Outcome:
    """Accept a delivery only if its report is valid, is of this cell, and matches its artifact."""
    if delivery.state != "succeeded":
        failure, signature = delivery.failure, delivery.signature
        return Outcome(delivery.state, delivery.reason, None, failure, signature)
    if delivery.report is None:
        return _rejected("there is none")
    try:
        parse = parse_script_report if isinstance(cell.spec, ScriptSpec) else parse_report
        report = parse(delivery.report)
    except ConfigError as error:
        return _rejected(str(error))
    mismatch = _mismatch(cell, delivery, report)
    if mismatch is not None:
        return _rejected(mismatch)
    return Outcome(report.state, report.reason, report)


def attempt_row(
    sweep: str,
    task: Task,
    attempt: Attempt,
    outcome: Outcome,
    *,
    lease: Lease,
    versions: Versions,
) -> dict[str, Any]:
    """The row of one attempt, without what :func:`delivery_columns` adds."""
    is_script = isinstance(task.cell.spec, ScriptSpec)
    return {
        **identity_columns(sweep, task.cell),
        "trainer_hash": None if is_script else versions.trainer_hash,
        **(_measured(outcome.report) if outcome.report else {}),
        "state": outcome.state,
        "reason": outcome.reason and printable(outcome.reason),
        "failure": outcome.failure,
        "failure_signature": outcome.signature,
        "to_confirm": outcome.to_confirm,
        "tainted": False,
        "attempt": attempt.number,
        "generation": task.generation,
        "why": task.why,
        "node": lease.node,
        "node_id": lease.node_id or None,
        "driver": versions.driver,
        "started_at": attempt.started_at,
        "revision": versions.revision.commit,
        "dirty": versions.revision.dirty,
        "ray": versions.ray,
        "source": "measured",
        "evidence": f"attempts/{attempt.stem}.parquet",
    }


def delivery_columns(delivery: Delivery | None, log: str | None) -> dict[str, Any]:
    """What the agent measured, where its log is kept, and that the attempt ends now."""
    telemetry = delivery.telemetry if delivery is not None else {}
    measured = {name: telemetry[name] for name in _FROM_AGENT if name in telemetry}
    return {**measured, "log": log, "ended_at": datetime.now(UTC)}


def _measured(report: Report | ScriptReport) -> dict[str, Any]:
    """The columns that a report fills."""
    known = {name: getattr(report, name) for name in type(report).model_fields}
    if isinstance(report, ScriptReport):
        known["footing_json"] = canonical_json(report.footing)
    return {name: value for name, value in known.items() if name in SCHEMA.names}


def _rejected(mismatch: str) -> Outcome:
    return Outcome("failed", f"the report is rejected: {mismatch}", None, "cell", mismatch)


def identity_columns(sweep: str, cell: Cell) -> dict[str, Any]:
    """What is known of a cell before it runs."""
    spec = cell.spec
    return {
        "sweep": sweep,
        "cell": cell.name,
        "cell_id": cell.id,
        "recipe": spec.recipe_name,
        "activation": spec.activation.name,
        "params_json": canonical_json(spec.activation.params),
        "slope": cell.slope,
        "neg_beta": cell.neg_beta,
        "seed": spec.seed,
        "replicate": spec.replicate,
        "budget_kind": spec.parsed_budget.kind,
        "budget_value": spec.parsed_budget.value,
        "set_json": canonical_json(dict(cell.overrides)),
        "order_position": cell.order_position,
        "block": cell.block,
        **_echoed(cell),
        "config_json": canonical_json(_config(spec)),
    }


def _echoed(cell: Cell) -> dict[str, Any]:
    """What a report says of its cell too."""
    spec = cell.spec
    known = {
        "device": spec.device,
        "corpus_sha256": spec.corpus_sha256,
        "tokenizer_sha256": spec.tokenizer_sha256,
        "recipe_hash": recipe_hash(spec.recipe),
    }
    if isinstance(spec, ScriptSpec):
        return known | {"script_sha256": cell.script_sha256}
    return known | {
        "dtype": spec.dtype,
        "window": spec.recipe.scoring.seq_len,
        "stride": spec.recipe.scoring.stride,
        "code_bytes": spec.recipe.artifact.code_bytes,
    }


def _config(spec: RunSpec | ScriptSpec) -> dict[str, Any]:
    """Of a script without its text, which is not repeated in every row: its hash is."""
    if isinstance(spec, ScriptSpec):
        return spec_values(spec, "data_dir")
    return spec.model_dump(mode="json", exclude={"data_dir"})


def lost_row(
    sweep: str,
    cells: Mapping[str, Cell],
    attempt: Attempt,
    note: Mapping[str, Any],
    ended_at: datetime,
    revision: Revision,
) -> dict[str, Any]:
    """The row of an attempt whose driver went away before it could close it.

    The grid may have changed since: what the announcement noted stands in for an unknown cell.
    """
    cell = cells.get(attempt.cell_id)
    known = identity_columns(sweep, cell) if cell else dict(note.get("identity", {}))
    return {
        "sweep": sweep,
        "cell": attempt.cell_id,
        "cell_id": attempt.cell_id,
        "order_position": 0,
        **known,
        "state": "lost",
        "reason": f"its driver ({note.get('driver', 'unknown')}) ended before the attempt did",
        "failure": "driver",
        "tainted": False,
        "attempt": attempt.number,
        "generation": note.get("generation", 0),
        "node": note.get("node"),
        "driver": note.get("driver"),
        "started_at": attempt.started_at,
        "ended_at": ended_at,
        "revision": revision.commit,
        "dirty": revision.dirty,
        "source": "measured",
        "evidence": f"attempts/{attempt.stem}.parquet",
    }


def _mismatch(cell: Cell, delivery: Delivery, report: Report | ScriptReport) -> str | None:
    spec, budget = cell.spec, cell.spec.parsed_budget
    if report.spec_hash != spec_hash(spec):
        return f"it answers the question {report.spec_hash}, the cell is {spec_hash(spec)}"
    of_script = isinstance(report, ScriptReport)
    expected = _echoed(cell)
    says_steps = report.steps is not None
    if report.state == "succeeded" and budget.kind == "steps" and says_steps:
        expected["steps"] = int(budget.value)
    if report.model_bytes is not None and report.code_bytes is not None:
        expected["artifact_bytes"] = report.model_bytes + report.code_bytes
    for name, value in expected.items():
        if getattr(report, name) != value:
            return f"its {name} is {getattr(report, name)}, expected is {value}"
    if of_script:
        return None
    if delivery.curve is None:
        return "the curve is missing"
    if report.state == "succeeded" and delivery.layers is None:
        return "the layers are missing"
    if report.model_bytes is not None:
        size = len(delivery.artifact) if delivery.artifact is not None else None
        if size != report.model_bytes:
            return f"it speaks of an artifact of {report.model_bytes} bytes, here are {size}"
    return None
