"""What trackers show of an attempt that has ended: its cell's values, its curve, its scores."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from sweep.driver.display import EndedView
from sweep.spec.sweep_file import SweepSpec
from sweep.store.schema import TERMINAL_STATES

CURVE = {"train_loss": "train/loss", "lr_mult": "train/lr_mult", "val_bpb": "val/bpb"}
SCORES = {
    "pre_quant_bpb": "score/pre_quant_bpb",
    "post_quant_bpb": "score/post_quant_bpb",
    "post_quant_sliding_bpb": "score/post_quant_sliding_bpb",
    "ttt_bpb": "score/ttt_bpb",
}
CONFIG = (
    "cell",
    "cell_id",
    "attempt",
    "activation",
    "slope",
    "seed",
    "replicate",
    "budget_kind",
    "budget_value",
    "recipe",
    "node",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedAttempt:
    """One run of a tracker, in JSON's types.

    ``points`` have ``step``, ``train_s`` and ``values`` by tag; ``metrics``, of the whole attempt,
    are of step ``steps``. ``facts``: its state, its reason, its artifact's name in the results.
    """

    sweep: str
    name: str
    has_answer: bool
    started_at_s: float
    ended_at_s: float
    steps: int
    config: dict[str, Any]
    points: list[dict[str, Any]]
    metrics: dict[str, float]
    facts: dict[str, str]


def tracked(ending: EndedView, sweep: SweepSpec) -> TrackedAttempt:
    """``ending`` as a tracker takes it; what its row does not say is left out."""
    row = ending.row
    facts = {"state": ending.state, "reason": row.get("reason")}
    if row.get("model_bytes") is not None and sweep.keep_artifacts:
        facts["artifact"] = f"artifacts/{row['cell_id']}-{row['attempt']}.bin"
    return TrackedAttempt(
        sweep=sweep.name,
        name=f"{ending.cell}, attempt {row['attempt']}",
        has_answer=ending.state in TERMINAL_STATES,
        started_at_s=row["started_at"].timestamp(),
        ended_at_s=row["ended_at"].timestamp(),
        steps=row.get("steps") or 0,
        config={
            **{name: row[name] for name in CONFIG if row.get(name) is not None},
            "params": json.loads(row["params_json"]),
            "set": json.loads(row["set_json"]),
        },
        points=[
            {"step": point["step"], "train_s": point["train_s"], "values": tagged(point, CURVE)}
            for point in read_curve(ending.curve)
        ],
        metrics=tagged(row, {**SCORES, "artifact_bytes": "artifact/bytes"}),
        facts={name: fact for name, fact in facts.items() if fact is not None},
    )


def read_curve(curve: bytes | None) -> list[dict[str, Any]]:
    """The points of a curve's file; none where there is no file."""
    return pq.read_table(io.BytesIO(curve)).to_pylist() if curve is not None else []


def tagged(values: Mapping[str, Any], tags: Mapping[str, str]) -> dict[str, float]:
    """Those values that are there, by the tag under which they are shown."""
    return {tag: values[name] for name, tag in tags.items() if values.get(name) is not None}
