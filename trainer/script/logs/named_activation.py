"""Which activation a published log names, in its own lines and in its own source.

In the source only calls inside the MLP's class count (all of it, where no such class has one): its
comments and docstrings may name what once was.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

_NUMBER = r"([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)"
_NAME = re.compile(r"(?<![a-z])act(?:ivation)?(?:_fn|_func|_type)?\s*[:=]\s*['\"]?([\w²^]+)", re.I)
_SLOPE = re.compile(rf"slope\s*[:=]\s*{_NUMBER}", re.I)
_INIT = re.compile(rf"beta_?init\s*[:=]\s*{_NUMBER}", re.I)
_CALL = re.compile(
    r"(?<![a-z_])(leaky_?relu|relu|asqu|prelu|rrelu|gelu|silu|swish|elu|mish|swiglu|geglu)\s*\(",
    re.IGNORECASE,
)
_ARGUMENT = re.compile(rf"(?:^|=|,)\s*{_NUMBER}\s*(?:,|$)")
_CODED_INIT = re.compile(
    rf"beta\w*\s*=.{{0,99}}Parameter\(.{{0,99}}(?:full\(.{{0,99}},\s*{_NUMBER}|(zeros)|(ones))",
    re.IGNORECASE,
)
_SQUARE = re.compile(r"\.square\(|torch\.square|\*\*\s*2|\.pow\(\s*2|(\b\w+) \* \1\b")
_MLP = re.compile(r"class \w*(?:MLP|FeedForward|FFN)", re.I)


@dataclass(frozen=True, slots=True)
class Named:
    """A line that names an activation, its number or both.

    ``name`` is as in our table, but for "_"; ``value`` is the slope, or the first β of ASQU.
    """

    number: int
    text: str
    name: str | None
    value: float | None
    in_source: bool = False

    def called(self, name: str) -> "Named":
        """The same under another name."""
        return replace(self, name=name)


def named_in_line(number: int, text: str) -> Named:
    """What a printed line names: a slope beside a ReLU² is not used.

    >>> for text in ("mlp_act:leaky_relu_sq mlp_leaky_slope:0.9", "mlp_act:relu_sq slope:0.9"):
    ...     named = named_in_line(7, text)
    ...     print(named.name, named.value)
    leakyrelu2 0.9
    relu2 None
    """
    found = _NAME.search(text)
    name = plain_name(found[1]) if found else None
    value = _INIT.search(text) if name == "asqu" else _SLOPE.search(text)
    takes_one = name is None or name.startswith(("asqu", "leaky"))
    return Named(number, text, name, float(value[1]) if value and takes_one else None)


def named_in_source(source: Sequence[str]) -> tuple[Named, ...]:
    """What the calls in the source of the run name."""
    lines = _code(source).split("\n")
    inside = list(_of_mlp(lines))
    if not any(_CALL.search(text) for _, text in inside):
        inside = list(enumerate(lines, start=1))
    squared = any(_SQUARE.search(text) for _, text in inside)
    init = _CODED_INIT.search("\n".join(lines))
    found = []
    for number, text in inside:
        for call in _CALL.finditer(text):
            name, value = plain_name(call[1]), None
            if name == "asqu" and init:
                value = float(init[1] or (init[3] is not None))
            if name in ("relu", "leakyrelu", "prelu", "rrelu"):
                name += "2" if squared else ""
            if name.startswith("leaky"):
                rest = "\n".join([text[call.end() :], *lines[number : number + 9]])
                slope = _ARGUMENT.search(_arguments(rest))
                value = float(slope[1]) if slope else None
            found.append(Named(number, text.strip(), name, value, in_source=True))
    return tuple(found)


def contradiction(
    named: Iterable[Named], activation: str, params: Mapping[str, object]
) -> tuple[Named, str] | None:
    """The line that names another activation or number than is claimed, and what it names; or None.

    A line may leave the square out of the name. A source that can run several decides nothing
    without a line that says which one ran.
    """
    claimed, value = activation.replace("_", ""), params.get("slope", params.get("init"))
    said, called = _parted(named)
    told = [one for one in said if one.name]
    for names in (told, called):
        same = {claimed} if names is called else {claimed, claimed.removesuffix("2")}
        wrong = [one for one in names if one.name not in same]
        some = len(wrong) < len(names)
        if wrong and not (some and told and names is called):
            unsaid = " among others, and no line says which one ran" if some else ""
            return wrong[0], f"activation {wrong[0].name}{unsaid}"
    if "slope" not in params and said and not told and not called:
        return said[0], f"a slope of {said[0].value:g}"
    for one in [one for one in said if one.value is not None] or called:
        if one.value not in (None, value) and ("slope" in params or one.name):
            return one, f"{'a first β' if one.name == 'asqu' else 'a slope'} of {one.value:g}"
    return None


def _parted(named: Iterable[Named]) -> tuple[list[Named], list[Named]]:
    every = list(named)
    return [one for one in every if not one.in_source], [one for one in every if one.in_source]


def plain_name(name: str) -> str:
    """One spelling for the names under which scripts know an activation.

    >>> [plain_name(x) for x in ("leaky_relu_sq", "LeakyReLU²", "relu_squared", "lrelu2")]
    ['leakyrelu2', 'leakyrelu2', 'relu2', 'leakyrelu2']
    """
    word = re.sub(r"[^a-z0-9]", "", name.lower().replace("²", "2"))
    word = re.sub(r"(?:squared|square|sq)$", "2", word)
    return re.sub(r"^(?:lrelu|leaky(?!relu))", "leakyrelu", word)


def _arguments(text: str) -> str:
    """What stands before the closing parenthesis, without what is called in between.

    >>> _arguments("F.linear(x, w(3)), negative_slope=0.5).square()")
    'F.linear, negative_slope=0.5'
    """
    depth, kept = 1, []
    for letter in text:
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if depth == 0:
            break
        if depth == 1 and letter != ")":
            kept.append(letter)
    return "".join(kept).strip()


def _code(source: Sequence[str]) -> str:
    """Without docstrings and comments; each line stays where it is."""
    text = re.sub(
        r"(\"\"\"|''').*?\1",
        lambda found: "\n" * found[0].count("\n"),
        "\n".join(source),
        flags=re.S,
    )
    return re.sub(r"#.*", "", text)


def _of_mlp(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """The lines of the MLP's classes, each with its number."""
    inside = False
    for number, line in enumerate(lines, start=1):
        if line[:1].strip():
            inside = _MLP.match(line) is not None
        if inside:
            yield number, line
