"""Which activations exist, what do they take, and where is their code?

This table imports no torch, so that a sweep can be planned where torch is not installed. Each
entry names a module of this package that defines ``build(hidden, params) -> torch.nn.Module``: an
elementwise function of the pre-activations ``x_BTF`` whose learned parameters, if it has any, form
an optimizer group of their own. To add one: write the module, add a line here. The tests are
parametrised over the table, so registering is being tested (CONTRIBUTING.md).
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trainer.strict import ConfigError, suggestion

if TYPE_CHECKING:
    from torch import nn

Params = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Range:
    """The closed interval that a parameter of an activation may take."""

    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row of the table.

    ``neg_beta`` is the fixed factor of x² on the negative side, None where it is learned or where
    the function is not of that family.
    """

    module: str
    params: Mapping[str, Range] = field(default_factory=dict)
    neg_beta: Callable[[Params], float] | None = None


ACTIVATIONS: dict[str, Entry] = {
    "relu2": Entry(module="relu2", neg_beta=lambda params: 0.0),
    "leaky_relu2": Entry(
        module="leaky_relu2",
        params={"slope": Range(0.0, 1.0)},
        neg_beta=lambda params: params["slope"] ** 2,
    ),
    "asqu": Entry(module="asqu"),
}


def check_activation(name: str, params: Params) -> Entry:
    """The entry of ``name`` if ``params`` are exactly what it takes; else a ConfigError."""
    if name not in ACTIVATIONS:
        known = list(ACTIVATIONS)
        raise ConfigError(
            f"activation {name!r} is not known.{suggestion(name, known)} Known: {', '.join(known)}."
        )
    entry = ACTIVATIONS[name]
    for key, value in params.items():
        if key not in entry.params:
            takes = ", ".join(entry.params) or "no parameter"
            raise ConfigError(
                f"activation {name} was given {key} = {value:g}; {name} takes {takes}."
            )
        bounds = entry.params[key]
        if not bounds.low <= value <= bounds.high:
            raise ConfigError(
                f"activation {name}: {key} = {value:g} is outside its range, "
                f"{bounds.low:g} to {bounds.high:g}."
            )
    missing = [key for key in entry.params if key not in params]
    if missing:
        raise ConfigError(
            f"activation {name} needs {', '.join(missing)}; give for example {missing[0]} = 0.5."
        )
    return entry


def activation_label(name: str, params: Params) -> str:
    """The name that people read and type: ``leaky_relu2-s0.5``.

    >>> activation_label("leaky_relu2", {"slope": 0.30000000000000004})
    'leaky_relu2-s0.3'
    """
    parts = [
        f"{'s' if key == 'slope' else key}{value + 0.0:.12g}"
        for key, value in sorted(params.items())
    ]
    return "-".join([name, *parts])


def neg_beta(name: str, params: Params) -> float | None:
    """The factor of x² on the negative side: s² for a slope s, 0 for ReLU², None if learned."""
    entry = ACTIVATIONS[name]
    return None if entry.neg_beta is None else entry.neg_beta(params)


def build_activation(name: str, params: Params, hidden: int) -> "nn.Module":
    """A fresh module of this activation for one layer of ``hidden`` channels."""
    entry = check_activation(name, params)
    module: nn.Module = importlib.import_module(f"{__name__}.{entry.module}").build(hidden, params)
    return module
