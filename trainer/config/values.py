"""The ranges that values of a recipe have in common, and how a broken rule is reported."""

from typing import Annotated

from pydantic import Field

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(ge=0.0)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Above0 = Annotated[float, Field(gt=0.0)]


def require(condition: bool, message: str) -> None:
    """A ValueError that says which values disagree, unless ``condition`` holds."""
    if not condition:
        raise ValueError(message)
