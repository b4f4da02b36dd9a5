"""Follow an expression of a script to the constants that it can be, and the variables behind it."""

import ast
import itertools
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from trainer.script.source.variables import reads_by_place

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_COMPARISONS: dict[type[ast.cmpop], Callable[..., object]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
}
MAX_STEPS = 24
MAX_CONSTANTS = 8


@dataclass(frozen=True, slots=True)
class Value:
    """What an expression can be, and the environment variables that it comes from.

    ``constants`` is empty where it cannot be known.
    """

    constants: frozenset[float | str] = frozenset()
    variables: frozenset[str] = frozenset()

    @property
    def constant(self) -> float | str | None:
        """The one that it is, if it is one."""
        return next(iter(self.constants)) if len(self.constants) == 1 else None

    @property
    def number(self) -> float | None:
        """The number that it is, if it is one."""
        return self.constant if isinstance(self.constant, float) else None


UNKNOWN = Value()
_AROUND = Value(frozenset([0.0]))
"""What is being followed already: a way around in a circle, which adds no number."""


class Values:
    """What the names of a script stand for; ``variables`` are set in its environment."""

    def __init__(self, tree: ast.Module, variables: Mapping[str, str] | None = None) -> None:
        self.tree = tree
        self.variables = variables or {}
        self.parents = {
            child: parent for parent in ast.walk(tree) for child in ast.iter_child_nodes(parent)
        }
        self.reads = reads_by_place(tree)
        self.by_name: dict[str, list[ast.Name]] = {}
        self.by_attribute: dict[str, list[ast.Attribute]] = {}
        self.calls: dict[str, list[ast.Call]] = {}
        self._followed: set[ast.AST] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Name):
                self.by_name.setdefault(node.id, []).append(node)
            elif isinstance(node, ast.Attribute):
                self.by_attribute.setdefault(node.attr, []).append(node)
            elif isinstance(node, ast.Call) and (name := called(node)):
                self.calls.setdefault(name, []).append(node)

    def of(self, node: ast.AST, steps: int = 0) -> Value:
        """What ``node`` is, followed through at most MAX_STEPS names and operators."""
        if steps > MAX_STEPS:
            return UNKNOWN
        if node in self._followed:
            return _AROUND
        self._followed.add(node)
        try:
            return self._of(node, steps)
        finally:
            self._followed.discard(node)

    def _of(self, node: ast.AST, steps: int) -> Value:
        match node:
            case ast.Constant(value=int() | float() as number):
                return Value(frozenset([float(number)]))
            case ast.Constant(value=str() as text):
                return Value(frozenset([text]))
            case ast.Call() | ast.Subscript() if node in self.reads:
                return self._of_variable(node)
            case ast.Call(func=ast.Name(id="float" | "int" | "str"), args=[inner]):
                return self.of(inner, steps)
            case ast.Call(func=ast.Name(id="bool"), args=[inner]):
                value = self.of(inner, steps)
                return Value(frozenset(float(bool(c)) for c in value.constants), value.variables)
            case ast.Call(func=ast.Attribute(value=inner, attr="lower" | "strip"), args=[]):
                return self.of(inner, steps)
            case ast.UnaryOp(op=ast.USub(), operand=inner):
                return _combined(Value(frozenset([-1.0])), self.of(inner, steps), ast.Mult)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                a, b = self.of(left, steps + 1), self.of(right, steps + 1)
                return _combined(a, b, type(op))
            case ast.IfExp(body=body, orelse=orelse):
                return _either([self.of(body, steps), self.of(orelse, steps)])
            case ast.BoolOp(op=ast.Or(), values=[first, second]):
                value, other = self.of(first, steps), self.of(second, steps)
                return Value(value.constants or other.constants, value.variables | other.variables)
            case ast.Name(id=name):
                return self._of_name(name, node, steps)
            case ast.Attribute(attr=attr):
                return self._of_attribute(node, attr, steps)
        return UNKNOWN

    def function_of(self, node: ast.AST) -> Function | ast.Module:
        """The innermost function that ``node`` stands in, else the module."""
        inner = node
        while (node := self.parents.get(node, self.tree)) is not self.tree:
            if isinstance(node, Function) and inner not in (node.args, *_decorators(node)):
                return node
            inner = node
        return self.tree

    def class_of(self, node: ast.AST) -> ast.ClassDef | None:
        while (node := self.parents.get(node, self.tree)) is not self.tree:
            if isinstance(node, ast.ClassDef):
                return node
        return None

    def _of_variable(self, node: ast.expr) -> Value:
        read = self.reads[node]
        assert read.name is not None
        text = self.variables.get(read.name, read.default)
        return Value(frozenset(_constants(text)), frozenset([read.name]))

    def _of_name(self, name: str, node: ast.AST, steps: int) -> Value:
        scope: ast.AST = self.function_of(node)
        while True:
            owner = self.class_of(node) if scope is self.tree else None
            stores = [
                store
                for store in self.by_name.get(name, [])
                if isinstance(store.ctx, ast.Store)
                and self.function_of(store) is scope
                and (self.class_of(store) in (owner, None) or scope is not self.tree)
            ]
            if stores:
                return _either([self._assigned(store, steps) for store in stores])
            if isinstance(scope, Function):
                if name in parameter_names(scope):
                    return self._of_parameter(scope, name, steps)
                scope = self.function_of(scope)
                continue
            return UNKNOWN

    def _of_attribute(self, node: ast.Attribute, attr: str, steps: int) -> Value:
        own = self.class_of(node)
        stores: list[ast.expr] = [
            other for other in self.by_attribute.get(attr, []) if isinstance(other.ctx, ast.Store)
        ]
        stores += [
            name
            for name in self.by_name.get(attr, [])
            if isinstance(name.ctx, ast.Store)
            and isinstance(self.parents[self.parents[name]], ast.ClassDef)
        ]
        if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls", "ctx"):
            stores = [store for store in stores if self.class_of(store) is own] or stores
        given = [
            keyword.value
            for calls in self.calls.values()
            for call in calls
            for keyword in call.keywords
            if keyword.arg == attr and self._is_class_with(called(call), stores)
        ]
        values = [self._assigned(store, steps) for store in stores]
        return _either([*values, *(self.of(value, steps + 1) for value in given)])

    def _is_class_with(self, name: str | None, stores: list[ast.expr]) -> bool:
        """Whether ``name`` is a class with one of ``stores`` in its body, as a dataclass is."""
        owners = [self.parents[self.parents[store]] for store in stores]
        return any(isinstance(owner, ast.ClassDef) and owner.name == name for owner in owners)

    def _assigned(self, store: ast.expr, steps: int) -> Value:
        parent = self.parents[store]
        if isinstance(parent, ast.Assign | ast.AnnAssign | ast.NamedExpr) and parent.value:
            return self.of(parent.value, steps + 1)
        return UNKNOWN

    def _of_parameter(self, function: Function, name: str, steps: int) -> Value:
        if isinstance(function, ast.Lambda):
            return UNKNOWN
        calls, skipped = self._calls_of(function)
        default = defaults(function).get(name)
        given = [bound(function, call, skipped) for call in calls]
        if not all(given) or (function.name == "forward" and not calls):
            return UNKNOWN  # starred arguments, or called through the module
        values = [binding[name] for binding in given if binding and name in binding]
        if default is not None and (not calls or len(values) < len(calls)):
            values.append(default)
        return _either([self.of(value, steps + 1) for value in values])

    def _calls_of(
        self, function: ast.FunctionDef | ast.AsyncFunctionDef
    ) -> tuple[list[ast.Call], int]:
        """The calls of a function, and how many of its parameters they do not name."""
        owner = self.parents[function]
        if not isinstance(owner, ast.ClassDef):
            return self.calls.get(function.name, []), 0
        if function.name == "__init__":
            return self.calls.get(owner.name, []), 1
        is_static = any(ast.unparse(d) == "staticmethod" for d in function.decorator_list)
        if function.name == "forward":
            return [
                call
                for call in self.calls.get("apply", [])
                if isinstance(call.func, ast.Attribute)
                and ast.unparse(call.func.value) == owner.name
            ], 1
        return self.calls.get(function.name, []), 0 if is_static else 1


def called(call: ast.Call) -> str | None:
    """The last name of what is called; of ``kernel[grid](…)``, the kernel's."""
    func = call.func.value if isinstance(call.func, ast.Subscript) else call.func
    if isinstance(func, ast.Attribute):
        return func.attr
    return func.id if isinstance(func, ast.Name) else None


def defaults(function: Function) -> dict[str, ast.expr]:
    of = function.args
    names = [arg.arg for arg in (*of.posonlyargs, *of.args)]
    known = dict(zip(names[len(names) - len(of.defaults) :], of.defaults, strict=True))
    return known | {
        arg.arg: value
        for arg, value in zip(of.kwonlyargs, of.kw_defaults, strict=True)
        if value is not None
    }


def bound(function: Function, call: ast.Call, skipped: int) -> dict[str, ast.expr] | None:
    """What a call gives for each parameter; None where it unpacks something."""
    if any(isinstance(a, ast.Starred) for a in call.args) or any(
        keyword.arg is None for keyword in call.keywords
    ):
        return None
    of = function.args
    names = [arg.arg for arg in (*of.posonlyargs, *of.args)][skipped:]
    given = dict(zip(names, call.args, strict=False))
    given |= {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
    return given or {"": ast.Constant(None)}


def _decorators(function: Function) -> Iterator[ast.AST]:
    if not isinstance(function, ast.Lambda):
        yield from function.decorator_list


def parameter_names(function: Function) -> list[str]:
    """Those of its parameters that can be given by name or place."""
    of = function.args
    return [arg.arg for arg in (*of.posonlyargs, *of.args, *of.kwonlyargs)]


def _either(values: list[Value]) -> Value:
    """One of ``values``: unknown where one of them is."""
    values = [value for value in values if value is not _AROUND]
    variables = frozenset(name for value in values for name in value.variables)
    if not values or any(not value.constants for value in values):
        return Value(frozenset(), variables)
    return Value(frozenset(c for value in values for c in value.constants), variables)


def _combined(left: Value, right: Value, kind: type[ast.operator]) -> Value:
    variables = left.variables | right.variables
    if left is _AROUND or right is _AROUND:
        return Value(frozenset(), variables)
    found: set[float | str] = set()
    for a, b in itertools.islice(itertools.product(left.constants, right.constants), MAX_CONSTANTS):
        if isinstance(a, str) or isinstance(b, str):
            return Value(frozenset(), variables)
        try:
            found.add(float(_OPERATORS[kind](a, b)))
        except (ArithmeticError, TypeError):
            return Value(frozenset(), variables)
    return Value(frozenset(found), variables)


def _constants(text: str | None) -> list[float | str]:
    """What a variable's text is: a number where it is written as one."""
    if text is None:
        return []
    try:
        return [float(text)]
    except ValueError:
        return [text]


def truth(node: ast.expr, values: Values) -> bool | None:
    """Whether a condition holds with the script's defaults; None where that is not known."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        inner = truth(node.operand, values)
        return None if inner is None else not inner
    if isinstance(node, ast.BoolOp):
        known = [truth(value, values) for value in node.values]
        decides = isinstance(node.op, ast.Or)
        return decides if decides in known else None if None in known else not decides
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        return _compared(node.left, node.ops[0], node.comparators[0], values)
    constant = values.of(node).constant
    return None if constant is None else bool(constant)


def _compared(left: ast.expr, op: ast.cmpop, right: ast.expr, values: Values) -> bool | None:
    a = values.of(left).constant
    if isinstance(op, ast.In | ast.NotIn) and isinstance(right, ast.Tuple | ast.List | ast.Set):
        among = [values.of(item).constant for item in right.elts]
        return None if a is None or None in among else (a in among) == isinstance(op, ast.In)
    b = values.of(right).constant
    if isinstance(a, float) and isinstance(b, str):
        b = _constants(b)[0]  # a variable's "1" is taken for a number above
    if a is None or b is None or isinstance(a, str) != isinstance(b, str):
        return None
    for kind, holds in _COMPARISONS.items():
        if isinstance(op, kind):
            return bool(holds(a, b))
    return None
