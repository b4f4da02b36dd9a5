"""Find the result lines that a script prints: the label before ``val_loss``, and its stage."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from trainer.script.source.constant_values import Function, Values, bound, truth

_SCORE = re.compile(r"val_loss:\{.*?\}\s+val_bpb:\{(.*?)\}")
_LABELLED = re.compile(r"\s*(?P<label>\S.*?)\s+" + _SCORE.pattern, re.DOTALL)
_STEP = re.compile(r"\s*step:")
_OTHER_STEP = re.compile(
    r"\{[^}]*\}/\{[^}]*\}(?: train_loss: ?\{[^}]*\}| val_loss: ?\{[^}]*\} val_bpb: ?\{[^}]*\})"
)
_TABLE = {
    "slot": r".*slot.*",
    "ttt": r".*ttt.*",
    "pre_quant": r".*post_ema|.*pre[-_ ]?quant.*",
    "sliding": r".*sliding.*",
    "post_quant": r"final_(?:\w+_)?roundtrip|(?:final_)?(?:post_?)?quant(?:ized)?",
}


@dataclass(frozen=True, slots=True)
class ResultLine:
    """A line that a script prints of its scores.

    ``label`` is None where the line has another form than label, val_loss, val_bpb. ``value`` says
    which score is printed, so that two lines can be compared; ``off_by`` is the condition that is
    false by the script's defaults.
    """

    line: int
    text: str
    label: str | None
    value: str | None
    stage: str | None
    off_by: str | None

    @property
    def is_exact(self) -> bool:
        return self.label is not None and self.label.endswith("_exact")


def result_lines(tree: ast.Module, values: Values) -> list[ResultLine]:
    """Every text of the script that prints a ``val_bpb``, by line; those of a step left out.

    >>> tree = ast.parse("log(f'final_int6_roundtrip val_loss:{a:.4f} val_bpb:{b:.4f}')")
    >>> [(line.label, line.stage) for line in result_lines(tree, Values(tree))]
    [('final_int6_roundtrip', 'post_quant')]
    """
    found = [
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr | ast.Constant)
        for line in _of_text(node, values)
    ]
    return sorted(set(found), key=lambda line: (line.line, line.label or ""))


def printed_forms(tree: ast.Module) -> tuple[bool, bool, list[str]]:
    """Whether it prints the field's usual lines at all, those of steps, and patterns of others.

    >>> text = "log(f'{step}/{args.iterations} train_loss: {loss:.4f} tok/s: {speed}')"
    >>> printed_forms(ast.parse(text))[2]
    ['^(?P<step>[0-9]+)/[0-9]+ train_loss: (?P<train_loss>\\\\S+)']
    """
    texts = [_template(node) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    usual = any(re.match(r"\s*(?:step:|Serialized model|Total submission)", t) for t in texts)
    steps = any(_STEP.match(text) and "train_loss:" in text for text in texts)
    others = [_as_pattern(match) for text in texts if (match := _OTHER_STEP.match(text))]
    return usual, steps, list(dict.fromkeys(others))


def _as_pattern(match: re.Match[str]) -> str:
    """The pattern of a line that begins with ``step/steps``, and has one or two losses."""
    losses = "".join(
        rf" {re.escape(name)}:{space}(?P<{name}>\S+)"
        for name, space in re.findall(r" (\w+):( ?)\{", match[0])
    )
    return f"^(?P<step>[0-9]+)/[0-9]+{losses}"


def stage_of(label: str) -> str | None:
    """The stage that a label usually is.

    >>> stage_of("final_int8_zlib_roundtrip_exact"), stage_of("legal_ttt"), stage_of("my_score")
    ('post_quant', 'ttt', None)
    """
    base = label.removesuffix("_exact")
    return next((s for s, text in _TABLE.items() if re.fullmatch(text, base, re.I)), None)


def _of_text(node: ast.JoinedStr | ast.Constant, values: Values) -> Iterator[ResultLine]:
    template = _template(node)
    parent = values.parents[node]
    if "val_bpb" not in template or isinstance(parent, ast.Expr | ast.JoinedStr):
        return
    if (
        _STEP.match(template)
        or _OTHER_STEP.match(template)
        or not re.search(r"val_bpb\S*\s*[:=]\s*[{%]", template)
    ):
        return
    match = _LABELLED.match(template)
    value = match[2].partition(":")[0] if match else None
    off_by = _off_by(node, values)
    labels = _labels(match["label"], node, values) if match else [(None, node, None)]
    for label, place, off in labels:
        yield ResultLine(
            line=place.lineno,
            text=" ".join(template.split())[:120],
            label=label,
            value=_assigned(value, node, values) if place is node else ast.unparse(place),
            stage=None if label is None else stage_of(label),
            off_by=off_by or off,
        )


def _assigned(name: str | None, node: ast.expr, values: Values) -> str | None:
    """The name with the line where it was last given a value before ``node``."""
    scope = values.function_of(node)
    lines = [
        store.lineno
        for store in values.by_name.get(name or "", [])
        if isinstance(store.ctx, ast.Store)
        and store.lineno <= node.lineno
        and values.function_of(store) is scope
    ]
    return f"{name} of line {max(lines)}" if lines else name


def _labels(
    label: str, node: ast.expr, values: Values
) -> list[tuple[str | None, ast.expr, str | None]]:
    """The label; where it is a parameter of the function around it, those of its calls."""
    parameter = re.fullmatch(r"\{(\w+)\}", label)
    function = values.function_of(node)
    if parameter and isinstance(function, ast.FunctionDef):
        calls = values.calls.get(function.name, [])
        given = [(call, (bound(function, call, 0) or {}).get(parameter[1])) for call in calls]
        return [(_text(argument), call, _off_by(call, values)) for call, argument in given]
    return [(None if "{" in label else label, node, None)]


def _text(node: ast.expr | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _template(node: ast.expr) -> str:
    """The text, with ``{…}`` for each value that is put in."""
    if isinstance(node, ast.Constant):
        return re.sub(r"%[\d.]*[a-z]", "{}", node.value) if isinstance(node.value, str) else ""
    assert isinstance(node, ast.JoinedStr)
    parts = [
        part.value if isinstance(part, ast.Constant) else f"{{{ast.unparse(part.value)}}}"
        for part in node.values
        if isinstance(part, ast.Constant | ast.FormattedValue)
    ]
    return "".join(map(str, parts))


def _off_by(node: ast.AST, values: Values) -> str | None:
    """The condition around ``node`` that does not hold with the script's defaults."""
    inner = node
    while not isinstance(inner, ast.Module | Function):
        inner, last = values.parents[inner], inner
        if isinstance(inner, ast.If) and last is not inner.test:
            holds = truth(inner.test, values)
            if holds is not None and holds != (last in inner.body):
                return f"line {inner.lineno}: {ast.unparse(inner.test)}"
    return None
