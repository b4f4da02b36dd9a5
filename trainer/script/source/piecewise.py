"""Recognize functions of x in two pieces (ReLU, LeakyReLU, ``where``), and what is done with them.

On x > 0 a piece is p·x^k, on x ≤ 0 it is n·x^k. Of the family of activations of this project (x²,
β·x²) its ratio n / p is the slope s where the piece is squared, and β = s² where it is the square
itself, p = 1 and k = 2, or its derivative, p = 2 and k = 1.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from trainer.script.source.constant_values import (
    UNKNOWN,
    Function,
    Value,
    Values,
    called,
    parameter_names,
)

Role = Literal["slope", "beta", "derivative", "mixed", "other"]
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
    """The pieces of a syntax tree, and how each is used."""

    def __init__(self, tree: ast.Module, values: Values) -> None:
        self.tree, self.values, self.parents = tree, values, values.parents
        found = (self._piece(node) for node in ast.walk(tree) if isinstance(node, ast.expr))
        self.by_node = {piece.node: piece for piece in found if piece is not None}

    def roles(self, piece: Piece) -> set[Role]:
        """How a piece is used, at each of its uses."""
        if (piece.power, piece.positive) == (2, 1.0):
            return {"beta"}
        if (piece.power, piece.positive) == (1, 2.0):
            return {"derivative"}
        if piece.made:
            return {
                role
                for call in self._calls_of_value(piece.node)
                for role in self._uses(call, replace(piece, node=call), 0)
            } or {"other"}
        return set(self._uses(piece.node, piece, 0)) or {"other"}

    # What is a piece.

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
            condition = self._last_value(condition) or condition
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
            base = _squared(bare)
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

    # What is done with it.

    def _uses(self, node: ast.expr, piece: Piece, depth: int) -> Iterator[Role]:
        """The roles of a piece whose value ``node`` is."""
        parent = self.parents.get(node)
        if depth > MAX_NAMES or parent is None:
            return
        match parent:
            case ast.Attribute(attr=attr) if isinstance(self.parents[parent], ast.Call):
                call = self.parents[parent]
                assert isinstance(call, ast.Call)
                twice = attr in ("mul", "mul_") and self._same(node, call.args)
                if twice or attr in SQUARES or (attr in POWERS and _is_two(call.args)):
                    yield _raised(piece)
                elif attr in CASTS:
                    yield from self._uses(call, piece, depth)
                else:
                    yield "other"
            case ast.Call(args=[first, *rest]) if first is node:
                name = called(parent)
                squares = name in SQUARES or (name in POWERS and _is_two(rest))
                twice = name in ("mul", "multiply") and self._same(node, rest)
                yield _raised(piece) if squares or twice else "other"
            case ast.BinOp(op=ast.Pow(), left=left, right=right) if left is node:
                yield _raised(piece) if _is_two([right]) else "other"
            case ast.BinOp(op=ast.Mult()):
                yield from self._multiplied(node, piece, depth)
            case ast.AugAssign(op=ast.Mult(), target=ast.Name(id=name), value=ast.Name(id=other)):
                yield _raised(piece) if name == other else "other"
            case ast.AugAssign(op=ast.Pow(), target=target, value=value) if target is node:
                yield _raised(piece) if _is_two([value]) else "other"
            case ast.BinOp(op=ast.Add() | ast.Sub()):
                known = set(self._uses(parent, replace(piece, power=1, positive=1.0), depth + 1))
                yield "other" if known <= {"other"} else "mixed"
            case ast.IfExp(test=test):
                if test is not node:
                    yield from self._uses(parent, piece, depth)
            case ast.NamedExpr():
                yield from self._uses(parent, piece, depth)
                yield from self._named(parent, piece, depth)
            case ast.Assign() | ast.AnnAssign():
                yield from self._named(parent, piece, depth)
            case ast.Return() | ast.Lambda():
                uses = [
                    role
                    for call in self._calls_of_value(parent)
                    for role in self._uses(call, piece, depth + 1)
                ]
                yield from uses or ["other"]
            case _:
                yield "other"

    def _multiplied(self, node: ast.expr, piece: Piece, depth: int) -> Iterator[Role]:
        top = node
        while isinstance(parent := self.parents[top], ast.BinOp) and isinstance(
            parent.op, ast.Mult
        ):
            top = parent
        others = [factor for factor in factors(top) if factor is not node]
        if self._same(node, others):
            yield _raised(piece)
            return
        power, positive, ratios, unknown = piece.power, piece.positive, 1, False
        for factor in others:
            bare = uncast(factor)
            base, number = _squared(bare), self._constant(bare)
            other = self._piece_of(bare, 0)
            if piece.x is not None and ast.unparse(bare) == piece.x:
                power += 1
            elif base is not None and ast.unparse(base) == piece.x:
                power += 2
            elif number is not None:
                positive *= number
            elif other is not None and other.x == piece.x:
                power, positive, ratios = power + other.power, positive * other.positive, ratios + 1
            else:
                unknown = True
        if (power, positive) == (1, 2.0) and (unknown or ratios == 2):
            yield "derivative" if ratios == 1 else "slope"
        elif (power, positive) == (2, 1.0):
            yield "beta" if ratios == 1 else "slope"
        elif not unknown and ratios == 1:
            yield from self._uses(top, replace(piece, power=power, positive=positive), depth + 1)
        else:
            yield "other"

    def _constant(self, node: ast.expr) -> float | None:
        """The number that a factor is; a parameter is none, whatever its default."""
        function = self.values.function_of(node)
        names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        is_given = isinstance(function, Function) and names & set(parameter_names(function))
        return None if is_given else self.values.of(node).number

    def _same(self, node: ast.expr, others: list[ast.expr]) -> bool:
        """Whether the value itself is among the other factors."""
        name = ast.unparse(node.target if isinstance(node, ast.NamedExpr) else node)
        return any(ast.unparse(other) == name for other in others)

    def _named(
        self, statement: ast.Assign | ast.AnnAssign | ast.NamedExpr, piece: Piece, depth: int
    ) -> Iterator[Role]:
        """The uses of a name until it is given another value."""
        target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
        if not isinstance(target, ast.Name):
            yield "other"
            return
        scope = self.values.function_of(statement)
        same = [n for n in self.values.by_name[target.id] if self.values.function_of(n) is scope]
        end = min(
            (_place(self._statement(n), last=True) for n in same if self._replaces(n, statement)),
            default=(1 << 30, 0),
        )
        uses = [
            role
            for name in same
            if isinstance(name.ctx, ast.Load) or isinstance(self.parents[name], ast.AugAssign)
            if _place(statement, last=True) <= _place(name) <= end
            for role in self._uses(name, piece, depth + 1)
        ]
        yield from uses or ["other"]

    def _replaces(self, name: ast.Name, statement: ast.AST) -> bool:
        """Whether a later statement gives the name another value wherever ``statement`` ran."""
        if not isinstance(name.ctx, ast.Store) or _place(name) <= _place(statement, last=True):
            return False
        block = self.parents[self._statement(name)]
        node = statement
        while node is not self.tree:
            node = self.parents[node]
            if node is block:
                return not isinstance(block, ast.If) or self._arm(block, statement) is self._arm(
                    block, name
                )
        return False

    def _arm(self, block: ast.If, node: ast.AST) -> list[ast.stmt]:
        return block.body if _place(node) < _place(block.body[-1], last=True) else block.orelse

    def _statement(self, node: ast.AST) -> ast.AST:
        while not isinstance(node, ast.stmt):
            node = self.parents[node]
        return node

    def _piece_of(self, node: ast.expr, depth: int) -> Piece | None:
        """The piece that an expression is, by its name too."""
        node = uncast(node)
        if node in self.by_node or depth > MAX_NAMES:
            return self.by_node.get(node)
        value = self._last_value(node) if isinstance(node, ast.Name) else None
        return None if value is None else self._piece_of(value, depth + 1)

    def _last_value(self, name: ast.Name) -> ast.expr | None:
        """What was last assigned to a name before it is used here."""
        scope = self.values.function_of(name)
        stores = [
            store
            for store in self.values.by_name[name.id]
            if isinstance(store.ctx, ast.Store)
            and self.values.function_of(store) is scope
            and _place(store) < _place(self._statement(name))
        ]
        last = max(stores, key=_place, default=None)
        parent = None if last is None else self.parents[last]
        return parent.value if isinstance(parent, ast.Assign | ast.AnnAssign) else None

    def _calls_of_value(self, node: ast.AST) -> Iterator[ast.Call]:
        """The calls of the function that returns ``node``, is it, or is called like it."""
        if isinstance(node, ast.Return):
            function = self.values.function_of(node)
            names = {function.name} if isinstance(function, ast.FunctionDef) else set()
            owner = self.parents[function]
            if isinstance(owner, ast.ClassDef) and names == {"forward"}:
                names = set()
                for made in self.values.calls.get(owner.name, []):
                    yield from self._calls_of_value(made)
        else:
            parent = self.parents[node]
            targets = parent.targets if isinstance(parent, ast.Assign) else []
            names = {t.attr if isinstance(t, ast.Attribute) else ast.unparse(t) for t in targets}
        for name in names:
            yield from self.values.calls.get(name, [])

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


def _raised(piece: Piece) -> Role:
    return "slope" if (piece.power, piece.positive) == (1, 1.0) else "other"


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


def _squared(node: ast.expr) -> ast.expr | None:
    """What ``node`` is the square of."""
    match node:
        case ast.BinOp(left=left, op=ast.Pow(), right=right) if _is_two([right]):
            return left
        case ast.Call(func=ast.Attribute(value=value, attr=attr), args=args):
            if attr in SQUARES:
                return args[0] if args else value
            if attr in POWERS and _is_two(args[-1:]):
                return args[0] if len(args) == 2 else value
    return None


def _is_two(arguments: list[ast.expr]) -> bool:
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


def _place(node: ast.AST, *, last: bool = False) -> tuple[int, int]:
    line, column = ("end_lineno", "end_col_offset") if last else ("lineno", "col_offset")
    return getattr(node, line), getattr(node, column)
