"""Name each cell for people who type and for people who read: key, label, budget, setting.

The rows of a sweep say it in columns and JSON; these columns make them readable:

``key``      the activation as people type it: relu2, leaky_relu2-s0.5, asqu
``label``    the activation as people read it: ReLU², LeakyReLU² 0.5, ASQU
``budget``   200 steps, 600 s
``setting``  everything but activation and seed: recipe, budget, further axes. Scores are compared
             and averaged only within one setting
``set.…``    one column for each recipe value that the sweep varies, from ``set_json``
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import pandas as pd
from pydantic import ConfigDict, TypeAdapter, ValidationError

from trainer.activations import Given, activation_label, spelled
from trainer.config.config_errors import ConfigError

T = TypeVar("T")

AXIS_PREFIX = "set."

_PARAMS = TypeAdapter(dict[str, list[float] | int | float], config=ConfigDict(strict=True))
_VALUES = TypeAdapter(dict[str, Any])

TITLES = {
    "relu2": "ReLU²",
    "leaky_relu2": "LeakyReLU²",
    "leaky_relu2_layers": "LeakyReLU² by layer",
    "asqu": "ASQU",
    "prelu2": "PReLU²",
    "rrelu2": "RReLU²",
    "relu": "ReLU",
    "leaky_relu": "LeakyReLU",
    "gelu": "GELU",
    "silu": "SiLU",
    "elu": "ELU",
    "xielu": "xIELU",
}


def with_names(frame: pd.DataFrame) -> pd.DataFrame:
    """``frame`` and the readable columns that this module's docstring lists."""
    axes = [_axes(text, cell) for text, cell in zip(frame["set_json"], frame["cell"], strict=True)]
    told = zip(frame["params_json"], frame["slope"], frame["cell"], strict=True)
    names = list(zip(frame["activation"], (_params(*row) for row in told), strict=True))
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


def readable(name: str, params: Given) -> str:
    """
    >>> readable("leaky_relu2", {"slope": 0.30000000000000004}), readable("relu2", {})
    ('LeakyReLU² 0.3', 'ReLU²')
    >>> readable("rrelu2", {"low": 0.1, "high": 0.2})
    'RReLU² low 0.1 high 0.2'
    """
    shown = [
        ("" if key in ("slope", "slopes") else f"{key} ")
        + (spelled(value) if isinstance(value, list) else str(round(value, 12)))
        for key, value in params.items()
    ]
    return " ".join([TITLES.get(name, name), *shown])


def natural_order(frame: pd.DataFrame) -> list[str]:
    """The keys: ReLU² first, then slopes from small to large, then the others by name."""
    rows = frame[["key", "activation", "slope"]].drop_duplicates("key")
    first = rows["activation"].map({"relu2": 0, "leaky_relu2": 1}).fillna(2)
    ordered = rows.assign(first=first).sort_values(["first", "slope", "key"])
    return [str(key) for key in ordered["key"]]


def _params(text: object, slope: Any, cell: str) -> Given:
    """The parameters of an activation; rows of older versions tell the slope alone."""
    if isinstance(text, str):
        return _parsed(_PARAMS, text, "params_json", cell)
    return {} if pd.isna(slope) else {"slope": float(slope)}


def _axes(text: object, cell: str) -> dict[str, object]:
    values = _parsed(_VALUES, text, "set_json", cell) if isinstance(text, str) else {}
    return dict(sorted(_flat(values).items()))


def _parsed(kind: TypeAdapter[dict[str, T]], text: str, column: str, cell: str) -> dict[str, T]:
    try:
        return kind.validate_json(text)
    except ValidationError as error:
        last = error.errors()[-1]
        place = ".".join(map(str, [column, *last["loc"]]))
        raise ConfigError(f"cell {cell}: {place}: {last['msg']}: {text}") from None


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
