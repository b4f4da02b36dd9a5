"""The table of activations: the parameters that each one takes, and the module of its code.

This table imports no torch, so that a sweep can be planned where torch is not installed. Each
entry names a module of this package that defines ``build(hidden, params) -> torch.nn.Module``, with
a value for every parameter in ``params``: an elementwise function of the pre-activations ``x_BTF``
whose learned parameters, if it has any, form an optimizer group of their own. To add one: write the
module, add a line here. The tests are parametrised over the table, so registering is being tested
(CONTRIBUTING.md).
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from trainer.config.config_errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from torch import nn

Params = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Range:
    """The closed interval that a parameter may take; without a ``default`` it must be given."""

    low: float
    high: float
    default: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row of the table.

    ``neg_beta`` is the fixed factor of x² on the negative side, None where it is learned or random
    or where the function is not of that family. ``learns_beta``: that factor is learned.
    ``ordered`` names two parameters of which the first may not exceed the second.
    """

    module: str
    params: Mapping[str, Range] = field(default_factory=dict)
    neg_beta: Callable[[Params], float] | None = None
    ordered: tuple[str, str] | None = None
    learns_beta: bool = False


@runtime_checkable
class StepDependent(Protocol):
    """An activation that is told which step of training begins, such as one that is random."""

    def begin_step(self, seed: int, step: int | None, layer: int) -> None:
        """Become what ``layer`` has in ``step``; without a step, what is scored.

        The three numbers alone decide, and neither the rank nor the calls before this one. As built
        it is what is scored. The change is made in a buffer, so that nothing is compiled anew.
        """


ACTIVATIONS: dict[str, Entry] = {
    "relu2": Entry(module="relu2", neg_beta=lambda params: 0.0),
    "leaky_relu2": Entry(
        module="leaky_relu2",
        params={"slope": Range(0.0, 1.0)},
        neg_beta=lambda params: params["slope"] ** 2,
    ),
    "asqu": Entry(module="asqu", params={"init": Range(-4.0, 4.0, default=0.25)}, learns_beta=True),
    # The slope enters as its square, so a negative one adds nothing, and at 0 its gradient is 0.
    "prelu2": Entry(
        module="prelu2", params={"init": Range(0.01, 2.0, default=0.25)}, learns_beta=True
    ),
    # No neg_beta: the β of scoring is fixed, but in training it is drawn anew at every step.
    "rrelu2": Entry(
        module="rrelu2",
        params={"low": Range(0.0, 1.0, default=1 / 8), "high": Range(0.0, 1.0, default=1 / 3)},
        ordered=("low", "high"),
    ),
    "relu": Entry(module="relu"),
    "leaky_relu": Entry(module="leaky_relu", params={"slope": Range(0.0, 1.0)}),
    "gelu": Entry(module="gelu"),
    "silu": Entry(module="silu"),
    "elu": Entry(module="elu"),
    "xielu": Entry(module="xielu"),
}


def check_activation(name: str, params: Params) -> Entry:
    """The entry of ``name`` if ``params`` is what it takes; else a ConfigError.

    A parameter with a default may be omitted. An omitted one is in no label and in no hash.
    """
    if name not in ACTIVATIONS:
        known = list(ACTIVATIONS)
        raise ConfigError(
            f"activation {name!r} is not known.{did_you_mean(name, known)} "
            f"Known: {', '.join(known)}."
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
    missing = sorted(entry.params.keys() - with_defaults(name, params).keys())
    if missing:
        raise ConfigError(
            f"activation {name} needs {', '.join(missing)}; give for example {missing[0]} = 0.5."
        )
    _check_order(name, params)
    return entry


def _check_order(name: str, params: Params) -> None:
    ordered, values = ACTIVATIONS[name].ordered, with_defaults(name, params)
    if ordered is not None and values[ordered[0]] > values[ordered[1]]:
        low, high = (
            f"{key} = {values[key]:g}{'' if key in params else ' (its default)'}" for key in ordered
        )
        raise ConfigError(
            f"activation {name}: {low} is above {high}; give {ordered[0]} ≤ {ordered[1]}."
        )


def with_defaults(name: str, params: Params) -> dict[str, float]:
    """``params`` with the default of everything that was omitted.

    >>> with_defaults("rrelu2", {"high": 0.5})
    {'low': 0.125, 'high': 0.5}
    """
    defaults = {
        key: bounds.default
        for key, bounds in ACTIVATIONS[name].params.items()
        if bounds.default is not None
    }
    return {**defaults, **params}


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
    """The factor of x² on the negative side: s² for a slope s, 0 for ReLU²; None if not fixed."""
    entry = ACTIVATIONS[name]
    return None if entry.neg_beta is None else entry.neg_beta(with_defaults(name, params))


def build_activation(name: str, params: Params, hidden: int) -> "nn.Module":
    """A fresh module of this activation for one layer of ``hidden`` channels."""
    entry = check_activation(name, params)
    code = importlib.import_module(f"{__name__}.{entry.module}")
    module: nn.Module = code.build(hidden, with_defaults(name, params))
    return module
