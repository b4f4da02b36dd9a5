"""How is a table written as TOML, so that reading it gives the same table?

Python reads TOML and does not write it; a sweep file needs strings, numbers, flags, lists, tables
and one list of tables.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def toml_text(table: Mapping[str, Any]) -> str:
    """
    >>> print(toml_text({"name": "a", "node": {"gpus": 8}, "activations": [{"name": "asqu"}]}))
    name = "a"
    <BLANKLINE>
    [[activations]]
    name = "asqu"
    <BLANKLINE>
    [node]
    gpus = 8
    <BLANKLINE>
    """
    return "\n\n".join(["\n".join(part) for part in _parts(table, ())]) + "\n"


def _parts(table: Mapping[str, Any], path: tuple[str, ...]) -> list[list[str]]:
    """The lines of ``table``'s own values, then those of each list of tables and each table."""
    plain = {key: value for key, value in table.items() if not _is_nested(value)}
    own = [f"{_key(key)} = {_value(value)}" for key, value in plain.items()]
    parts = [own] if own else []
    nested = {key: value for key, value in table.items() if key not in plain}
    for key, value in sorted(nested.items(), key=lambda item: isinstance(item[1], Mapping)):
        name = ".".join(_key(part) for part in (*path, key))
        single = isinstance(value, Mapping)
        heading = f"[{name}]" if single else f"[[{name}]]"
        for entry in [value] if single else value:
            first, *others = _parts(entry, (*path, key)) or [[]]
            parts += [[heading, *first], *others]
    return parts


def _is_nested(value: Any) -> bool:
    tables = isinstance(value, list) and value and all(isinstance(v, Mapping) for v in value)
    return isinstance(value, Mapping) or bool(tables)


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _value(key)


def _value(value: Any) -> str:
    """JSON is TOML for strings (but for DEL), whole numbers, flags and lists of them."""
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
