"""Read configuration strictly: TOML in, a frozen value out, or a sentence that says what is wrong.

The one place that reads TOML and turns a schema violation into a sentence. Every configuration
type of the project (recipes, run specifications, sweep files) derives from :class:`StrictModel`.
"""

import difflib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

T = TypeVar("T", bound=BaseModel)
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class ConfigError(ValueError):
    """The user's input cannot be used: what was given, what is allowed, what to do next."""


class StrictModel(BaseModel):
    """A frozen value: unknown keys are refused, and no type is coerced into another."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, ser_json_inf_nan="null"
    )


def validated(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """``values`` as a ``kind``, or a ConfigError that names ``where`` the mistake stands."""
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(explain(error, kind, where)) from None


def require(condition: bool, message: str) -> None:
    """A ValueError that says which values of a model disagree, unless ``condition`` holds."""
    if not condition:
        raise ValueError(message)


def parse_object(data: bytes | str, where: str, then: str = "") -> dict[str, Any]:
    """The JSON object in ``data``; ConfigError, with what to do ``then``, if it is none."""
    try:
        values = json.loads(data)
    except ValueError as error:  # no UTF-8, or no JSON
        raise ConfigError(f"{where}: this is not JSON: {error}.{then}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: this holds {type(values).__name__}, not an object.{then}")
    return values


def read_toml(path: Path) -> dict[str, Any]:
    """The table in ``path``; a syntax error is reported with file and line."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: this is not valid TOML: {error}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: this is not UTF-8 text ({error.reason} at byte {error.start})"
        ) from None


def find_config(name_or_path: str, folder: Path, kind: str) -> Path:
    """The file that ``name_or_path`` means: a path, or a name in ``folder``."""
    direct = Path(name_or_path)
    if direct.suffix == ".toml":
        if direct.is_file():
            return direct
        raise ConfigError(f"{kind} {name_or_path}: there is no such file.")
    named = folder / f"{name_or_path}.toml"
    if named.is_file():
        return named
    if not folder.is_dir():
        raise ConfigError(
            f"{kind} {name_or_path!r}: there is no folder {folder}. Run from a clone of the "
            f"project, which has it, or give a path that ends in .toml."
        )
    known = sorted(path.stem for path in folder.glob("*.toml"))
    raise ConfigError(
        f"{kind} {name_or_path!r}: there is no {named.name} in {folder.name}/."
        f"{did_you_mean(name_or_path, known)} Known: {', '.join(known) or 'none'}."
        f" A path that ends in .toml is taken as it is."
    )


def explain(error: ValidationError, kind: type[BaseModel], where: str) -> str:
    """One line per mistake: the key as the user types it, what was given, what is allowed."""
    return "\n".join(_explain_one(dict(item), kind, where) for item in error.errors())


def did_you_mean(given: str, known: list[str]) -> str:
    close = difflib.get_close_matches(given, known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _explain_one(item: dict[str, Any], kind: type[BaseModel], where: str) -> str:
    location = [str(part) for part in item["loc"]]
    key = ".".join(location)
    place = f"{where}: {key}" if key else where
    if item["type"] == "extra_forbidden":
        known = _keys_at(kind, location[:-1])
        allowed = f" Known keys here: {', '.join(known)}." if known else ""
        return f"{place}: unknown key.{did_you_mean(location[-1], known)}{allowed}"
    if item["type"] == "missing":
        return f"{place}: this key is required and was not given."
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "value_error":
        return f"{place}: {message}"
    return f"{place} = {item['input']!r}: {message[0].lower()}{message[1:]}."


def _keys_at(kind: type[BaseModel], location: list[str]) -> list[str]:
    current: Any = kind
    for part in location:
        if part.isdigit():
            continue
        field = getattr(current, "model_fields", {}).get(part)
        if field is None:
            return []
        current = next(
            (
                option
                for option in (field.annotation, *get_args(field.annotation))
                if isinstance(option, type) and issubclass(option, BaseModel)
            ),
            None,
        )
    return sorted(getattr(current, "model_fields", {}))
