"""Load a recipe of either kind: of our own model, or of a script with the text of its files."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.activations import ACTIVATIONS
from trainer.config import RECIPES, Recipe, ScriptRecipe, load_recipe
from trainer.config.config_errors import (
    ConfigError,
    did_you_mean,
    find_config,
    read_toml,
    validated,
)
from trainer.config.loading import put_value
from trainer.config.script import KEPT_BESIDE
from trainer.script.source.packing import unpack
from trainer.script.source.syntax import parse_script

SECTIONS = ("script", "data", "artifact")
MAX_FILE_BYTES = 4 << 20


def load_any_recipe(
    name_or_path: str, overrides: Mapping[str, Any] | None = None
) -> Recipe | ScriptRecipe:
    """The recipe of that name or file, with ``section.key`` overrides applied."""
    path = find_config(name_or_path, RECIPES, "recipe")
    table = read_toml(path)
    if "script" not in table:
        return load_recipe(name_or_path, overrides)
    where = f"recipe {path.stem}"
    for key, value in (overrides or {}).items():
        if "." in key:  # what has none is an axis, and fills placeholders
            put_value(table, key, value)
    others = sorted(set(table) - set(SECTIONS))
    if others:
        raise ConfigError(
            f"{where}: it has [script] and {', '.join(others)}. A recipe describes either a "
            f"script, with {', '.join(SECTIONS)}, or a model of our own trainer; not both."
        )
    return _with_sources(table, path.parent, where)


def from_home(text: str, where: str) -> Path:
    """A path as a person types it, ``~`` included."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ConfigError(f"{where}: {text!r}: there is no such home folder.") from None


def read_source(path: Path, where: str) -> str:
    """The text of a file, Python as Python reads it; a ConfigError where it is none."""
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", error)
        raise ConfigError(f"{where}: {path} cannot be read ({why}).") from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(
            f"{where}: {path} has {len(data):,} bytes; a file of a script has at most "
            f"{MAX_FILE_BYTES:,}, for it travels with every cell. Put data into the data set."
        )
    try:
        if path.suffix == ".py":  # without a byte order mark, with one kind of line ends
            return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{where}: {path} is not UTF-8 text (byte {error.start}); only text can be carried to "
            f"a node and hashed into a cell's id."
        ) from None


def _with_sources(table: dict[str, Any], folder: Path, where: str) -> ScriptRecipe:
    recipe = validated(ScriptRecipe, {**table, "sources": {}}, where)
    _check_names(recipe, where)
    _check_stages(recipe, where)
    sources: dict[str, str] = {}
    for text_path in (recipe.script.path, *recipe.script.files):
        path = Path(os.path.normpath(folder / from_home(text_path, where)))
        if path.name in KEPT_BESIDE:
            raise ConfigError(f"{where}: a file called {path.name!r} is kept beside them already.")
        if path.name in sources:
            raise ConfigError(f"{where}: two of its files are called {path.name!r}.")
        sources[path.name] = read_source(path, where)
    script, packing = unpack(sources[recipe.main], recipe.script.path)
    parse_script(script, recipe.script.path)
    sources[recipe.main] = script
    return recipe.model_copy(update={"sources": sources, "packed": packing})


def _check_names(recipe: ScriptRecipe, where: str) -> None:
    """A patch for an activation that there is none of would never be made."""
    only = {f"patch {n}: only": p.only or () for n, p in enumerate(recipe.script.patch, start=1)}
    for place, names in {**only, "activation_names": recipe.script.activation_names}.items():
        for name in names:
            if name.partition("-")[0] not in ACTIVATIONS:
                raise ConfigError(
                    f"{where}: {place}: {name!r} is no activation."
                    f"{did_you_mean(name, list(ACTIVATIONS))} Known: {', '.join(ACTIVATIONS)}, or "
                    f"a label such as leaky_relu2-s0.5."
                )


def _check_stages(recipe: ScriptRecipe, where: str) -> None:
    """One line would be two scores of the same model, which differ by exactly nothing."""
    seen: dict[tuple[str, str | None], str] = {}
    for stage, rule in recipe.script.read.stages.items():
        label = (rule.label or "").removesuffix("_exact")
        other = seen.setdefault((label, rule.pattern), stage)
        if other != stage:
            raise ConfigError(
                f"{where}: script.read: {other} and {stage} are read from one line, "
                f"{rule.label or rule.pattern!r}. Leave out the one that it is not."
            )
