"""Read a small JSON file of the store that another version, or nobody of us, may have written."""

import json
from typing import Any


def json_object(data: bytes) -> dict[str, Any]:
    """The object in ``data``; a ValueError that says what it is where it is none.

    >>> json_object(b'{"host": "n1", "of a newer version": true}')
    {'host': 'n1', 'of a newer version': True}
    >>> json_object(b"[1]")
    Traceback (most recent call last):
    ValueError: a JSON object is needed, this is a list
    """
    try:
        found = json.loads(data)
    except RecursionError:
        raise ValueError("its brackets are too deep") from None
    if not isinstance(found, dict):
        raise ValueError(f"a JSON object is needed, this is a {type(found).__name__}")
    return found
