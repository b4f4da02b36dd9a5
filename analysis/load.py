"""Which cells has a sweep answered, and what is each of them called?

Reads the two derived files of a sweep, ``cells.parquet`` and ``sweep.json``, from a folder or a
bucket. The frame has every column of ``sweep.schema``, and these, which make it readable:

``key``      the activation as people type it: relu2, leaky_relu2-s0.5, asqu
``label``    the activation as people read it: ReLU², LeakyReLU² 0.5, ASQU
``budget``   200 steps, 600 s
``setting``  everything but activation and seed: recipe, budget, further axes. Scores are compared
             and averaged only within one setting
``set.…``    one column for each recipe value that the sweep varies, from ``set_json``
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sweep.files import Files, open_files
from sweep.schema import SCHEMA, SCHEMA_VERSION, VERSION_KEY
from trainer.activations import activation_label
from trainer.strict import ConfigError, suggestion

CELLS_FILE = "cells.parquet"
SWEEP_FILE = "sweep.json"
AXIS_PREFIX = "set."
FALLBACK_REFERENCES = ("leaky_relu2-s0.5", "relu2")

TITLES = {
    "relu2": "ReLU²",
    "leaky_relu2": "LeakyReLU²",
    "asqu": "ASQU",
    "prelu2": "PReLU²",
    "rrelu2": "RReLU²",
    "relu": "ReLU",
    "leaky_relu": "LeakyReLU",
    "gelu": "GELU",
    "silu": "SiLU",
    "elu": "ELU",
}

# An absent integer or flag stays absent; the default conversion would make it a float NaN.
_PANDAS_TYPES: dict[pa.DataType, Any] = {
    pa.int64(): pd.Int64Dtype(),
    pa.bool_(): pd.BooleanDtype(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What a reader of the rows needs to know of the sweep: its order, its reference, its size."""

    name: str
    reference: str
    keys: tuple[str, ...]  # of the activations, in grid order
    num_cells: int | None  # None where sweep.json is absent
    screened_in: str | None = None  # the sweep that it is a second stage of


def sweep_place(results: str | Path, sweep: str) -> str:
    """Where a sweep leaves its results, by the sweep's name or by the path of its file.

    >>> sweep_place("s3://bucket/results", "configs/sweeps/slopes.toml")
    's3://bucket/results/slopes'
    """
    name = Path(sweep).stem if sweep.endswith(".toml") else Path(sweep).name
    return f"{str(results).rstrip('/')}/{name}"


def parts_of(place: str) -> tuple[str, str]:
    """The results that ``place`` is in, and the name of its sweep."""
    results, _, name = place.rstrip("/").rpartition("/")
    return results or ".", name


def load_cells(place: str | Path) -> pd.DataFrame:
    """One row per cell of the sweep in ``place``, in order of execution."""
    files = open_files(place)
    path = files.where(CELLS_FILE)
    try:
        data = files.read(CELLS_FILE)
    except FileNotFoundError:
        raise ConfigError(_no_store(files)) from None
    frame = _read(data, path).to_pandas(types_mapper=_PANDAS_TYPES.get)
    if frame.empty:
        raise ConfigError(f"{path} holds no cell yet; `make sweep` runs them.")
    return with_names(frame)


def load_sweep(place: str | Path, frame: pd.DataFrame) -> Sweep:
    """What ``sweep.json`` says; where it is absent, what the rows of ``frame`` let one infer."""
    files = open_files(place)
    facts = _read_facts(files)
    planned = [str(key) for key in facts.get("activations", [])]
    keys = (*planned, *(key for key in _natural_order(frame) if key not in planned))
    reference = facts.get("reference") or next(
        (key for key in FALLBACK_REFERENCES if key in keys), keys[0]
    )
    if reference not in keys:
        raise ConfigError(
            f"{files.where(SWEEP_FILE)}: reference {reference!r} is no activation of this sweep."
            f"{suggestion(str(reference), list(keys))} Known: {', '.join(keys)}."
        )
    return Sweep(
        name=str(facts.get("name", parts_of(files.place)[1])),
        reference=str(reference),
        keys=keys,
        num_cells=facts.get("num_cells"),
        screened_in=facts.get("screened_in"),
    )


def with_names(frame: pd.DataFrame) -> pd.DataFrame:
    """``frame`` and the readable columns that this module's docstring lists."""
    axes = [_axes(text, cell) for text, cell in zip(frame["set_json"], frame["cell"], strict=True)]
    names = list(zip(frame["activation"], _params(frame), strict=True))
    budgets = [
        f"{value:g} {'s' if kind == 'seconds' else kind}"
        for kind, value in zip(frame["budget_kind"], frame["budget_value"], strict=True)
    ]
    named = frame.assign(
        key=[activation_label(name, params) for name, params in names],
        label=[readable(name, params) for name, params in names],
        budget=budgets,
        setting=[
            ", ".join([recipe, budget, *(f"{axis} = {value}" for axis, value in values.items())])
            for recipe, budget, values in zip(frame["recipe"], budgets, axes, strict=True)
        ],
    )
    for axis in sorted({axis for values in axes for axis in values}):
        found = [values.get(axis) for values in axes]
        named[AXIS_PREFIX + axis] = pd.Series(found, index=named.index)
    return named


def is_scored(frame: pd.DataFrame) -> "pd.Series[bool]":
    """Which rows carry scores to be averaged: succeeded, and in undisturbed time."""
    tainted = frame["tainted"].astype("boolean").fillna(False)
    return (frame["state"] == "succeeded") & ~tainted.astype(bool)


def succeeded(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that carry scores; a ConfigError if there is none."""
    scored = frame[is_scored(frame)]
    if scored.empty:
        raise ConfigError(
            f"None of the {len(frame)} cells has an untainted success ({count_states(frame)});"
            " `make status` says why."
        )
    return scored


def count_states(frame: pd.DataFrame) -> str:
    """How many cells ended how: ``30 succeeded, 2 diverged``."""
    return ", ".join(f"{count} {state}" for state, count in frame["state"].value_counts().items())


def settings(frame: pd.DataFrame) -> list[str]:
    """The settings in ``frame``, small budgets first."""
    columns = ["recipe", "budget_kind", "budget_value", "setting"]
    ordered = frame[columns].drop_duplicates().sort_values(columns)
    return [str(setting) for setting in ordered["setting"]]


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of ``frame`` as dictionaries."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def labels_of(frame: pd.DataFrame) -> dict[str, str]:
    """The label of each key."""
    return dict(zip(frame["key"], frame["label"], strict=True))


def readable(name: str, params: Mapping[str, float]) -> str:
    """
    >>> readable("leaky_relu2", {"slope": 0.30000000000000004}), readable("relu2", {})
    ('LeakyReLU² 0.3', 'ReLU²')
    >>> readable("rrelu2", {"low": 0.1, "high": 0.2})
    'RReLU² low 0.1 high 0.2'
    """
    shown = [
        f"{'' if key == 'slope' else key + ' '}{round(value, 12)}" for key, value in params.items()
    ]
    return " ".join([TITLES.get(name, name), *shown])


def _params(frame: pd.DataFrame) -> list[dict[str, float]]:
    """The parameters of each row's activation; rows of older versions tell the slope alone."""
    texts = frame["params_json"] if "params_json" in frame else [None] * len(frame)
    return [
        json.loads(text)
        if isinstance(text, str)
        else ({} if _absent(slope) else {"slope": float(slope)})
        for text, slope in zip(texts, frame["slope"], strict=True)
    ]


def _read(data: bytes, path: str) -> pa.Table:
    """The rows of a file with the columns of the schema; what an older file lacks is null."""
    try:
        found = pq.read_table(pa.BufferReader(data))
    except pa.ArrowInvalid as error:
        raise ConfigError(
            f"{path} is not a Parquet file ({error}); delete it and run `make sweep`."
        ) from None
    _check_version(found.schema.metadata or {}, path)
    columns = []
    for field in SCHEMA:
        if field.name not in found.column_names:
            columns.append(pa.nulls(found.num_rows, field.type))
            continue
        try:
            columns.append(found[field.name].cast(field.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise ConfigError(
                f"{path}: column {field.name} is not {field.type} ({error}); delete the file and"
                " run `make sweep`, which rebuilds it from the attempts."
            ) from None
    return pa.table(columns, schema=SCHEMA)


def _check_version(metadata: Mapping[bytes, bytes], path: str) -> None:
    given = metadata.get(VERSION_KEY, b"").decode(errors="replace")
    if not given.isdigit():
        raise ConfigError(
            f"{path} names no schema version, so no sweep wrote it; delete it and run `make sweep`."
        )
    if int(given) > SCHEMA_VERSION:
        raise ConfigError(
            f"{path} has schema version {given}; this code reads up to {SCHEMA_VERSION}."
            " Update the checkout to the revision that ran the sweep, or a later one."
        )


def _no_store(files: Files) -> str:
    results, name = parts_of(files.place)
    others = open_files(results)
    known = [other for other in others.folders() if others.exists(f"{other}/{CELLS_FILE}")]
    return (
        f"{files.where(CELLS_FILE)}: there is no such file, so sweep {name!r} has left no row"
        f" here; `make sweep` makes it.{suggestion(name, known)}"
        f" Sweeps in {results}: {', '.join(known) or 'none'}."
    )


def _read_facts(files: Files) -> dict[str, Any]:
    path = files.where(SWEEP_FILE)
    try:
        facts = json.loads(files.read(SWEEP_FILE))
    except FileNotFoundError:
        return {}
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{path}: this is not JSON ({error}); `make sweep` rewrites it."
        ) from None
    if not isinstance(facts, dict):
        raise ConfigError(f"{path}: this holds {type(facts).__name__}, not an object.")
    return facts


def _natural_order(frame: pd.DataFrame) -> list[str]:
    """ReLU² first, then slopes from small to large, then the others by name."""
    rows = frame[["key", "activation", "slope"]].drop_duplicates("key")
    first = rows["activation"].map({"relu2": 0, "leaky_relu2": 1}).fillna(2)
    ordered = rows.assign(first=first).sort_values(["first", "slope", "key"])
    return [str(key) for key in ordered["key"]]


def _axes(text: object, cell: str) -> dict[str, object]:
    try:
        values = json.loads(text) if isinstance(text, str) else {}
    except json.JSONDecodeError as error:
        raise ConfigError(f"cell {cell}: set_json is not JSON ({error}): {text}") from None
    return dict(sorted(_flat(values).items()))


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """
    >>> _flat({"optim": {"lr": 0.02}, "ema.decay": 0.99})
    {'optim.lr': 0.02, 'ema.decay': 0.99}
    """
    flat: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _absent(value: float | None) -> bool:
    return value is None or bool(pd.isna(value))
