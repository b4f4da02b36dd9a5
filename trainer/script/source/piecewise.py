"""Recognize functions of x in two pieces: ReLU, LeakyReLU, ``where``, ``maximum``.

On x > 0 a piece is p·x^k, on x ≤ 0 it is n·x^k. Of the family of activations of this project (x²,
β·x²) its ratio n / p is the slope s where the piece is squared, and β = s² where it is the square
itself, p = 1 and k = 2, or its derivative, p = 2 and k = 1.
"""

import ast
from dataclasses import dataclass, replace

from trainer.script.source.constant_values import (
    UNKNOWN,
    Value,
    Values,
    called,
)

CASTS = {"to", "float", "half", "bfloat16", "type_as", "contiguous", "detach", "clone", "view"}
LEAKY = {"leaky_relu", "leaky_relu_"}
RELU = {"relu", "relu_"}
SQUARES = {"square", "square_"}
POWERS = {"pow", "pow_", "float_power"}
MAX_NAMES = 6


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """``node`` is where it is computed, ``x`` the text of what it is a function of.

    ``constants`` are the factors of the negative side that are numbers, each with its value;
    ``made`` is the module or the function with its slope bound, where that is what ``node`` makes.
    """

    node: ast.expr
    x: str | None
    power: int
    positive: float
    constants: tuple[tuple[ast.expr, Value], ...]
    is_zero: bool = False
    made: bool = False


class Pieces:
    """The pieces of a syntax tree, by the expression that computes each."""

    def __init__(self, tree: ast.Module, values: Values) -> None:
        self.tree, self.values, self.parents = tree, values, values.parents
        found = (self._piece(node) for node in ast.walk(tree) if isinstance(node, ast.expr))
        self.by_node = {piece.node: piece for piece in found if piece is not None}

    def _piece(self, node: ast.expr) -> Piece | None:
        if isinstance(node, ast.Call):
            name = called(node)
            if name in LEAKY and not self._is_defined(node) and node.args:
                return self._leaky(node, ast.unparse(node.args[0]), node.args[1:2])
            if name == "LeakyReLU":
                return replace(self._leaky(node, None, node.args[:1]), made=True)
            if name == "partial" and node.args and ast.unparse(node.args[0]).endswith("leaky_relu"):
                return replace(self._leaky(node, None, node.args[2:3]), made=True)
            if name in RELU or (name in ("clamp", "clamp_min", "maximum") and _is_relu(node)):
                x = self._argument(node)
                return None if x is None else Piece(node, x, 1, 1.0, (), is_zero=True)
            if name == "ReLU":
                return Piece(node, None, 1, 1.0, (), is_zero=True, made=True)
            if name in ("prelu", "PReLU"):
                return Piece(node, None, 1, 1.0, ((node, UNKNOWN),), made=name == "PReLU")
            if name in ("maximum", "max", "fmax") and len(node.args) == 2:
                return self._larger(node, *node.args)
            if name == "where" and len(node.args) == 3:
                return self._where(node, *node.args)
        return None

    def _leaky(self, node: ast.Call, x: str | None, given: list[ast.expr]) -> Piece:
        named = {keyword.arg: keyword.value for keyword in node.keywords}
        slope = given[0] if given else named.get("negative_slope")
        constants = () if slope is None else ((slope, self.values.of(slope)),)
        return Piece(node, x, 1, 1.0, constants)

    def _larger(self, node: ast.Call, first: ast.expr, second: ast.expr) -> Piece | None:
        """``maximum(x, s·x)`` is LeakyReLU for s ≤ 1 alone: its constant is one that is asked."""
        for x, other in ((first, second), (second, first)):
            numbers, power, others = self._monomial(other, ast.unparse(x))
            if numbers and power == 1 and not others:
                return Piece(node, ast.unparse(x), 1, 1.0, ((other, UNKNOWN),))
        return None

    def _where(
        self, node: ast.Call, condition: ast.expr, yes: ast.expr, no: ast.expr
    ) -> Piece | None:
        if isinstance(condition, ast.Name):
            condition = self.last_value(condition) or condition
        x, positive = _compared_with_zero(condition)
        if x is None:
            return None
        above, below = (yes, no) if positive else (no, yes)
        p_numbers, p_power, p_others = self._monomial(above, x)
        n_numbers, n_power, n_others = self._monomial(below, x)
        p = _product(p_numbers)
        if p is None or not (p_power or n_power or p_numbers):
            return None
        if p_others != n_others:
            has_x = any(ast.unparse(n) == x for n in ast.walk(below) if isinstance(n, ast.expr))
            unknown = p_power > 0 and has_x and not p_others
            return Piece(node, x, p_power, p, ((below, UNKNOWN),)) if unknown else None
        zero = all(value.number == 0.0 for _, value in n_numbers) and bool(n_numbers)
        if zero and n_power == 0:
            return Piece(node, x, p_power, p, (), is_zero=True)
        if p_power != n_power or _product(n_numbers) in (p, -p):
            return None
        return Piece(node, x, p_power, p, tuple(n_numbers))

    def _monomial(
        self, node: ast.expr, x: str
    ) -> tuple[list[tuple[ast.expr, Value]], int, list[str]]:
        """The factors of a product that are numbers, the power of ``x``, and the other factors."""
        numbers: list[tuple[ast.expr, Value]] = []
        power, others = 0, []
        for factor in factors(node):
            bare = uncast(factor)
            base = squared(bare)
            if ast.unparse(bare) == x:
                power += 1
            elif base is not None:
                inner = self._monomial(base, x)
                numbers += 2 * inner[0]
                power += 2 * inner[1]
                others += 2 * inner[2]
            elif isinstance(bare, ast.Call) and called(bare) in ("zeros_like", "zeros"):
                numbers.append((bare, Value(frozenset([0.0]))))
            elif (value := self.values.of(bare)).constants or value.variables:
                numbers.append((bare, value))
            elif isinstance(bare, ast.UnaryOp) and isinstance(bare.op, ast.USub):
                inner = self._monomial(bare.operand, x)
                numbers += [(bare, Value(frozenset([-1.0]))), *inner[0]]
                power += inner[1]
                others += inner[2]
            else:
                others.append(ast.unparse(bare))
        return numbers, power, sorted(others)

    def last_value(self, name: ast.Name) -> ast.expr | None:
        """What was last assigned to a name before it is used here."""
        scope = self.values.function_of(name)
        stores = [
            store
            for store in self.values.by_name[name.id]
            if isinstance(store.ctx, ast.Store)
            and self.values.function_of(store) is scope
            and place(store) < place(self.statement(name))
        ]
        last = max(stores, key=place, default=None)
        parent = None if last is None else self.parents[last]
        return parent.value if isinstance(parent, ast.Assign | ast.AnnAssign) else None

    def statement(self, node: ast.AST) -> ast.AST:
        """The statement that ``node`` is a part of."""
        while not isinstance(node, ast.stmt):
            node = self.parents[node]
        return node

    def _is_defined(self, call: ast.Call) -> bool:
        """Whether the script itself defines the function that is called by its bare name."""
        return isinstance(call.func, ast.Name) and any(
            isinstance(node, ast.FunctionDef) and node.name == call.func.id
            for node in ast.walk(self.tree)
        )

    def _argument(self, call: ast.Call) -> str | None:
        """The text of what a function is applied to, as ``f(x)`` or ``x.f()``."""
        is_module = isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) in (
            "F", "torch", "nn.functional", "torch.nn.functional", "tl",
        )  # fmt: skip
        if isinstance(call.func, ast.Name) or is_module:
            return ast.unparse(call.args[0]) if call.args else None
        return ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else None


def factors(node: ast.expr) -> list[ast.expr]:
    """Those of a product.

    >>> [ast.unparse(f) for f in factors(ast.parse("2 * g * x[0]", mode="eval").body)]
    ['2', 'g', 'x[0]']
    """
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        return [*factors(node.left), *factors(node.right)]
    return [node]


def uncast(node: ast.expr) -> ast.expr:
    """The expression without conversions that keep its value."""
    while isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr not in CASTS:
            break
        node = node.func.value
    return node


def squared(node: ast.expr) -> ast.expr | None:
    """What ``node`` is the square of."""
    match node:
        case ast.BinOp(left=left, op=ast.Pow(), right=right) if is_two([right]):
            return left
        case ast.Call(func=ast.Attribute(value=value, attr=attr), args=args):
            if attr in SQUARES:
                return args[0] if args else value
            if attr in POWERS and is_two(args[-1:]):
                return args[0] if len(args) == 2 else value
    return None


def is_two(arguments: list[ast.expr]) -> bool:
    return len(arguments) == 1 and (
        isinstance(arguments[0], ast.Constant) and arguments[0].value == 2
    )


def _is_zero(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value == 0


def _is_relu(call: ast.Call) -> bool:
    """Whether ``clamp`` or ``maximum`` is by zero from below, and by nothing from above."""
    named = {keyword.arg: keyword.value for keyword in call.keywords}
    bounds = [*call.args, *(v for k, v in named.items() if k == "min")]
    return "max" not in named and bool(bounds) and _is_zero(bounds[-1])


def _compared_with_zero(node: ast.expr) -> tuple[str | None, bool]:
    """The text of what is compared with zero, and whether the condition holds where it is > 0."""
    match node:
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            above = isinstance(op, ast.Gt | ast.GtE)
            if not above and not isinstance(op, ast.Lt | ast.LtE):
                return None, False
            if _is_zero(right):
                return ast.unparse(uncast(left)), above
            if _is_zero(left):
                return ast.unparse(uncast(right)), not above
        case ast.Call(func=ast.Attribute(value=value, attr="gt" | "ge"), args=[zero]):
            if _is_zero(zero):
                return ast.unparse(uncast(value)), True
    return None, False


def _product(numbers: list[tuple[ast.expr, Value]]) -> float | None:
    result = 1.0
    for _, value in numbers:
        if value.number is None:
            return None
        result *= value.number
    return result


def place(node: ast.AST, *, last: bool = False) -> tuple[int, int]:
    line, column = ("end_lineno", "end_col_offset") if last else ("lineno", "col_offset")
    return getattr(node, line), getattr(node, column)
