"""Patch a script for one cell, show what changes, and hash what runs."""

import difflib
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from trainer.config.config_errors import ConfigError
from trainer.config.script import Patch
from trainer.contract import ScriptSpec, canonical_json
from trainer.script.placeholders import fill, values_of

MAX_SHOWN = 8
NOT_OF_A_NODE = {"data_dir": "{data_dir}", "tokenizer": "{tokenizer}"}
"""Paths differ from node to node: they are filled in by the node, in variables and arguments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """What runs for one cell: files by name, the script's name, its variables and arguments."""

    main: str
    files: Mapping[str, str]
    variables: Mapping[str, str]
    arguments: tuple[str, ...]

    @property
    def code(self) -> dict[str, str]:
        """The files that are Python: the script, whatever it is called, and modules beside it."""
        return {n: t for n, t in self.files.items() if n == self.main or n.endswith(".py")}

    @property
    def sha256(self) -> str:
        """Over the files as they run."""
        return hashlib.sha256(canonical_json(dict(self.files)).encode()).hexdigest()


def render(
    spec: ScriptSpec,
    data_dir: str = NOT_OF_A_NODE["data_dir"],
    tokenizer: str = NOT_OF_A_NODE["tokenizer"],
) -> Rendered:
    """Files, variables and arguments of a cell; a ConfigError where a patch does not fit."""
    recipe, script = spec.recipe, spec.recipe.script
    values = values_of(spec, data_dir, tokenizer)
    of_kind = script.steps_env if spec.parsed_budget.kind == "steps" else script.seconds_env
    where = f"recipe {spec.recipe_name}: script"
    return Rendered(
        main=recipe.main,
        files=patched(spec, {k: v for k, v in values.items() if k not in NOT_OF_A_NODE}),
        variables={
            name: fill(text, values, f"{where}.env.{name}{_for(spec)}")
            for name, text in {**script.env, **of_kind}.items()
        },
        arguments=tuple(
            fill(text, values, f"{where}.arguments{_for(spec)}") for text in script.arguments
        ),
    )


def patched(spec: ScriptSpec, values: Mapping[str, str]) -> dict[str, str]:
    """The files of a script with the patches that are for its activation, one after the other."""
    recipe = spec.recipe
    files = dict(recipe.sources)
    for number, patch in patches_for(spec):
        name, where = patch.file or recipe.main, f"recipe {spec.recipe_name}: patch {number}"
        if name not in files:
            raise ConfigError(
                f"{where}: file {name!r} is none of this script's: {', '.join(files)}."
            )
        replacement = fill(patch.replace, values, f"{where}{_for(spec)}")
        files[name] = apply(patch, files[name], replacement, where, name)
    return files


def _for(spec: ScriptSpec) -> str:
    """What decides which placeholders have a value."""
    return f", for {spec.activation.label} and a budget of {spec.budget}"


def patches_for(spec: ScriptSpec) -> list[tuple[int, Patch]]:
    """The patches that are made for the activation of ``spec``, each with its number from 1."""
    names = {spec.activation.name, spec.activation.label}
    patches = enumerate(spec.recipe.script.patch, start=1)
    return [(n, patch) for n, patch in patches if patch.only is None or names & set(patch.only)]


def apply(patch: Patch, text: str, replacement: str, where: str, name: str) -> str:
    """``text`` with ``replacement`` at every place that the patch matches, which are ``count``."""
    pattern = re.compile(patch.find if patch.regex else re.escape(patch.find), re.MULTILINE)
    found = [match for match in pattern.finditer(text) if match[0]]
    if len(found) != patch.count:
        lines = text.split("\n")
        numbers = [text.count("\n", 0, match.start()) + 1 for match in found]
        places = [f"\n  line {n}: {lines[n - 1].strip()[:100]}" for n in numbers[:MAX_SHOWN]]
        more = f"\n  and {len(found) - MAX_SHOWN} more" if len(found) > MAX_SHOWN else ""
        kind = "regular expression" if patch.regex else "text"
        raise ConfigError(
            f"{where}: the {kind} {patch.find!r} matches at {len(found)} places of {name}, count "
            f"says {patch.count}.{''.join(places)}{more}\n"
            f"Make it match what is meant and nothing else, or correct count."
        )
    try:
        for match in reversed(found):
            new = match.expand(replacement) if patch.regex else replacement
            text = text[: match.start()] + new + text[match.end() :]
    except (re.error, IndexError) as error:
        raise ConfigError(
            f"{where}: replace {replacement!r} is no template for {patch.find!r}: {error}. Write "
            f"\\1 or \\g<name> for what a group has found, and \\\\ for a backslash."
        ) from None
    return text


def diff(spec: ScriptSpec, rendered: Rendered) -> str:
    """What the patches change, as a unified diff; empty where they change nothing."""
    parts: list[str] = []
    for name, before in spec.recipe.sources.items():
        after = rendered.files[name].splitlines(keepends=True)
        parts += difflib.unified_diff(
            before.splitlines(keepends=True), after, f"a/{name}", f"b/{name}", n=2
        )
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in parts)
