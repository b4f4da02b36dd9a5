"""Unpack a script that is a compressed text behind an ``exec``, without running it, and pack it."""


def unpack(text: str, where: str) -> tuple[str, str | None]:
    """The script's plain text, and the statement that it was packed in; None if it was not."""
    return text, None
