"""Find the environment variables that a script reads, with their defaults, in its syntax tree."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

_ENVIRON, _GETTER = "environ", "getenv"
_METHODS = ("get", "setdefault", "pop", "__getitem__")
_CASTS = {"str": str, "int": int, "float": float}
_COMPREHENSIONS = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
_FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
MAX_HELPER_DEPTH = 4


@dataclass(frozen=True, slots=True, order=True)
class VariableRead:
    """One read at ``line``, as ``text``.

    ``name`` is None where it is computed: which variable is read cannot be known. ``default`` is
    None where there is none, or where it is computed.
    """

    line: int
    name: str | None
    default: str | None
    text: str


def variables_read(tree: ast.Module) -> list[VariableRead]:
    """Every read of the environment, by line; of a helper's, one for each of its calls.

    >>> variables_read(ast.parse("from os import environ\\nlr = float(environ.get('LR', 0.5))"))
    [VariableRead(line=2, name='LR', default='0.5', text="environ.get('LR', 0.5)")]
    """
    return sorted(
        {read for _, read in _Reader(tree).reads()},
        key=lambda read: (read.line, read.name or "", read.text),
    )


def reads_by_place(tree: ast.Module) -> dict[ast.expr, VariableRead]:
    """The read that an expression is, where it is one of a known variable."""
    return {node: read for node, read in _Reader(tree).reads() if read.name is not None}


def variables_written(tree: ast.Module) -> dict[str, int]:
    """The variables that a script sets in its own environment, each with its line.

    >>> variables_written(ast.parse("from os import environ\\nenviron['A'] = '1'"))
    {'A': 2}
    """
    return dict(_Reader(tree).writes())


@dataclass(frozen=True, slots=True)
class _Read:
    """A read whose name is an expression: ``node`` is where it stands."""

    node: ast.expr
    name: ast.expr | None
    default: ast.expr | None


class _Reader:
    def __init__(self, tree: ast.Module) -> None:
        self.tree = tree
        self.parents = {
            child: parent for parent in ast.walk(tree) for child in ast.iter_child_nodes(parent)
        }
        self.modules, self.environs, self.getters = {"os"}, set[str](), set[str]()
        self.strings: dict[str, object] = {}
        self._find_names()

    def reads(self) -> Iterator[tuple[ast.expr, VariableRead]]:
        for direct in self._direct():
            yield from self._resolved(direct, 0)

    def writes(self) -> Iterator[tuple[str, int]]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Subscript) and self._is_environ(node.value):
                name = None if isinstance(node.ctx, ast.Load) else self._fold(node.slice)
                if name is not None:
                    yield str(name), node.lineno
            elif isinstance(node, ast.Attribute) and node.attr == "update":
                call = self.parents[node]
                if self._is_environ(node.value) and isinstance(call, ast.Call):
                    keys = [k for a in call.args if isinstance(a, ast.Dict) for k in a.keys]
                    given = [self._fold(key) for key in keys if key is not None]
                    for name in [*given, *(keyword.arg for keyword in call.keywords)]:
                        if name is not None:
                            yield str(name), node.lineno

    def _find_names(self) -> None:
        """What else ``os``, its environment and its getter are called, and constant texts."""
        once: dict[str, list[ast.expr]] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                self.modules |= {a.asname for a in node.names if a.name == "os" and a.asname}
            elif isinstance(node, ast.ImportFrom) and node.module == "os":
                for alias in node.names:
                    if alias.name in (_ENVIRON, "*"):
                        self.environs.add(alias.asname or _ENVIRON)
                    if alias.name in (_GETTER, "*"):
                        self.getters.add(alias.asname or _GETTER)
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                once.setdefault(node.targets[0].id, []).append(node.value)
        for name, values in once.items():
            if any(self._is_environ(value) for value in values):
                self.environs.add(name)
            if any(self._is_getter(value) for value in values):
                self.getters.add(name)
            if len(values) == 1 and (text := self._fold(values[0])) is not None:
                self.strings[name] = text

    def _is_module(self, node: ast.expr) -> bool:
        imported = (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "__import__"
            and [ast.dump(a) for a in node.args[:1]] == [ast.dump(ast.Constant("os"))]
        )
        return imported or (isinstance(node, ast.Name) and node.id in self.modules)

    def _is_environ(self, node: ast.AST) -> bool:
        if isinstance(node, ast.Name):
            return node.id in self.environs
        return (
            isinstance(node, ast.Attribute)
            and node.attr.rstrip("b") == _ENVIRON
            and self._is_module(node.value)
        )

    def _is_getter(self, node: ast.AST) -> bool:
        """A function that reads the variable that its first argument names."""
        if isinstance(node, ast.Name):
            return node.id in self.getters
        return isinstance(node, ast.Attribute) and (
            (node.attr.rstrip("b") == _GETTER and self._is_module(node.value))
            or (node.attr in _METHODS and self._is_environ(node.value))
        )

    def _direct(self) -> Iterator[_Read]:
        """Every use of the environment; one whose form is unknown has no name."""
        for node in ast.walk(self.tree):
            if not isinstance(node, ast.Name | ast.Attribute) or isinstance(node.ctx, ast.Store):
                continue
            parent = self.parents[node]
            if self._is_getter(node):
                if isinstance(parent, ast.Call) and parent.func is node:
                    yield _Read(parent, *_arguments(parent))
                elif not _names_it(parent, node):
                    yield _Read(node, None, None)
            elif self._is_environ(node):
                yield from self._of_environ(node, parent)

    def _of_environ(self, node: ast.expr, parent: ast.AST) -> Iterator[_Read]:
        if isinstance(parent, ast.Subscript):
            if isinstance(parent.ctx, ast.Load):
                yield _Read(parent, parent.slice, None)
        elif isinstance(parent, ast.Compare) and isinstance(parent.ops[0], ast.In | ast.NotIn):
            yield _Read(parent, parent.left, None)
        elif isinstance(parent, ast.Attribute):
            if parent.attr not in (*_METHODS, "update"):
                yield _Read(parent, None, None)
        elif not _names_it(parent, node):
            yield _Read(node, None, None)

    def _resolved(self, read: _Read, depth: int) -> Iterator[tuple[ast.expr, VariableRead]]:
        """What a read is of: itself, or the reads of the helper's calls."""
        line, text = read.node.lineno, " ".join(ast.unparse(read.node).split())
        known = False
        for values in self._loops(read.node):
            name = None if read.name is None else self._fold(read.name, values)
            if name is not None:
                known = True
                default = self._default(read.default, values)
                yield read.node, VariableRead(line, str(name), default, text)
        if known:
            return
        function = self._function_of(read)
        if function is None or depth == MAX_HELPER_DEPTH:
            yield read.node, VariableRead(line, None, None, text)
            return
        calls, others = self._calls(function)
        if others or not calls:
            yield read.node, VariableRead(line, None, None, text)
        for call in calls:
            given = _bound(function, call)
            yield from self._resolved(
                _Read(call, _substituted(read.name, given), _substituted(read.default, given)),
                depth + 1,
            )

    def _default(self, node: ast.expr | None, values: dict[str, object]) -> str | None:
        if isinstance(node, ast.Call) and self._is_getter(node.func):
            return self._default(_arguments(node)[1], values)
        folded = None if node is None else self._fold(node, values)
        return None if folded is None else str(folded)

    def _fold(self, node: ast.expr, values: dict[str, object] | None = None) -> object | None:
        """The constant that an expression is; None where it is computed."""
        known = self.strings | (values or {})
        match node:
            case ast.Constant(value=value):
                return value.decode(errors="replace") if isinstance(value, bytes) else value
            case ast.Name(id=name):
                return known.get(name)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                inner = self._fold(operand, values)
                return -inner if isinstance(inner, int | float) else None
            case ast.JoinedStr(values=parts):
                texts = [self._fold(part, values) for part in parts]
                return None if None in texts else "".join(map(str, texts))
            case ast.FormattedValue(value=value, format_spec=None):
                return self._fold(value, values)
            case ast.BinOp(left=left, op=ast.Add(), right=right) if not _is_long(left):
                a, b = self._fold(left, values), self._fold(right, values)
                return a + b if isinstance(a, str) and isinstance(b, str) else None
            case ast.Call(func=ast.Name(id="str" | "int" | "float" as cast), args=[value]):
                inner = self._fold(value, values)
                try:
                    return None if inner is None else _CASTS[cast](inner)
                except (TypeError, ValueError):
                    return None
            case ast.Call(func=ast.Attribute(value=value, attr="upper" | "lower" as attr), args=[]):
                inner = self._fold(value, values)
                return getattr(inner, attr)() if isinstance(inner, str) else None
        return None

    def _loops(self, node: ast.AST) -> Iterator[dict[str, object]]:
        """The constants that the loops around ``node`` run over, else nothing once."""
        generators: list[ast.For | ast.comprehension] = []
        while (node := self.parents[node]) is not self.tree:
            if isinstance(node, ast.For):
                generators.append(node)
            elif isinstance(node, _COMPREHENSIONS):
                generators += node.generators
        yield {}
        for loop in generators:
            if isinstance(loop.iter, ast.Tuple | ast.List | ast.Set):
                yield from (self._unpacked(loop.target, item) for item in loop.iter.elts)

    def _unpacked(self, target: ast.expr, value: ast.expr) -> dict[str, object]:
        if isinstance(target, ast.Name):
            folded = self._fold(value)
            return {} if folded is None else {target.id: folded}
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple | ast.List):
            pairs = zip(target.elts, value.elts, strict=False)
            return {k: v for pair in pairs for k, v in self._unpacked(*pair).items()}
        return {}

    def _function_of(self, read: _Read) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
        """The innermost named function that has a parameter in the name of ``read``."""
        used = {n.id for n in ast.walk(read.name or ast.Pass()) if isinstance(n, ast.Name)}
        node: ast.AST = read.node
        while (node := self.parents[node]) is not self.tree:
            if isinstance(node, _FUNCTIONS) and used & {arg.arg for arg in _parameters(node)}:
                return None if isinstance(node, ast.Lambda) else node
        return None

    def _calls(
        self, function: ast.FunctionDef | ast.AsyncFunctionDef
    ) -> tuple[list[ast.Call], list[ast.AST]]:
        """The calls of a function, and what else is done with it."""
        is_method = isinstance(self.parents[function], ast.ClassDef)
        calls: list[ast.Call] = []
        others: list[ast.AST] = []
        for node in ast.walk(self.tree):
            named = (isinstance(node, ast.Name) and node.id == function.name) or (
                is_method and isinstance(node, ast.Attribute) and node.attr == function.name
            )
            if named:
                parent = self.parents[node]
                is_call = isinstance(parent, ast.Call) and parent.func is node
                calls += [parent] if isinstance(parent, ast.Call) and is_call else []
                others += [] if is_call else [node]
        return calls, others


def _is_long(node: ast.expr) -> bool:
    """Whether it is a sum of several: no name of a variable, and too deep to follow."""
    return isinstance(node, ast.BinOp) and isinstance(node.left, ast.BinOp)


def _arguments(call: ast.Call) -> tuple[ast.expr | None, ast.expr | None]:
    """Name and default of a call of a getter."""
    named = {keyword.arg: keyword.value for keyword in call.keywords}
    first = call.args[0] if call.args else named.get("key")
    second = call.args[1] if len(call.args) > 1 else named.get("default")
    return first, second


def _names_it(parent: ast.AST, node: ast.AST) -> bool:
    """Whether the environment is given another name, under which it is followed."""
    return (
        isinstance(parent, ast.Assign)
        and parent.value is node
        and isinstance(parent.targets[0], ast.Name)
    ) or isinstance(parent, ast.Attribute | ast.Subscript | ast.Delete)


def _parameters(function: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> list[ast.arg]:
    of = function.args
    return [*of.posonlyargs, *of.args, *of.kwonlyargs]


def _bound(function: ast.FunctionDef | ast.AsyncFunctionDef, call: ast.Call) -> dict[str, ast.expr]:
    """What each parameter is in a call; a name that nothing has where that is not known."""
    of = function.args
    positional = [arg.arg for arg in (*of.posonlyargs, *of.args)]
    given: dict[str, ast.expr] = {arg.arg: ast.Name("?") for arg in _parameters(function)}
    if of.defaults:
        given |= zip(positional[-len(of.defaults) :], of.defaults, strict=True)
    given |= {a.arg: d for a, d in zip(of.kwonlyargs, of.kw_defaults, strict=True) if d is not None}
    if positional[:1] in (["self"], ["cls"]):
        positional = positional[1:]
    given |= zip(positional, call.args, strict=False)
    return given | {k.arg: k.value for k in call.keywords if k.arg is not None}


def _substituted(node: ast.expr | None, given: dict[str, ast.expr]) -> ast.expr | None:
    class _Substitute(ast.NodeTransformer):
        def visit_Name(self, name: ast.Name) -> ast.expr:
            return given.get(name.id, name)

    if node is None:
        return None
    copy: ast.expr = ast.parse(ast.unparse(node), mode="eval").body
    changed: ast.expr = _Substitute().visit(copy)
    return changed
