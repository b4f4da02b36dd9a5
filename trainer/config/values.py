"""Validation helpers of recipe values: the range of a fraction, and rules between values."""

from typing import Annotated

from pydantic import Field

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


def require(condition: bool, message: str) -> None:
    """A ValueError that says which values disagree, unless ``condition`` holds."""
    if not condition:
        raise ValueError(message)
