"""Find where a script computes its activation, and whether a backward constant fits its forward.

A script that squares LeakyReLU has its slope s at up to three kinds of places: forward (s), the
square itself (β = s²), and a backward of its own (2·s²). Public kernels exist whose backward kept
the constant of another slope; :func:`mismatches` finds them.
"""

import ast
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import replace

from trainer.config.config_errors import ConfigError
from trainer.script.source.constant_values import Value, Values, called, truth
from trainer.script.source.kernel_strings import read_kernel
from trainer.script.source.piece_uses import Role, Uses
from trainer.script.source.piecewise import Piece, Pieces
from trainer.script.source.site import Kind, Site, disagreeing, moved
from trainer.script.source.syntax import parse_script

_WORDS = re.compile(
    r"leaky|lrelu|relu2|relu_?sq"
    r"|fmaxf?\([^,()]+, *0(\.0*)?f?\)|\btl\.where|> ?=? ?0(\.0*)?f?\)? *\?",
    re.IGNORECASE,
)
_BACKWARD = re.compile(r"backward|bwd|grad")
_CODE = re.compile(r"[;{]|\btl\.|\bdef |__global__|\breturn\b")
_FOREIGN = re.compile(r"leaky|lrelu|relu_?(2|sq)", re.IGNORECASE)


def sites(source: str, variables: Mapping[str, str] | None = None) -> list[Site]:
    """Every place of a script's text that computes its activation, by line.

    ``variables`` are set in its environment; else its defaults count.

    >>> [site] = sites("y = torch.nn.functional.leaky_relu(x, 0.5).square()")
    >>> site.kind, site.value, site.beta, site.line
    ('slope', 0.5, 0.25, 1)
    >>> [site] = sites("g = go * torch.where(x > 0, 2 * x, 0.5 * x)")
    >>> site.kind, site.scale, site.beta, site.backward
    ('beta', 2.0, 0.25, True)
    """
    try:
        found = set(_Finder(source, variables).sites())
    except RecursionError:
        raise ConfigError("an expression of the script is nested too deeply to be read.") from None
    return sorted(found, key=lambda site: (site.line, site.start))


def mismatches(source: str, variables: Mapping[str, str] | None = None) -> list[tuple[Site, Site]]:
    """Pairs of constants of one script that mean different slopes: a forward, and what does not
    fit it.

    >>> source = "y = F.leaky_relu(x, 0.3) ** 2\\ng = go * torch.where(x > 0, 2 * x, 0.5 * x)"
    >>> [(a.line, b.line) for a, b in mismatches(source)]
    [(1, 2)]
    """
    return disagreeing(sites(source, variables))


class _Finder:
    def __init__(self, source: str, variables: Mapping[str, str] | None) -> None:
        self.source, self.variables = source, variables
        self.tree = parse_script(source, "the script")
        self.values = Values(self.tree, variables)
        self.pieces = Pieces(self.tree, self.values)
        self.uses = Uses(self.pieces)
        self.lines = source.split("\n")
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line) + 1)

    def sites(self) -> Iterator[Site]:
        for piece in self.pieces.by_node.values():
            yield from self._of_piece(piece)
        yield from self._in_strings()
        yield from self._foreign()

    def _of_piece(self, piece: Piece) -> Iterator[Site]:
        roles = self.uses.roles(piece)
        known = roles - {"other"}
        if piece.is_zero:
            if "mixed" in known:
                yield self._site(piece, "unknown", "it is one part of a sum that is squared")
            elif known:
                why = "relu squared has no slope" + (
                    ", in a derivative" if _is_derivative(known) else ""
                )
                yield self._site(piece, "relu2", why, backward=_is_derivative(known))
            return
        if "mixed" in known:
            yield self._site(piece, "unknown", "it is one part of a sum that is squared")
        elif len(known) > 1 and known != {"beta", "derivative"}:
            yield self._site(piece, "unknown", "it is used in two ways that ask for two constants")
        elif not known:
            yield self._unsquared(piece)
        else:
            yield from self._constants(piece, known)

    def _unsquared(self, piece: Piece) -> Site:
        what = "LeakyReLU, and no square of it is seen"
        what = (
            what if piece.power else "a factor by the sign of x, and what it multiplies is not seen"
        )
        backward = self._is_in_backward(piece)
        return self._site(piece, "unsquared", what, piece.constants[:1], backward=backward)

    def _is_in_backward(self, piece: Piece) -> bool:
        function = self.values.function_of(piece.node)
        return bool(_BACKWARD.search(getattr(function, "name", "")))

    def _constants(self, piece: Piece, roles: set[Role]) -> Iterator[Site]:
        """The sites of a piece whose role is known: one, or two where s is written as a square."""
        numbers = [(n, v) for n, v in piece.constants if not _is_whole(v)]
        numbers = numbers or list(piece.constants[:1])
        others = 1.0
        for node, value in piece.constants:
            if all(node is not n for n, _ in numbers):
                others *= value.number or 0.0
        kind: Kind = "slope" if roles == {"slope"} else "beta"
        backward = _is_derivative(roles) or self._is_in_backward(piece)
        if not numbers:
            yield self._site(piece, "unknown", "its constant is not written")
        elif any(value.number is None for _, value in numbers) or not others:
            yield self._site(piece, "unknown", _why_unknown(numbers), numbers)
        elif len(numbers) == 1:
            scale = self._scale(piece, roles) / others
            yield self._site(piece, kind, _REASONS[kind, backward], numbers, scale, backward)
        elif (
            len(numbers) == 2
            and kind == "beta"
            and numbers[0][1].number == numbers[1][1].number
            and others == self._scale(piece, roles)
        ):
            for number in numbers:
                yield self._site(piece, "slope", "one of two factors s", [number], 1.0, backward)
        else:
            yield self._site(piece, "unknown", "its constant has several factors", numbers)

    def _scale(self, piece: Piece, roles: set[Role]) -> float:
        return 1.0 if roles == {"slope"} else piece.positive

    def _site(
        self,
        piece: Piece,
        kind: Kind,
        why: str,
        numbers: "list[tuple[ast.expr, Value]] | tuple[tuple[ast.expr, Value], ...]" = (),
        scale: float = 1.0,
        backward: bool = False,
    ) -> Site:
        node = numbers[0][0] if numbers else piece.node
        start, end = self._span(node)
        whole = self._span(piece.node)
        condition, runs = self._condition(piece.node)
        return Site(
            line=node.lineno,
            kind=kind,
            why=why,
            text=" ".join(self.source[slice(*whole)].split()),
            value=numbers[0][1].number if numbers else None,
            scale=scale,
            start=start,
            end=end,
            whole=whole,
            variables=frozenset(name for _, value in numbers for name in value.variables),
            backward=backward,
            condition=condition,
            runs=runs,
            group=self._group(piece.node),
        )

    def _condition(self, node: ast.AST) -> tuple[str | None, bool | None]:
        """The innermost condition that is not seen to hold, and whether it is seen not to.

        A kernel's are its arguments, which choose between forward and backward.
        """
        function = self.values.function_of(node)
        if any("jit" in ast.unparse(d) for d in getattr(function, "decorator_list", [])):
            return None, True
        unknown: str | None = None
        while node is not function:
            inner, node = node, self.values.parents[node]
            if not isinstance(node, ast.If | ast.IfExp) or inner is node.test:
                continue
            holds = truth(node.test, self.values)
            first = inner is node.body or (isinstance(node, ast.If) and inner in node.body)
            text = f"{'' if first else 'not '}{ast.unparse(node.test)} (line {node.lineno:,})"
            if holds is not None and holds != first:
                return text, False
            unknown = unknown or (text if holds is None else None)
        return unknown, True if unknown is None else None

    def _group(self, node: ast.AST) -> str:
        """The outermost class or function around ``node``."""
        outermost = ""
        while (node := self.values.parents.get(node, self.tree)) is not self.tree:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                outermost = node.name
        return outermost

    def _span(self, node: ast.expr) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return (
            self._offset(node.lineno, node.col_offset),
            self._offset(node.end_lineno, node.end_col_offset),
        )

    def _offset(self, line: int, column: int) -> int:
        text = self.lines[line - 1]
        return self.starts[line - 1] + len(text.encode()[:column].decode())

    def _in_strings(self) -> Iterator[Site]:
        """Sites in texts that hold code: Triton or Python that parses, CUDA where it is simple."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.JoinedStr):
                texts = [p.value for p in node.values if isinstance(p, ast.Constant)]
                text = "".join(map(str, texts))
                if _is_kernel(text):
                    yield self._string_site(node, text, "it is an f-string")
            elif (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and not isinstance(self.values.parents[node], ast.Expr | ast.JoinedStr)
                and _is_kernel(node.value)
            ):
                yield from self._in_string(node, node.value)

    def _in_string(self, node: ast.Constant, text: str) -> Iterator[Site]:
        start, end = self._span(node)
        offset = self.source.find(text, start, end)
        if offset < 0:
            yield self._string_site(node, text, "it has escapes")
            return
        line = self.source.count("\n", 0, offset)
        group = f"the string of line {node.lineno}"
        try:
            found = self._of_python(text)
        except ConfigError:
            found = [Site(**values) for values in read_kernel(text)]
        if not found:
            yield self._string_site(node, text, "no pattern fits")
        for site in found:
            yield replace(
                moved(site, offset, line), group=f"{group}{site.group and ', '}{site.group}"
            )

    def _of_python(self, text: str) -> list[Site]:
        if textwrap.dedent(text) == text:
            return sites(text, self.variables)
        opening = "if 1:\n"
        return [moved(site, -len(opening), -1) for site in sites(opening + text, self.variables)]

    def _string_site(self, node: ast.expr, text: str, why: str) -> Site:
        words = _WORDS.search(text)
        before = text.count("\n", 0, words.start()) if words else 0
        start, end = self._span(node)
        line = node.lineno + before
        return Site(
            line=min(line, node.end_lineno or line),
            kind="unknown",
            why=f"in a kernel string that is not understood: {why}",
            text=text.split("\n")[before].strip() if words else "",
            start=start,
            end=end,
            whole=(start, end),
            group=f"the string of line {node.lineno}",
        )

    def _foreign(self) -> Iterator[Site]:
        """Functions with such a name that come from elsewhere: another file, a compiled kernel."""
        defined = {
            node.name
            for node in ast.walk(self.tree)
            if isinstance(node, ast.FunctionDef | ast.ClassDef)
        }
        assigned = {
            target.attr if isinstance(target, ast.Attribute) else ast.unparse(target)
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Assign | ast.AnnAssign)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        }
        for node in ast.walk(self.tree):
            if not isinstance(node, ast.Call):
                continue
            name = called(node) or ""
            by_text = name == "getattr" and any(
                isinstance(a, ast.Constant) and _FOREIGN.search(str(a.value)) for a in node.args
            )
            if by_text or (
                _FOREIGN.search(name)
                and name not in defined | assigned
                and node not in self.pieces.by_node
            ):
                start, end = self._span(node)
                yield Site(
                    line=node.lineno,
                    kind="unknown",
                    why=f"{name} is called, and its code is not in this file",
                    text=" ".join(self.source[start:end].split()),
                    start=start,
                    end=end,
                    whole=(start, end),
                    group=self._group(node),
                )


_REASONS = {
    ("slope", False): "slope s of the forward",
    ("slope", True): "slope s in the derivative",
    ("beta", False): "factor s² of x² in the forward",
    ("beta", True): "factor of the derivative, 2·s² in all",
}


def _why_unknown(numbers: list[tuple[ast.expr, Value]]) -> str:
    names = sorted({name for _, value in numbers for name in value.variables})
    several = sorted({c for _, v in numbers for c in v.constants if isinstance(c, float)})
    if names:
        return f"its slope comes from {', '.join(names)}, which has no default that is a number"
    if len(several) > 1:
        return f"its slope can be one of {', '.join(f'{n:g}' for n in several)}"
    return "its slope is computed, or learned"


def _is_derivative(roles: set[Role]) -> bool:
    return "derivative" in roles


def _is_whole(value: Value) -> bool:
    number = value.number
    return number is not None and not value.variables and number in (1.0, 2.0)


def _is_kernel(text: str) -> bool:
    return bool(_WORDS.search(text) and _CODE.search(text))
