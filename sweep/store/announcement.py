"""What a ``.start`` file says of an attempt: written by its driver, read from whoever wrote it."""

import contextlib
import json
import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pyarrow as pa

from sweep.store.json_object import json_object
from sweep.store.schema import SCHEMA

_COLUMNS = ("driver", "node", "generation")  # of the note itself; further ones are its identity's


def announcement(note: Mapping[str, Any], started_at: datetime) -> bytes:
    """The content of the file; the token keeps two of them from being alike."""
    text = {**note, "started_at": started_at.isoformat(), "token": secrets.token_hex(8)}
    return json.dumps(text).encode()


def read_announcement(
    data: bytes, cell_id: str
) -> tuple[dict[str, Any], datetime | None, list[str]]:
    """The note, when it was made, and what was left out of it because a row cannot hold it."""
    try:
        found = json_object(data)
    except ValueError as error:  # torn, where there are no links; or of others
        return {}, None, [str(error)]
    found.pop("token", None)
    started_at, left_out = None, []
    with contextlib.suppress(ValueError, TypeError):
        started_at = datetime.fromisoformat(found.pop("started_at", None))
    if started_at is None or started_at.tzinfo is None:
        started_at = None
        left_out.append("started_at")
    for name in found.keys() & set(_COLUMNS):
        if not _fits(name, found[name]):
            del found[name]
            left_out.append(name)
    if "identity" in found:
        identity = found.pop("identity")
        if isinstance(identity, dict) and identity.get("cell_id") in (None, cell_id):
            found["identity"] = {k: v for k, v in identity.items() if _fits(k, v)}
            left_out += [f"identity.{name}" for name in identity.keys() - found["identity"].keys()]
        else:
            left_out.append("identity")
    return found, started_at, sorted(left_out)


def _fits(column: str, value: object) -> bool:
    """Whether a row can hold it."""
    if column not in SCHEMA.names:
        return False
    try:
        pa.scalar(value, SCHEMA.field(column).type)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return False
    return True
