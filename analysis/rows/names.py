"""Name each cell for people who type and for people who read: key, label, budget, setting.

The rows of a sweep say it in columns and JSON; these columns make them readable:

``key``      the activation as people type it: relu2, leaky_relu2-s0.5, asqu
``label``    the activation as people read it: ReLU², LeakyReLU² 0.5, ASQU
``budget``   200 steps, 600 s
``setting``  everything but activation and seed: recipe, budget, further axes. Scores are compared
             and averaged only within one setting
``set.…``    one column for each recipe value that the sweep varies, from ``set_json``
"""

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from trainer.activations import activation_label
from trainer.config.config_errors import ConfigError

AXIS_PREFIX = "set."

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


def natural_order(frame: pd.DataFrame) -> list[str]:
    """The keys: ReLU² first, then slopes from small to large, then the others by name."""
    rows = frame[["key", "activation", "slope"]].drop_duplicates("key")
    first = rows["activation"].map({"relu2": 0, "leaky_relu2": 1}).fillna(2)
    ordered = rows.assign(first=first).sort_values(["first", "slope", "key"])
    return [str(key) for key in ordered["key"]]


def _params(frame: pd.DataFrame) -> list[dict[str, float]]:
    """The parameters of each row's activation; rows of older versions tell the slope alone."""
    texts = frame["params_json"] if "params_json" in frame else [None] * len(frame)
    found = []
    for text, slope, cell in zip(texts, frame["slope"], frame["cell"], strict=True):
        if not isinstance(text, str):
            found.append({} if _absent(slope) else {"slope": float(slope)})
            continue
        params = _object(text, "params_json", cell)
        for name, value in params.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ConfigError(f"cell {cell}: params_json: {name} is no number: {text}")
        found.append(params)
    return found


def _axes(text: object, cell: str) -> dict[str, object]:
    values = _object(text, "set_json", cell) if isinstance(text, str) else {}
    return dict(sorted(_flat(values).items()))


def _object(text: str, column: str, cell: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"cell {cell}: {column} is not JSON ({error}): {text}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"cell {cell}: {column} is no JSON object: {text}")
    return values


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
