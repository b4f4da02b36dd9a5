"""Numbers, intervals, p values and lists in words: the digits say how well a number is known."""

import math

import pandas as pd

DASH = "–"
_LEAST = 1e-9  # of a score in bits per byte, doubles that are subtracted keep no further digit


def number(value: float | None, *, signed: bool = False, decimals: int = 4) -> str:
    """What is zero in so many decimals has no sign: no side of zero is claimed.

    >>> number(2.12341), number(-0.0034, signed=True), number(None), number(-0.00001, signed=True)
    ('2.1234', '−0.0034', '–', '0.0000')
    """
    if value is None or pd.isna(value):
        return DASH
    if round(value, decimals) == 0:
        return f"{0.0:.{decimals}f}"
    return f"{value:{'+' if signed else ''}.{decimals}f}".replace("-", "−")


def plus_minus(
    mean: float | None, half_width: float | None, *, signed: bool = False, decimals: int = 4
) -> str:
    """Mean and half width of its interval; the mean alone where there is no interval.

    A half width that ``decimals`` would print as zero gets the decimals to show its first digit,
    up to nine; below that it is rounding and prints as zero. The two are one word less a space, so
    that a narrow column breaks before the ±.

    >>> plus_minus(2.12341, 0.0021), plus_minus(2.12341, 0.0000042), plus_minus(2.12341, None)
    ('2.1234 ±0.0021', '2.123410 ±0.000004', '2.1234')
    """
    if half_width is None or pd.isna(half_width):
        return number(mean, signed=signed, decimals=decimals)
    if half_width >= _LEAST:
        decimals = max(decimals, -math.floor(math.log10(half_width)))
    width = number(half_width, decimals=decimals)
    return f"{number(mean, signed=signed, decimals=decimals)} ±{width}"


def percent(share: float) -> str:
    """
    >>> percent(0.95), percent(0.02594), percent(0.999), percent(1.0), percent(1.5)
    ('95 %', '2.6 %', '99.9 %', '100 %', '150 %')
    """
    value = 100 * share
    return f"{value:.0f} %" if value >= 999.5 else f"{value:.{2 if value < 99 else 3}g} %"


def p_value(p: float) -> str:
    """
    >>> p_value(0.0312), p_value(0.9981), p_value(0.00002)
    ('p = 0.031', 'p = 1.00', 'p < 0.0001')
    """
    if p < 1e-4:
        return "p < 0.0001"
    return f"p = {p:.2f}" if p >= 0.1 else f"p = {p:.2g}"


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """
    >>> counted(1, "seed"), counted(3, "seed"), counted(2, "loss", "losses")
    ('1 seed', '3 seeds', '2 losses')
    """
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def capital(text: str) -> str:
    """
    >>> capital("post-quant, TTT")
    'Post-quant, TTT'
    """
    return text[:1].upper() + text[1:]


def listed(words: list[str]) -> str:
    """
    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
