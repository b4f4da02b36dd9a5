"""Hold what a log says of its recipe, its data and its activation against what is claimed of it."""

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from analysis.number_format import listed
from analysis.published.log_facts import LogFacts
from trainer.activations import ACTIVATIONS
from trainer.config import Recipe
from trainer.config.config_errors import ConfigError
from trainer.script.logs.named_activation import contradiction

# The recipes that reproduce a published run, and the parameters of that run's model with a fixed β.
PUBLISHED_RECIPES = {"pr1035": 17_059_912, "pr549": 26_928_220, "pr1176": 27_038_812}
_OF_NO_SIZE = {"model.qk_gain", "model.xsa_last_layers"}

# What is known of a dataset: its tokenizer, its validation text, and ln 2 · bytes / tokens of that.
_TEXTS: dict[str, dict[str, Any]] = {
    "fineweb10B_sp1024": {
        "tokenizer": "fineweb_1024_bpe.model",
        "val_tokens": 62_021_632,
        "nats_per_bpb": 1.688458,
    }
}
_SHARD_TOKENS = 10**8
_RATIO = 1e-5  # six digits above, and the 64 targets that sliding windows of #549 on score again


@dataclass(frozen=True, slots=True)
class Difference:
    """A line that contradicts: its number, its text, and why."""

    line: int
    text: str
    why: str


def refusal(facts: LogFacts, difference: Difference, then: str = ".") -> ConfigError:
    """The refusal of a log for ``difference``, and what to do ``then``."""
    line, text = difference.line, difference.text
    return ConfigError(f"{facts.where}, line {line}: {text!r}: {difference.why}{then}")


def recipe_differences(facts: LogFacts, recipe: Recipe, name: str) -> Iterator[Difference]:
    """Where the log's configuration is not that of ``recipe``."""
    for key, (logged, kind) in facts.configured.items():
        claimed = _claimed(recipe, key)
        if claimed is not _ABSENT and logged != claimed:
            why = f"the log says {key} = {_word(logged)}, recipe {name} has {_word(claimed)}"
            yield _at(facts, kind, why)


def data_differences(facts: LogFacts, dataset: str) -> Iterator[Difference]:
    """Where the log's tokens are not those of ``dataset``, or its training repeats them."""
    known = {"dataset": dataset, "folder": dataset, "train_shards": facts.row["tokens"]}
    known |= _TEXTS.get(dataset, {})
    for key, (holds, why) in _DATA.items():
        value, kind = facts.data[key]
        if key in known and value is not None and not holds(value, known[key]):
            yield _at(facts, kind, why.format(value, known[key]))


def activation_difference(
    facts: LogFacts, activation: str, params: Mapping[str, float]
) -> Difference | None:
    """Where the log's lines or source name another activation."""
    entry = ACTIVATIONS[activation].params
    defaults = {key: one.default for key, one in entry.items() if one.default is not None}
    found = contradiction(facts.named, activation, {**defaults, **params})
    if found is None:
        return None
    line, what = found
    own = "source" if line.in_source else "line"
    return Difference(line.number, line.text, f"the log's own {own} names {what}")


def size_difference(
    facts: LogFacts, recipe: Recipe, name: str, overrides: Mapping[str, Any], activation: str
) -> Difference | None:
    """The count of parameters tells what is learned, where the model has its published size."""
    if {key for key in overrides if key.startswith("model.")} - _OF_NO_SIZE:
        return None
    counts = learned_counts(recipe, name)
    fixed, count = counts["no learned β"], counts.get(activation, counts["no learned β"])
    if facts.row["num_params"] == count:
        return None
    known = {activation: count, "asqu": counts["asqu"]}
    known |= {"no learned β": fixed} if activation == "asqu" else {}
    why = (
        f"{facts.row['num_params']:,} parameters, but {name} has"
        f" {listed([f'{number:,} with {who}' for who, number in known.items()])}."
        " Is it another activation, or another recipe?"
    )
    return _at(facts, "params", why)


def learned_counts(recipe: Recipe, name: str) -> dict[str, int]:
    """The parameters of the model of ``name``, by what its activation learns."""
    fixed, model = PUBLISHED_RECIPES[name], recipe.model
    return {
        "no learned β": fixed,
        "asqu": fixed + model.num_layers * model.mlp_hidden,
        "prelu2": fixed + model.num_layers,
        "xielu": fixed + 2 * model.num_layers,
    }


def _at(facts: LogFacts, kind: str, why: str) -> Difference:
    return Difference(facts.lines[kind], facts.texts[kind], why)


_ABSENT = object()


def _claimed(recipe: Recipe, key: str) -> object:
    """The value of ``section.key``; of a whole section, whether the recipe has it."""
    name, _, leaf = key.partition(".")
    section = getattr(recipe, name)
    if not leaf:
        return section is not None
    return _ABSENT if section is None else getattr(section, leaf)


def _word(value: object) -> object:
    return {True: "scored", False: "nothing"}[value] if isinstance(value, bool) else value


# What a log says of its data, what must hold of it, and what it means where it does not.
_DATA: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    "dataset": (
        operator.eq,
        "the log says data.dataset = {0}, where the recipe has {1}",
    ),
    "tokenizer": (
        operator.eq,
        "tokens of {0}, where the recipe's dataset has {1}",
    ),
    "folder": (
        operator.eq,
        "validated on {0}, where the recipe has {1}",
    ),
    "val_tokens": (
        operator.eq,
        "{0:,} validation tokens, where the text of the recipe has {1:,}: a score of another text",
    ),
    "train_shards": (
        lambda found, tokens: found * _SHARD_TOKENS >= tokens,
        "{0} shards of 10⁸ tokens, and {1:,} were taken: the same text again and again",
    ),
    "nats_per_bpb": (
        lambda found, known: abs(found - known) < _RATIO,
        "loss over bits per byte is {0:.6f}, and {1:.6f} for the text of the recipe: another text,"
        " another tokenizer, or bytes that are counted otherwise",
    ),
}
