"""Fill placeholders such as ``{slope}`` with the values of a cell."""

import re
from collections.abc import Iterable, Mapping

from trainer.config.config_errors import ConfigError, did_you_mean
from trainer.contract import ScriptSpec, canonical_json

OWN = (
    *("seed", "slope", "neg_beta", "activation", "steps", "seconds"),
    *("data_dir", "tokenizer", "gpus"),
)
_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}|\{([A-Za-z_]\w*)\}")


def placeholders(text: str) -> list[str]:
    """The names that ``text`` asks for.

    >>> placeholders("SEED={seed} f'{{loss}} {x:.3f}'")
    ['seed']
    """
    return [match[2] for match in _PLACEHOLDER.finditer(text) if match[2]]


def fill(text: str, values: Mapping[str, str], where: str) -> str:
    """``text`` with every ``{name}`` replaced and ``{{name}}`` unescaped.

    A ConfigError names ``where`` a name stands that has no value.
    """

    def value(match: re.Match[str]) -> str:
        if match[1]:
            return f"{{{match[1]}}}"
        name = match[2]
        if name not in values:
            raise ConfigError(
                f"{where}: {{{name}}} has no value here.{did_you_mean(name, list(values))} "
                f"Known: {', '.join(values)}. The text itself is written {{{{{name}}}}}."
            )
        return values[name]

    return _PLACEHOLDER.sub(value, text)


def values_of(spec: ScriptSpec, data_dir: str, tokenizer: str) -> dict[str, str]:
    """What each placeholder stands for in the cell of ``spec``; without what does not apply to it.

    ``{slope}`` is that of LeakyReLU², and 0 of ReLU², which is the same function.
    """
    beta, names = spec.neg_beta, spec.recipe.script.activation_names
    activation, budget = spec.activation, spec.parsed_budget
    slope = 0.0 if activation.name == "relu2" else activation.params.get("slope")
    known = {
        "seed": spec.seed,
        "slope": slope,
        "neg_beta": beta,
        "activation": names.get(activation.label, names.get(activation.name, activation.name)),
        budget.kind: budget.value,
        "data_dir": data_dir,
        "tokenizer": tokenizer,
        "gpus": spec.ranks,
        **spec.axes,
    }
    return {name: _text(value) for name, value in known.items() if value is not None}


def reserved(axes: Iterable[str]) -> list[str]:
    """Those axes whose name is a placeholder of every script already."""
    return [axis for axis in axes if axis in OWN]


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ConfigError(
            f"an axis of a script with the value {canonical_json(value)}: give numbers or texts, "
            f"as the script is to see them."
        )
    if isinstance(value, float):
        return f"{value + 0.0:.12g}"
    return str(value)
