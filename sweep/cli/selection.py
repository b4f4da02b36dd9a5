"""Select cells by a condition: the language of ``--where "slope >= 0.3 and seed == 42"``.

A condition over what a cell is: the columns of its identity and the keys of ``[grid.set]``. It is
read with Python's own grammar, of which comparisons, ``in``, ``is None``, ``and``, ``or``, ``not``
and literals are understood; nothing is ever called. It is checked whole before it is applied to
any cell, which an evaluator that stops at the first false part would not do.

Absent values (the slope of relu2): every comparison with one is false, ``!=`` and ``not in`` too.
``not`` turns true into false and back and knows no third value, so ``E`` and ``not (E)`` share the
grid out between them and leave no cell over. ``slope is None`` asks for the absence itself.

Numbers are compared at 12 significant digits, as in cell ids: 0.3 means the decimal 0.3.
"""

import ast
import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweep.spec.grid import Cell
from trainer.config.config_errors import ConfigError, did_you_mean
from trainer.contract import canonical_json

Value = bool | int | float | str | None
Values = Mapping[str, Value]
Condition = Callable[[Values], bool]
Operand = Callable[[Values], Value]

EXAMPLE = "slope >= 0.3 and seed == 42"
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


@dataclass(frozen=True, slots=True)
class Selection:
    """The cells of a sweep that are meant: those where ``where`` holds, and the first ``limit``."""

    where: str | None = None
    limit: int | None = None

    def cells(self, cells: Sequence[Cell]) -> list[Cell]:
        """The cells that are meant; a ConfigError where there is none."""
        return [cells[i] for i in self.positions([values_of(cell) for cell in cells])]

    def positions(self, all_values: Sequence[Values]) -> list[int]:
        """The same of cells that are known by their values."""
        if self.where is None:
            return list(range(len(all_values)))
        found = positions(all_values, self.where)
        if not found:
            raise ConfigError(
                f"--where {self.where!r}: none of the {len(all_values)} cells is so. "
                f"`make plan` and `make status` show what there is."
            )
        return found


def values_of(cell: Cell) -> dict[str, Value]:
    """The values of a cell that a condition can name.

    A key of ``[grid.set]`` goes by its whole name, and by its last part where that is unambiguous.
    A list is known by its JSON text.
    """
    spec = cell.spec
    values: dict[str, Value] = {
        "cell": cell.name,
        "activation": spec.activation.name,
        "slope": cell.slope,
        "neg_beta": cell.neg_beta,
        "seed": spec.seed,
        "replicate": spec.replicate,
        "budget_kind": spec.parsed_budget.kind,
        "budget_value": spec.parsed_budget.value,
        "block": cell.block,
        "recipe": spec.recipe_name,
    }
    whole = {key: _scalar(value) for key, value in cell.overrides.items()}
    leaves = [key.rpartition(".")[2] for key in whole]
    short = {
        leaf: value
        for leaf, value in zip(leaves, whole.values(), strict=True)
        if leaves.count(leaf) == 1
    }
    return short | whole | values


def positions(all_values: Sequence[Values], expression: str) -> list[int]:
    """The same of cells that are known by their values."""
    known = list(dict.fromkeys(name for values in all_values for name in values))
    holds = _Reader(" ".join(expression.split("\n")).strip(), known).read()
    return [i for i, values in enumerate(all_values) if holds(values)]


@dataclass(frozen=True, slots=True)
class _Reader:
    """Turns the text of an expression into a function of a cell's values."""

    text: str
    known: Sequence[str]

    def read(self) -> Condition:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SyntaxWarning)
                tree = ast.parse(self.text, mode="eval")
            return self._condition(tree.body)
        except SyntaxError as error:
            column = error.offset - 1 if error.offset else len(self.text)
            raise self._error(error.msg, column) from None
        except ConfigError:
            raise
        except (ValueError, RecursionError, MemoryError) as error:
            raise ConfigError(f"--where: this cannot be read ({error}).") from None

    def _condition(self, node: ast.expr) -> Condition:
        match node:
            case ast.BoolOp(op=ast.And(), values=parts):
                conditions = [self._condition(part) for part in parts]
                return lambda values: all(condition(values) for condition in conditions)
            case ast.BoolOp(op=ast.Or(), values=parts):
                conditions = [self._condition(part) for part in parts]
                return lambda values: any(condition(values) for condition in conditions)
            case ast.UnaryOp(op=ast.Not(), operand=inner):
                condition = self._condition(inner)
                return lambda values: not condition(values)
            case ast.Compare(left=left, ops=ops, comparators=rights):
                lefts = [left, *rights[:-1]]
                links = [self._link(*link) for link in zip(lefts, ops, rights, strict=True)]
                return lambda values: all(link(values) for link in links)
            case _:
                return self._truth(node)

    def _link(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Condition:
        """One comparison, of which a chain such as ``0.2 < slope <= 0.5`` has several."""
        a = self._operand(left)
        if isinstance(op, ast.Is | ast.IsNot):
            if not (isinstance(right, ast.Constant) and right.value is None):
                raise self._refuse(right, "after `is` and `is not` there can only be None")
            return lambda values: (a(values) is None) == isinstance(op, ast.Is)
        if isinstance(op, ast.In | ast.NotIn):
            if not isinstance(right, ast.Tuple | ast.List | ast.Set):
                raise self._refuse(right, "`in` wants a list, such as (42,) or (42, 1337)")
            members = [self._operand(member) for member in right.elts]
            is_in = isinstance(op, ast.In)
            return lambda values: (
                a(values) is not None
                and any(self._compare(ast.Eq, a(values), m(values), left) for m in members) == is_in
            )
        b = self._operand(right)
        return lambda values: self._compare(type(op), a(values), b(values), left)

    def _compare(self, op: type[ast.cmpop], a: Value, b: Value, node: ast.expr) -> bool:
        if a is None or b is None:
            return False
        if _kind(a) != _kind(b):
            raise self._refuse(node, f"{a!r} is {_kind(a)} and {b!r} is {_kind(b)}")
        return _COMPARISONS[op](_rounded(a), _rounded(b))

    def _truth(self, node: ast.expr) -> Condition:
        operand = self._operand(node)

        def holds(values: Values) -> bool:
            value = operand(values)
            if value is None or isinstance(value, bool):
                return value is True
            raise self._refuse(node, f"{value!r} is {_kind(value)} and no condition; compare it")

        return holds

    def _operand(self, node: ast.expr) -> Operand:
        match node:
            case ast.Constant(value=bool() | int() | float() | str() as constant):
                return lambda values: constant
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                return lambda values: -number
            case ast.Name() | ast.Attribute():
                name = self._name(node)
                return lambda values: values.get(name)
            case _:
                raise self._refuse(node, "this is not understood here")

    def _name(self, node: ast.expr) -> str:
        name = ast.unparse(node)
        if name not in self.known:
            hint = f"text stands in quotes.{did_you_mean(name, list(self.known))}"
            raise self._refuse(
                node, f"unknown name {name!r}; {hint} Known: {', '.join(self.known)}"
            )
        return name

    def _refuse(self, node: ast.expr, why: str) -> ConfigError:
        return self._error(why, len(self.text.encode()[: node.col_offset].decode()))

    def _error(self, why: str, column: int) -> ConfigError:
        return ConfigError(
            f"--where: {why}.\n  {self.text}\n  {' ' * column}^\n"
            f"Comparisons (== != < <= > >= in), `and`, `or`, `not`, names, numbers and quoted text "
            f"are understood: {EXAMPLE}"
        )


def _scalar(value: Any) -> Value:
    return value if isinstance(value, bool | int | float | str | None) else canonical_json(value)


def _kind(value: Value) -> str:
    if isinstance(value, bool):
        return "a truth value"
    return "text" if isinstance(value, str) else "a number"


def _rounded(value: Value) -> Value:
    return float(f"{value:.12g}") if isinstance(value, float) else value
