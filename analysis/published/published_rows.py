"""Published results as rows: the columns of the store, and those of their source.

A published row has every column of ``sweep.store.schema``, with ``source = "published"``, null
where nothing is known; the names that ``analysis.rows.read`` adds; and these:

``pr``              pull request of openai/parameter-golf, or issue, that published it
``quoted_by``       another one whose own table quotes this run
``stack``           what was held fixed, in words; ``recipe`` is the one of ours that is the same,
                    null where none is
``words``           what the source calls the activation
``hardware``        what it ran on, in words
``delta_bpb``       a published difference, as published; ``delta_against``: from what
``evidence_class``  what stands behind the numbers: a key of ``EVIDENCE``
``citation``        where they stand
``notes``           what one should know before using them

``setting`` begins with "published", so that no statistic of ours averages over such rows and
measured ones.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa

from analysis.rows.names import readable
from analysis.rows.parquet_table import to_frame
from sweep.store.schema import SCHEMA
from trainer.activations import activation_label, neg_beta

EVIDENCE: dict[str, str] = {
    "log": "a training log prints the numbers",
    "readme+log": "a table of the authors, with logs beside it",
    "readme": "a table or text of the authors, without a log",
    "commit": "the message of a commit",
    "thread": "the discussion of the pull request; nothing of it is in the repository",
    "derived": "computed from another number and a published difference",
    "citation": "others cite it; the source itself was not found",
}

EXTRAS = (
    *("pr", "quoted_by", "stack", "words", "hardware", "delta_bpb", "delta_against"),
    *("evidence_class", "citation", "notes"),
)


def published_row(**known: Any) -> dict[str, Any]:
    """A row with everything that follows from what is ``known`` of a published run.

    ``activation`` is a name of our table, with ``params``, or None where it has no such activation
    (``words`` says which it is). ``same`` is what else tells the run from others, for its id.
    """
    params, same = known.pop("params"), known.pop("same")
    name, words = known["activation"], known["words"]
    slope = params.get("slope") if name == "leaky_relu2" else None
    budget = _budget(known["budget_kind"], known["budget_value"])
    key = activation_label(name, params) if name else _slug(words)
    question = [known["pr"], known["stack"], key, known["seed"], budget, same]
    seed = "" if known["seed"] is None else f"__seed{known['seed']}"
    return {
        **dict.fromkeys((*SCHEMA.names, *EXTRAS)),
        **known,
        "sweep": "published",
        "cell": f"{key}{seed}__{budget.replace(' ', '')}__pr{known['pr']}",
        "cell_id": hashlib.sha256(json.dumps(question).encode()).hexdigest()[:16],
        "params_json": json.dumps(dict(sorted(params.items())), separators=(",", ":")),
        "slope": slope,
        "neg_beta": neg_beta(name, params) if name else None,
        "state": "succeeded",
        "tainted": False,
        "attempt": 1,
        "source": "published",
        "evidence": f"{known['evidence_class']}: {known['citation']}",
        **_by_size(known.get("artifact_bytes"), known.get("slot_bpb")),
        "key": key,
        "label": readable(name, params) if name else words,
        "budget": budget,
        "setting": f"published, {known['stack']}, {budget}",
    }


def published_frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The frame of ``published_row`` values, in their order; runs that are alike are replicates."""
    table = pa.Table.from_pylist(
        [{name: row[name] for name in SCHEMA.names} for row in rows], schema=SCHEMA
    )
    frame = to_frame(table)
    for name in ("key", "label", "budget", "setting", *EXTRAS):
        kind = "Int64" if name in ("pr", "quoted_by") else None
        kind = "float64" if name == "delta_bpb" else kind or "str"
        frame[name] = pd.Series([row[name] for row in rows], dtype=kind)
    alike = frame.groupby(["pr", "setting", "key", "seed"], dropna=False)
    return frame.assign(
        replicate=alike.cumcount().astype("Int64"),
        order_position=pd.Series(range(len(rows)), dtype="Int64"),
    )


def _by_size(artifact_bytes: int | None, slot_bpb: float | None) -> dict[str, Any]:
    """The cap is that of every published recipe; SLOT was fitted on its own targets in all."""
    return {
        "fits_cap": None if artifact_bytes is None else artifact_bytes <= 16_000_000,
        "slot_legal": None if slot_bpb is None else False,
    }


def _budget(kind: str | None, value: float | None) -> str:
    """As ``analysis.rows.read`` writes it, and in words where it is not stated."""
    if kind is None or value is None:
        return "budget not stated"
    return f"{value:g} {'s' if kind == 'seconds' else kind}"


def _slug(words: str) -> str:
    """
    >>> _slug("RReLU2 (MLP)")
    'published-rrelu2-mlp'
    """
    return "published-" + "-".join(re.findall(r"\w+", words.lower()))
