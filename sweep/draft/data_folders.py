"""Find where a script joins the folder of its data set, and of its tokenizer, to a root of both."""

import ast
from dataclasses import dataclass

from trainer.config.script import Patch
from trainer.script.source.constant_values import Values

FOLDERS = {
    "datasets": ("SWEEP_DATA_SET", "{data_dir}"),
    "tokenizers": ("SWEEP_TOKENIZER", "{tokenizer}"),
}
"""The folders of the field's layout: the variable that takes their place, and its value."""


@dataclass(frozen=True, slots=True)
class JoinedPath:
    """``os.path.join(root, "datasets", name)`` of a line, and the patch that reads a variable."""

    line: int
    folder: str
    name: str | None
    variable: str
    value: str
    patch: Patch


def joined_paths(source: str, tree: ast.Module, values: Values) -> list[JoinedPath]:
    """Those that a patch can give a variable: one of a folder, whose text stands there once."""
    found = [
        path
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "os.path.join"
        for path in _of_call(source, node, values)
    ]
    return [path for path in found if [p.folder for p in found].count(path.folder) == 1]


def _of_call(source: str, call: ast.Call, values: Values) -> list[JoinedPath]:
    parts = [part.value if isinstance(part, ast.Constant) else None for part in call.args]
    text = ast.get_source_segment(source, call)
    if len(parts) != 3 or parts[1] not in FOLDERS or text is None or source.count(text) != 1:
        return []
    folder = str(parts[1])
    variable, value = FOLDERS[folder]
    patch = Patch(find=text, replace=f'os.path.expandvars("${variable}")', count=1)
    return [JoinedPath(call.lineno, folder, _text(call.args[2], values), variable, value, patch)]


def _text(node: ast.expr, values: Values) -> str | None:
    """The text that a constant or an f-string of whole numbers is."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if not isinstance(node, ast.JoinedStr):
        return None
    parts: list[str] = []
    for part in node.values:
        if isinstance(part, ast.Constant):
            parts.append(str(part.value))
        elif isinstance(part, ast.FormattedValue):
            number = values.of(part.value).number
            if number is None:
                return None
            parts.append(f"{number:g}")
    return "".join(parts)
