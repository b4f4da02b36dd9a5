"""Tell how a piece is used: squared, as the square itself, or in a derivative."""

import ast
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from trainer.script.source.constant_values import Function, called, parameter_names
from trainer.script.source.piecewise import (
    CASTS,
    POWERS,
    SQUARES,
    Piece,
    Pieces,
    factors,
    is_two,
    place,
    squared,
    uncast,
)

Role = Literal["slope", "beta", "derivative", "mixed", "other"]
MAX_NAMES = 6


class Uses:
    """How the values of pieces are used, followed through names, calls and returns."""

    def __init__(self, pieces: Pieces) -> None:
        self.pieces, self.values = pieces, pieces.values
        self.tree, self.parents = pieces.tree, pieces.values.parents

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
                if twice or attr in SQUARES or (attr in POWERS and is_two(call.args)):
                    yield _raised(piece)
                elif attr in CASTS:
                    yield from self._uses(call, piece, depth)
                else:
                    yield "other"
            case ast.Call(args=[first, *rest]) if first is node:
                name = called(parent)
                squares = name in SQUARES or (name in POWERS and is_two(rest))
                twice = name in ("mul", "multiply") and self._same(node, rest)
                yield _raised(piece) if squares or twice else "other"
            case ast.BinOp(op=ast.Pow(), left=left, right=right) if left is node:
                yield _raised(piece) if is_two([right]) else "other"
            case ast.BinOp(op=ast.Mult()):
                yield from self._multiplied(node, piece, depth)
            case ast.AugAssign(op=ast.Mult(), target=ast.Name(id=name), value=ast.Name(id=other)):
                yield _raised(piece) if name == other else "other"
            case ast.AugAssign(op=ast.Pow(), target=target, value=value) if target is node:
                yield _raised(piece) if is_two([value]) else "other"
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
            base, number = squared(bare), self._constant(bare)
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
            (
                place(self.pieces.statement(n), last=True)
                for n in same
                if self._replaces(n, statement)
            ),
            default=(1 << 30, 0),
        )
        uses = [
            role
            for name in same
            if isinstance(name.ctx, ast.Load) or isinstance(self.parents[name], ast.AugAssign)
            if place(statement, last=True) <= place(name) <= end
            for role in self._uses(name, piece, depth + 1)
        ]
        yield from uses or ["other"]

    def _replaces(self, name: ast.Name, statement: ast.AST) -> bool:
        """Whether a later statement gives the name another value wherever ``statement`` ran."""
        if not isinstance(name.ctx, ast.Store) or place(name) <= place(statement, last=True):
            return False
        block = self.parents[self.pieces.statement(name)]
        node = statement
        while node is not self.tree:
            node = self.parents[node]
            if node is block:
                return not isinstance(block, ast.If) or self._arm(block, statement) is self._arm(
                    block, name
                )
        return False

    def _arm(self, block: ast.If, node: ast.AST) -> list[ast.stmt]:
        return block.body if place(node) < place(block.body[-1], last=True) else block.orelse

    def _piece_of(self, node: ast.expr, depth: int) -> Piece | None:
        """The piece that an expression is, by its name too."""
        node = uncast(node)
        if node in self.pieces.by_node or depth > MAX_NAMES:
            return self.pieces.by_node.get(node)
        value = self.pieces.last_value(node) if isinstance(node, ast.Name) else None
        return None if value is None else self._piece_of(value, depth + 1)

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


def _raised(piece: Piece) -> Role:
    return "slope" if (piece.power, piece.positive) == (1, 1.0) else "other"
