"""A recipe as a whole: its sections, where its file is, and how a value is overridden."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import field_validator, model_validator

from trainer.config.config_errors import (
    ConfigError,
    StrictModel,
    find_config,
    read_toml,
    require,
    validated,
)
from trainer.config.data import Data
from trainer.config.model import Model
from trainer.config.quantization import Artifact, Quantization
from trainer.config.scoring import TTT, Scoring, Slot
from trainer.config.script import ScriptData
from trainer.config.training import Averaging, Optim, Train

RECIPES = Path(__file__).resolve().parents[2] / "configs" / "recipes"


class Recipe(StrictModel):
    """One point in the space of everything that a sweep holds fixed."""

    data: Data
    model: Model
    train: Train
    optim: Optim
    averaging: Averaging
    quantization: Quantization
    scoring: Scoring
    artifact: Artifact
    ttt: TTT | None = None
    slot: Slot | None = None

    @property
    def vocab_size(self) -> int:
        return self.model.vocab_size

    @field_validator("slot", mode="before")
    @classmethod
    def _slot_by_its_mode(cls, value: Any) -> Any:
        """``slot = "causal"`` is short for a table with that mode and the published rest."""
        return {"mode": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _coprime_calls_make_up_a_step(self) -> "Recipe":
        require(
            self.data.loader == "sequential"
            or self.train.micro_steps % self.data.virtual_world == 0,
            f"train.micro_steps {self.train.micro_steps} is not divisible by data.virtual_world "
            f"{self.data.virtual_world}: a call of the coprime loader gives every virtual rank one "
            f"micro-step.",
        )
        return self

    @model_validator(mode="after")
    def _ttt_fits_the_rest(self) -> "Recipe":
        if self.ttt is not None:
            require(
                self.ttt.chunk_tokens % self.scoring.seq_len == 0,
                f"ttt.chunk_tokens {self.ttt.chunk_tokens} is not divisible by scoring.seq_len "
                f"{self.scoring.seq_len}: a chunk is adapted on in whole sequences.",
            )
            require(
                self.ttt.freeze_layers <= self.model.num_layers,
                f"ttt.freeze_layers {self.ttt.freeze_layers} is more than model.num_layers "
                f"{self.model.num_layers}.",
            )
        return self

    @model_validator(mode="after")
    def _pruning_reaches_the_cap(self) -> "Recipe":
        target, artifact = self.quantization.prune_to_bytes, self.artifact
        require(
            target is None or artifact.code_bytes < target <= artifact.cap_bytes,
            f"quantization.prune_to_bytes {target} must be more than artifact.code_bytes "
            f"{artifact.code_bytes} and at most artifact.cap_bytes {artifact.cap_bytes}.",
        )
        return self


def data_of(name_or_path: str, overrides: Mapping[str, Any] | None = None) -> tuple[str, int]:
    """The data set of a recipe of either kind: its name, and the size of its vocabulary."""
    path = find_config(name_or_path, RECIPES, "recipe")
    table = read_toml(path)
    if "script" not in table:
        recipe = load_recipe(name_or_path, overrides)
        return recipe.data.dataset, recipe.vocab_size
    for key, value in (overrides or {}).items():
        if key.startswith("data."):
            put_value(table, key, value)
    data = validated(ScriptData, table.get("data", {}), f"recipe {path.stem}: data")
    return data.dataset, data.vocab_size


def load_recipe(name_or_path: str, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe of that name or file, with ``section.key`` overrides applied."""
    path = find_config(name_or_path, RECIPES, "recipe")
    table = read_toml(path)
    for key, value in (overrides or {}).items():
        put_value(table, key, value)
    return validated(Recipe, table, f"recipe {path.stem}")


def parse_override(text: str) -> tuple[str, Any]:
    """``section.key=value`` as a key and a value, which is read as TOML.

    Nothing after the equals sign leaves an optional value or table out: the value is None.

    >>> parse_override("optim.matrix_lr=0.03"), parse_override("averaging.kind=none")
    (('optim.matrix_lr', 0.03), ('averaging.kind', 'none'))
    >>> parse_override("ttt=")
    ('ttt', None)
    """
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not key:
        raise ConfigError(
            f"--set {text!r}: write section.key=value, such as optim.matrix_lr=0.03, or "
            f"section.key= to leave an optional value out."
        )
    if not value:
        return key, None
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def put_value(table: dict[str, Any], key: str, value: Any) -> None:
    """Set ``section.key`` in ``table``; None leaves the key out."""
    *sections, leaf = key.split(".")
    for section in sections:
        inner = table.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{key}: {section} is a value, not a section.")
        table = inner
    if value is None:
        table.pop(leaf, None)
    else:
        table[leaf] = value
