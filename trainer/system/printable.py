"""Text that a terminal prints as it stands: control characters become visible escapes."""

import re

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    r"""``text`` without what moves a cursor, colours, or turns text round; lines and tabs stay.

    >>> print(printable("red \x1b[31mnow\nbell \x07"))
    red \x1b[31mnow
    bell \x07
    """
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)
