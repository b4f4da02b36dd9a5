"""Read the activation in the text of a CUDA kernel, where a simple pattern fits."""

import math
import re
from collections.abc import Iterator
from typing import Any

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_TERNARY = re.compile(r"\(?\s*([A-Za-z_]\w*)\s*>=?\s*0(?:\.0*)?f?\s*\)?\s*\?")
_NUMBER = re.compile(r"(?<![\w.])(\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+)[fF]?(?![\w.])")
_CAST = re.compile(r"float\(([\d.e+\s*-]+)\)")
_TARGET = re.compile(r"(?:\b([A-Za-z_]\w*)\s*=|(return))\s*\(*\s*$")
_DEFINED = r"(?:#define\s+{0}\s+|\b{0}\s*=\s*)\(?(\d*\.?\d+)[fF]?\)?\s*(?:;|$)"


def read_kernel(text: str) -> list[dict[str, Any]]:
    """The values of each site in ``text``; empty where one of its parts is not understood.

    >>> [site] = read_kernel("float y = v > 0.0f ? v : 0.3f * v; out[i] = y * y;")
    >>> site["kind"], site["value"]
    ('slope', 0.3)
    """
    code = _COMMENT.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)
    found = [_site(code, match) for match in _TERNARY.finditer(code)]
    known = [site for site in found if site is not None]
    return known if len(known) == len(found) else []


def _site(code: str, match: re.Match[str]) -> dict[str, Any] | None:
    x = match[1]
    parts = list(_branches(code, match.end()))
    if len(parts) != 2:
        return None
    (yes, _), (no, start) = parts
    above, below = _monomial(yes, x, code), _monomial(no, x, code)
    if above is None or below is None or above[1] != below[1]:
        return None
    p, power, _ = above
    _, _, numbers = below
    role = _role(code, match.start(), p, power, start + len(no))
    whole_numbers = [n for n in numbers if n[0] not in (1.0, 2.0)] or numbers
    if role is None or len(whole_numbers) != 1:
        return None
    value, begin, end = whole_numbers[0]
    others = 1.0
    for other, at, _ in numbers:
        others *= other if at != begin else 1.0
    kind, backward = role
    return {
        "line": code.count("\n", 0, match.start()) + 1,
        "kind": kind,
        "why": "in a kernel string: "
        + ("slope s" if kind == "slope" else "factor of x² or of 2·x"),
        "text": " ".join(code[match.start() : start + len(no)].split()),
        "value": value,
        "scale": 1.0 if kind == "slope" else p / others,
        "start": start + begin,
        "end": start + end,
        "whole": (match.start(), start + len(no)),
        "backward": backward,
        "language": "c",
    }


def _branches(code: str, at: int) -> Iterator[tuple[str, int]]:
    """What stands before and after the colon of a conditional, each with where it starts."""
    depth, start = 0, at
    for i in range(at, len(code)):
        c = code[i]
        if c in "([":
            depth += 1
        elif c in ")]":
            depth -= 1
        if depth < 0 or (depth == 0 and c in ";,:"):
            yield code[start:i], start
            if c != ":":
                return
            start = i + 1
    yield code[start:], start


def _monomial(
    text: str, x: str, code: str
) -> tuple[float, int, list[tuple[float, int, int]]] | None:
    """Coefficient and power of ``x``, and the numbers with their place in ``text``."""
    coefficient, power, at = 1.0, 0, 0
    numbers: list[tuple[float, int, int]] = []
    for part in re.split(r"\*(?![^()]*\))", text):
        bare = part.strip()
        if bare.startswith("(") and bare.endswith(")"):
            bare = bare[1:-1].strip()
        begin = at + part.find(bare)
        at += len(part) + 1
        value = _number(bare, code)
        if bare == x:
            power += 1
        elif value is not None:
            coefficient *= value
            numbers.append((value, begin, begin + len(bare)))
        else:
            return None
    return coefficient, power, numbers


def _number(text: str, code: str) -> float | None:
    """A literal, ``float(…)`` of a product, or a name that ``code`` defines."""
    if number := _NUMBER.fullmatch(text):
        return float(number[1])
    if cast := _CAST.fullmatch(text):
        return math.prod(float(part) for part in cast[1].split("*"))
    if re.fullmatch(r"[A-Za-z_]\w*", text):
        named = re.search(_DEFINED.format(re.escape(text)), code, re.MULTILINE)
        return float(named[1]) if named else None
    return None


def _role(code: str, at: int, p: float, power: int, end: int) -> tuple[str, bool] | None:
    """Kind of the constant, and whether it is of the backward."""
    if (p, power) == (1.0, 2):
        return "beta", False
    if (p, power) == (2.0, 1):
        return "beta", True
    if (p, power) != (1.0, 1):
        return None
    target = _TARGET.search(code[:at])
    name = target[1] if target else None
    if name is None:
        return None
    later = code[end:]
    squared = re.search(rf"\b{name}\s*\*\s*{name}\b", later)
    doubled = re.search(rf"(?<![\w.])2(\.0*)?f?\s*\*[^;]*\b{name}\b", later)
    if squared and not doubled:
        return "slope", False
    return ("beta", True) if doubled and not squared else None
