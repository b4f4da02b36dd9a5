"""The table of activations: the parameters that each one takes, and the module of its code.

This table imports no torch, so that a sweep can be planned where torch is not installed. Each
entry names a module of this package that defines ``build(hidden, params) -> torch.nn.Module``, with
a number for every parameter in ``params``: an elementwise function of the pre-activations ``x_BTF``
whose learned parameters, if it has any, form an optimizer group of their own. To add one: write the
module, add a line here. The tests are parametrised over the table, so registering is being tested
(CONTRIBUTING.md).
"""

import hashlib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from trainer.config.config_errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from torch import nn

Value = float | list[float]
Given = Mapping[str, Value]
"""What is given of an activation; a list, with a number for each layer, where ``per_layer``."""
Params = Mapping[str, float]
"""What one layer has of it."""


@dataclass(frozen=True, slots=True)
class Range:
    """The closed interval that a parameter may take; without a ``default`` it must be given.

    ``per_layer``: it is a list, with a number for each layer. The list is one value, and no axis.
    """

    low: float
    high: float
    default: float | None = None
    per_layer: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row of the table.

    ``neg_beta`` is the fixed factor of x² on the negative side, None where it is learned or random,
    where layers differ, or where the function is not of that family. ``learns_beta``: that factor
    is learned. ``ordered`` names two parameters of which the first may not exceed the second.
    """

    module: str
    params: Mapping[str, Range] = field(default_factory=dict)
    neg_beta: Callable[[Params], float] | None = None
    ordered: tuple[str, str] | None = None
    learns_beta: bool = False

    @property
    def is_by_layer(self) -> bool:
        """Whether some parameter is given for each layer."""
        return any(bounds.per_layer for bounds in self.params.values())


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
    "leaky_relu2_layers": Entry(
        module="leaky_relu2_layers", params={"slopes": Range(0.0, 1.0, per_layer=True)}
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


def check_activation(name: str, params: Given) -> Entry:
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
            raise ConfigError(f"activation {name} was given {key} = {value}; {name} takes {takes}.")
        _check_value(f"activation {name}: {key}", value, entry.params[key])
    missing = sorted(entry.params.keys() - with_defaults(name, params).keys())
    if missing:
        example = "[0.3, 0.5], with two layers" if entry.params[missing[0]].per_layer else "0.5"
        raise ConfigError(
            f"activation {name} needs {', '.join(missing)}; give for example {missing[0]} = "
            f"{example}."
        )
    _check_order(name, params)
    return entry


def check_num_layers(name: str, params: Given, num_layers: int) -> None:
    """A ConfigError where a list of ``params`` has more or fewer numbers than there are layers."""
    for key, value in params.items():
        if isinstance(value, list) and len(value) != num_layers:
            raise ConfigError(
                f"activation {name}: {key} holds {len(value)}, and the recipe's model has "
                f"num_layers = {num_layers}. Give {num_layers}, that of the first layer first."
            )


def _check_value(what: str, value: Value, bounds: Range) -> None:
    if isinstance(value, list) != bounds.per_layer or value == []:
        kind = "a list of numbers, one for each layer" if bounds.per_layer else "one number"
        raise ConfigError(f"{what} = {value}: give {kind}.")
    for number in value if isinstance(value, list) else [value]:
        if not bounds.low <= number <= bounds.high:
            raise ConfigError(
                f"{what} = {number:g} is outside its range, {bounds.low:g} to {bounds.high:g}."
            )


def _check_order(name: str, params: Given) -> None:
    ordered, values = ACTIVATIONS[name].ordered, of_layer(with_defaults(name, params), 0)
    if ordered is not None and values[ordered[0]] > values[ordered[1]]:
        low, high = (
            f"{key} = {values[key]:g}{'' if key in params else ' (its default)'}" for key in ordered
        )
        raise ConfigError(
            f"activation {name}: {low} is above {high}; give {ordered[0]} ≤ {ordered[1]}."
        )


def with_defaults(name: str, params: Given) -> dict[str, Value]:
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


def of_layer(params: Given, layer: int) -> dict[str, float]:
    """What ``layer`` has of ``params``.

    >>> of_layer({"slopes": [0.3, 0.5]}, 1)
    {'slopes': 0.5}
    """
    return {k: value[layer] if isinstance(value, list) else value for k, value in params.items()}


def activation_label(name: str, params: Given) -> str:
    """The name that people read and type: ``leaky_relu2-s0.5``.

    >>> activation_label("leaky_relu2", {"slope": 0.30000000000000004})
    'leaky_relu2-s0.3'
    """
    parts = [
        f"{'s' if key in ('slope', 'slopes') else key}{spelled(value)}"
        for key, value in sorted(params.items())
    ]
    return "-".join([name, *parts])


def spelled(value: Value) -> str:
    """A number in the fewest digits; of a list the least, the greatest and a hash of all.

    >>> spelled(0.30000000000000004), spelled([0.30000000000000004, 0.9, 0.5])
    ('0.3', '0.3to0.9-bfff1db6')
    """
    if not isinstance(value, list):
        return f"{value + 0.0:.12g}"
    all_of_them = hashlib.sha256(",".join(map(spelled, value)).encode()).hexdigest()
    return f"{min(value) + 0.0:.3g}to{max(value) + 0.0:.3g}-{all_of_them[:8]}"


def neg_beta(name: str, params: Given) -> float | None:
    """The factor of x² on the negative side: s² for a slope s, 0 for ReLU²; None if not one."""
    entry = ACTIVATIONS[name]
    if entry.neg_beta is None:
        return None
    return entry.neg_beta(of_layer(with_defaults(name, params), 0))  # every layer's is the same


def build_activation(name: str, params: Given, hidden: int, layer: int = 0) -> "nn.Module":
    """A fresh module of this activation for ``layer``, of ``hidden`` channels."""
    entry = check_activation(name, params)
    code = importlib.import_module(f"{__name__}.{entry.module}")
    module: nn.Module = code.build(hidden, of_layer(with_defaults(name, params), layer))
    return module
