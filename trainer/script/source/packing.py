"""Unpack a script that is a compressed text behind an ``exec``, without running it, and pack it.

    import lzma as L, base64 as B
    exec(L.decompress(B.b85decode("…"), format=L.FORMAT_RAW, filters=[{"id": L.FILTER_LZMA2}]))

is read from its syntax tree as layers (here lzma, then base 85) around a payload of constants.
"""

import ast
import sys
from dataclasses import dataclass, field
from typing import Any, NoReturn

from trainer.config.config_errors import ConfigError
from trainer.script.source.packing_layers import (
    LAYERS,
    MODULES,
    OPTIONS,
    Data,
    Layer,
    as_bytes,
    as_text,
    text_layer,
)
from trainer.script.source.syntax import parse_script

MAX_DEPTH = 8
MUCH_CODE = 5  # with more statements than that, an exec is a part of the script
BY_HAND = "Unpack it by hand, and name the plain file as path of [script]."
HARMLESS = sys.stdlib_module_names - {"__future__"}  # its imports hold for the text that exec runs


@dataclass(frozen=True, slots=True)
class _Packed:
    """Layers from the outermost inwards, and the constants in them."""

    line: int
    layers: list[Layer]
    payload: list[ast.Constant]


def unpack(text: str, where: str) -> tuple[str, str | None]:
    """The script's plain text, and the statements that it was packed in, the payload left out.

    None stands for these where the script was plain; a ConfigError names the line that is not
    understood. What is packed several times can be packed once.
    """
    packing = None
    for _ in range(MAX_DEPTH):
        packed = _find(text, where)
        if packed is None:
            return text, packing
        if packing is None:
            packing = _with_payload(text, packed, "PAYLOAD")
        text, where = _unpacked(packed, where), f"{where}, unpacked"
    raise ConfigError(f"{where}: it is packed more than {MAX_DEPTH} times. {BY_HAND}")


def pack(text: str, packing: str) -> str:
    """``text`` in the statements that :func:`unpack` gave."""
    packed = _find(packing, "packing")
    if packed is not None:
        data: Data = text
        for layer in packed.layers:
            data = layer.redo(data)
        result = _with_payload(packing, packed, data)
        again = _find(result, "packed again")
        if again is not None and _unpacked(again, "packed again") == text:
            return result
    raise ConfigError(f"{packing!r} cannot hold this text; pack it by hand.")


def _find(text: str, where: str) -> _Packed | None:
    """The packing of a script; None if it is plain, or no Python at all."""
    if "exec" not in text:
        return None
    try:
        body = parse_script(text, where).body
    except ConfigError:
        return None
    code = [node for node in body if not _is_import(node) and not _is_constant(node)]
    calls = [node for node in code if _calls_exec(node)]
    if not calls or len(code) - len(calls) > MUCH_CODE:
        return None
    return _Reader(text, where).packed(body, calls[-1])


def _is_import(node: ast.stmt) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def _is_constant(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign | ast.Expr) and isinstance(node.value, ast.Constant)


def _calls_exec(node: ast.stmt) -> bool:
    """Whether it calls ``exec`` at once; what a function of the script calls is not asked."""
    return not isinstance(node, ast.FunctionDef | ast.ClassDef) and any(
        isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and part.func.id == "exec"
        for part in ast.walk(node)
    )


def _assigned_name(node: ast.stmt) -> str | None:
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        return node.targets[0].id if isinstance(node.targets[0], ast.Name) else None
    return None


def _unpacked(packed: _Packed, where: str) -> str:
    parts: list[Any] = [node.value for node in packed.payload]
    try:
        data: Data = parts[0][:0].join(parts)
        for layer in reversed(packed.layers):
            data = layer.undo(data)
        return as_text(data)
    except (ValueError, TypeError, LookupError, OSError, EOFError, MemoryError) as error:
        raise ConfigError(
            f"{where}, line {packed.line}: what is packed here cannot be unpacked: {error}. "
            f"{BY_HAND}"
        ) from None


def _with_payload(text: str, packed: _Packed, data: Data) -> str:
    """``text`` with ``data`` in place of the payload's first constant, and the others emptied."""
    source = text.encode()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for node in sorted(packed.payload, key=lambda node: (node.lineno, node.col_offset))[::-1]:
        part = data if node is packed.payload[0] else data[:0]
        part = as_text(part) if isinstance(node.value, str) else as_bytes(part)
        begin = starts[node.lineno - 1] + node.col_offset
        end = starts[(node.end_lineno or 1) - 1] + (node.end_col_offset or 0)
        source = source[:begin] + repr(part).encode() + source[end:]
    return source.decode()


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads the one ``exec`` of a script; whatever it does not know is a ConfigError."""

    text: str
    where: str
    imported: dict[str, str] = field(default_factory=dict)  # B: base64, d: lzma.decompress
    assigned: dict[str, ast.expr] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def packed(self, body: list[ast.stmt], execs: ast.stmt) -> _Packed:
        for node in body:
            self._bind(node)
        call = execs.value if isinstance(execs, ast.Expr) else None
        if not isinstance(call, ast.Call) or not call.args or call.keywords:
            self._refuse(execs)
        for namespace in call.args[1:]:
            if ast.unparse(namespace) not in ("globals()", "locals()", "vars()"):
                self._refuse(namespace)
        try:
            layers, payload = self._layers(call.args[0])
        except (RecursionError, TypeError):
            self._refuse(call)
        for node in body:  # what these do would be lost
            docstring = isinstance(node, ast.Expr) and _is_constant(node)
            known = _is_import(node) or docstring or node is execs
            if not known and _assigned_name(node) not in self.used:
                self._refuse(node)
        return _Packed(call.lineno, layers, payload)

    def _bind(self, node: ast.stmt) -> None:
        """Note what a statement imports or assigns."""
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            for alias in node.names:
                name = f"{module}.{alias.name}".lstrip(".")
                if name.split(".")[0] not in HARMLESS:
                    self._refuse(node)
                self.imported[alias.asname or alias.name] = name
                if alias.name == "*":
                    self.imported.update({n: f"{module}.{n}" for n in dir(MODULES.get(module))})
        elif isinstance(node, ast.Assign) and (target := _assigned_name(node)):
            if target in self.assigned:
                self._refuse(node)
            self.assigned[target] = node.value

    def _layers(self, node: ast.expr) -> tuple[list[Layer], list[ast.Constant]]:
        match node:
            case ast.Constant(value=str() | bytes()):
                return [], [node]
            case ast.Name(id=name) if name in self.assigned and name not in self.used:
                self.used.add(name)  # a payload that is used twice cannot be packed again
                return self._layers(self.assigned[name])
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                (of_left, first), (of_right, second) = self._layers(left), self._layers(right)
                if not of_left and not of_right:
                    return [], first + second
            case ast.Call():
                layers, inner = self._layer(node)
                of_inner, payload = self._layers(inner)
                return layers + of_inner, payload
        self._refuse(node)

    def _layer(self, node: ast.Call) -> tuple[list[Layer], ast.expr]:
        """What a call does, and what it does that to."""
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("decode", "encode"):
            codec = self._options(node, node.args, ("encoding",)).get("encoding", "utf-8")
            return [text_layer(node.func.attr, codec)], node.func.value
        name = self._path(node.func)
        if node.args and name in LAYERS:
            options = self._options(node, node.args[1:], OPTIONS.get(name, ()))
            return [LAYERS[name](**options)], node.args[0]
        given = [*node.args[2:], *(word.value for word in node.keywords if word.arg == "mode")]
        if name == "compile" and [ast.unparse(mode) for mode in given] == ["'exec'"]:
            return [], node.args[0]
        self._refuse(node)

    def _options(
        self, node: ast.Call, positional: list[ast.expr], names: tuple[str, ...]
    ) -> dict[str, Any]:
        named = {word.arg: word.value for word in node.keywords}
        if len(positional) > len(names) or not set(named) <= set(names):
            self._refuse(node)
        given = dict(zip(names, positional, strict=False)) | named
        return {str(name): self._literal(value) for name, value in given.items()}

    def _literal(self, node: ast.expr | None) -> Any:
        """The value of an option, such as ``[{"id": L.FILTER_LZMA2, "preset": 9 | …}]``."""
        match node:
            case ast.Constant(value=value):
                return value
            case ast.List(elts=items) | ast.Tuple(elts=items):
                return [self._literal(item) for item in items]
            case ast.Dict(keys=keys, values=values):
                return {
                    self._literal(key): self._literal(value)
                    for key, value in zip(keys, values, strict=True)
                }
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                return self._literal(left) | self._literal(right)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self._literal(operand)
            case ast.Name() | ast.Attribute():
                module, _, name = self._path(node).partition(".")
                if name.isupper() and hasattr(MODULES.get(module), name):
                    return getattr(MODULES[module], name)
        self._refuse(node)

    def _path(self, node: ast.expr) -> str:
        """A function or constant by its full name: ``L.decompress`` is lzma.decompress."""
        match node:
            case ast.Name(id=name) if name in self.assigned:
                self.used.add(name)
                return self._path(self.assigned[name])
            case ast.Name(id=name):
                return self.imported.get(name, name)
            case ast.Attribute(value=value, attr=name):
                return f"{self._path(value)}.{name}"
            case ast.Call(func=ast.Name(id="__import__"), args=[ast.Constant(value=str(name))]):
                return name
        return ""

    def _refuse(self, node: ast.AST | None) -> NoReturn:
        shown = ast.get_source_segment(self.text, node) or "" if node else "**"
        shown = shown if len(shown) < 100 else f"{shown[:50]} … {shown[-30:]}"
        line = f", line {node.lineno}" if isinstance(node, ast.stmt | ast.expr) else ""
        raise ConfigError(
            f"{self.where}{line}: packing unknown: {shown!r} is not understood in a script that is "
            f"an exec. Understood are {', '.join(LAYERS)}, compile, .decode and .encode, on "
            f"constants and names that are used once, with nothing beside them. {BY_HAND}"
        )
